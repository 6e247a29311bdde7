"""What the serial line said, on disk: ``console.raw`` byte by byte, ``console.log`` by line."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from farm.errors import BenchError

RAW_NAME = "console.raw"
LOG_NAME = "console.log"

_LINE_LIMIT_BYTES = 1 << 16
# A board's escape sequences must not run in the terminal of who reads the log.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(line: bytes) -> str:
    """One line of the console as text that is safe to show; control characters as ``\\xNN``."""
    text = line.rstrip(b"\r\n").decode("utf-8", errors="backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Recording:
    """Both files in ``folder``, appended to; raises BenchError(part="disk") from every method.

    A line of ``console.log`` begins with the time of its first byte, RFC 3339, UTC, in ms.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._line = bytearray()
        self._line_began = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._raw = (folder / RAW_NAME).open("ab", buffering=0)
            self._log = (folder / LOG_NAME).open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> BenchError:
        return BenchError(
            f"cannot record the console in {self._folder}: {error.strerror or error}", part="disk"
        )

    def add(self, data: bytes) -> None:
        """Record ``data``, which arrived just now."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._raw.write(data)
            *whole, rest = data.split(b"\n")
            for piece in whole:
                self._add_to_line(piece, now)
                self._end_line()
            if rest:
                self._add_to_line(rest, now)
            if whole:
                self._log.flush()
        except OSError as error:
            raise self._fault(error) from error

    def _add_to_line(self, piece: bytes, now: str) -> None:
        if not self._line_began:
            self._line_began = now
        self._line += piece
        if len(self._line) > _LINE_LIMIT_BYTES:
            self._end_line()

    def _end_line(self) -> None:
        self._log.write(f"{self._line_began} {printable(bytes(self._line))}\n")
        self._line.clear()
        self._line_began = ""

    def close(self) -> None:
        """End the unfinished line and close both files."""
        try:
            if self._line:
                self._end_line()
            self._log.close()
            self._raw.close()
        except OSError as error:
            raise self._fault(error) from error
