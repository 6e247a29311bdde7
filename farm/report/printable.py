"""Text from a board made safe to show, and quantities made readable.

A name or console line from a board can hold anything: escape sequences, line feeds, characters
that turn the writing direction. Whatever is not plainly visible is shown as its number instead.
"""

from __future__ import annotations

import re

__all__ = ["console_text", "duration_text", "exact_size_text", "ratio_text", "size_text", "visible"]

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def _number_of(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str, *, ascii_only: bool = False, limit: int = 2000) -> str:
    """Show ``text`` on one line without control, format or private characters.

    ``limit`` is the most characters of ``text`` that are shown. With ``ascii_only`` everything
    beyond ASCII is shown as its number too, for terminals and logs of unknown encoding.
    """
    cut = text[:limit]
    shown = "".join(
        character
        if character.isprintable() and (not ascii_only or character.isascii())
        else _number_of(character)
        for character in cut
    )
    return f"{shown}..." if len(text) > limit else shown


def console_text(line: str) -> str:
    """Show a console line: colour sequences dropped, a tab as spaces, the rest as `visible`."""
    return visible(_ANSI_COLOUR.sub("", line).rstrip("\r\n").expandtabs(8), limit=400)


def size_text(size_bytes: int) -> str:
    """Write a size with a binary unit: ``312 B``, ``64.0 KiB``."""
    value = float(size_bytes)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def exact_size_text(size_bytes: int) -> str:
    """Write a size to the byte, digits in groups of three: ``65,536 B``."""
    return f"{size_bytes:,} B"


def duration_text(duration_s: float) -> str:
    """Write a duration: ``84 ms``, ``2.31 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 59.95:
        return f"{duration_s:.2f} s" if duration_s < 10 else f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio_text(ratio: float | None) -> str:
    """Write wall time as a multiple of board time; a dash when there was no board time."""
    return "-" if ratio is None else f"{ratio:.2f} x"
