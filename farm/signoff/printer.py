"""A page on paper, by a process of its own: it loads and lays out while its caller goes on.

To print takes longer than all the rest of a small sign-off, and no part of the rest waits for it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Self

from farm.errors import BenchError

__all__ = ["Printer"]


class Printer:
    """Prints one page; a context manager, behind which the process is gone."""

    def __init__(self) -> None:
        # Safe path: a folder in which a user works is no place to import from.
        command = [sys.executable, "-P", "-m", "farm.signoff.printer"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, html: Path) -> None:
        """Print the page in this file."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(str(html.absolute()).encode())
            self._process.stdin.close()
        except BrokenPipeError:
            # What it died of is told in the end.
            pass
        self._process.stdin = None

    def pdf(self) -> bytes:
        """The page as PDF; raises BenchError (part ``host``) when it could not be printed."""
        pdf, said = self._process.communicate()
        if self._process.returncode:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise BenchError(
                f"the sign-off cannot be printed: {last or f'exit {self._process.returncode}'}",
                part="host",
                next_step="WeasyPrint needs libpango; `make setup` installs it.",
            )
        return pdf


def _print(html: Path) -> bytes:
    from weasyprint import HTML

    # What it has to say is about style rules meant for screens.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)

    def refuse(url: str, *_: object, **__: object) -> object:
        raise ValueError(f"a sign-off loads nothing: {url}")

    text = html.read_text(encoding="utf-8")
    pdf: bytes = HTML(string=text, url_fetcher=refuse, base_url="bundle:/").write_pdf()
    return pdf


def main() -> None:
    """Load what is needed, wait for the name of a page, print it to standard output."""
    import weasyprint  # noqa: F401

    if name := sys.stdin.buffer.read().decode():
        sys.stdout.buffer.write(_print(Path(name)))


if __name__ == "__main__":
    main()
