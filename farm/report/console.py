"""Console lines for a page: the part around the panic, what matters in it marked.

A marked line carries the name of a class of the style: ``hit`` for the panic itself, ``note`` for
what panicdump and the reset say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from farm.model import PanicAccount
from farm.report.printable import console_text

__all__ = ["console_excerpt", "marked_lines"]

_LINES_BEFORE_PANIC = 12
_LINES_AFTER_PANIC = 40
_HIT = re.compile(
    r"Kernel panic - not syncing|^(\[ *\d+\.\d+\] )?(BUG: |Oops|Internal error: |kernel BUG at )"
    r"|Unable to handle kernel|watchdog: BUG: "
)
_NOTE = re.compile(r"panicdump|Reset Type:|Crash mode|Rebooting in |pstore:|ramoops:")


def _kind(line: str) -> str:
    if _HIT.search(line):
        return "hit"
    return "note" if _NOTE.search(line) else ""


def marked_lines(lines: Iterable[str], panic_line: str | None = None) -> list[tuple[str, str]]:
    """Make lines fit to show, each with its class: ``hit``, ``note`` or none."""
    return [
        (
            console_text(line),
            "hit" if panic_line is not None and panic_line in line else _kind(line),
        )
        for line in lines
    ]


def console_excerpt(panic: PanicAccount) -> list[tuple[str, str]]:
    """Cut the console to the lines around the panic, and mark them."""
    lines = panic.panic_console_lines
    at = None
    if panic.panic_line is not None:
        at = next((i for i, line in enumerate(lines) if panic.panic_line in line), None)
    if at is None:
        excerpt = marked_lines(lines[-_LINES_AFTER_PANIC:])
        if panic.panic_line is not None:
            excerpt.insert(0, (console_text(panic.panic_line), "hit"))
        return excerpt
    start = max(0, at - _LINES_BEFORE_PANIC)
    return marked_lines(lines[start : at + 1 + _LINES_AFTER_PANIC], panic.panic_line)
