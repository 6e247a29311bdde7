"""Bytes as rows of sixteen, wrong ones marked, long stretches that nobody asks about left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["HexRow", "Marks", "hexdump"]

_ROW_BYTES = 16
_ALL_BYTES = 512  # what is no larger is shown whole
_HEAD_BYTES = 96
_TAIL_BYTES = 32
_CONTEXT_BYTES = 48
_MOST_ROWS = 160

# A piece of a row: its text, and the name of the style's class for it or an empty string.
Piece = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Marks:
    """What to mark: offsets of wrong bytes, what they should be, and words to put at an offset."""

    wrong: frozenset[int] = frozenset()
    expected: Mapping[int, int] = field(default_factory=dict)
    remarks: Mapping[int, str] = field(default_factory=dict)

    @property
    def places(self) -> list[int]:
        """Every marked offset, in order."""
        return sorted({*self.wrong, *self.remarks})


@dataclass(frozen=True, slots=True)
class HexRow:
    """One line of the dump; ``marked`` where something in it is wrong."""

    pieces: tuple[Piece, ...]
    marked: bool = False


def _runs(row: bytes, at: int, wrong: frozenset[int]) -> list[tuple[bytes, bool]]:
    runs: list[tuple[bytes, bool]] = []
    start = 0
    for i in range(1, len(row) + 1):
        if i == len(row) or (at + i in wrong) != (at + start in wrong):
            runs.append((row[start:i], at + start in wrong))
            start = i
    return runs


def _text(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def _row(row: bytes, at: int, wrong: frozenset[int]) -> HexRow:
    pieces: list[Piece] = [(f"{at:08x}  ", "")]
    runs = _runs(row, at, wrong)
    for data, hit in runs:
        pieces += [(data.hex(" "), "mark" if hit else ""), (" ", "")]
    pieces.append(("   " * (_ROW_BYTES - len(row)) + " |", ""))
    pieces += [(_text(data), "mark" if hit else "") for data, hit in runs]
    pieces.append(("|", ""))
    return HexRow(_joined(pieces), any(hit for _, hit in runs))


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Put neighbours of one class together: a plain row is one piece."""
    joined: list[Piece] = []
    for text, kind in pieces:
        if joined and joined[-1][1] == kind:
            joined[-1] = (joined[-1][0] + text, kind)
        else:
            joined.append((text, kind))
    return tuple(joined)


def _expected_row(row: bytes, at: int, expected: Mapping[int, int]) -> HexRow | None:
    wanted = [expected.get(at + i) for i in range(len(row))]
    if all(one is None for one in wanted):
        return None
    cells = " ".join("  " if one is None else f"{one:02x}" for one in wanted).ljust(47)
    text = "".join(" " if one is None else _text(bytes([one])) for one in wanted)
    return HexRow(((f"expected  {cells}  |{text}|", "want"),))


def _wanted_rows(size_bytes: int, places: Sequence[int]) -> list[int]:
    """Offsets of the rows to show: start, end, and what lies around the marks."""
    if size_bytes <= _ALL_BYTES:
        return list(range(0, size_bytes, _ROW_BYTES))
    rows = {*range(0, _HEAD_BYTES, _ROW_BYTES)}
    last = (size_bytes - _TAIL_BYTES) // _ROW_BYTES * _ROW_BYTES
    rows.update(range(last, size_bytes, _ROW_BYTES))
    for place in places:
        if len(rows) > _MOST_ROWS:
            break
        start = max(0, place - _CONTEXT_BYTES) // _ROW_BYTES * _ROW_BYTES
        rows.update(range(start, min(size_bytes, place + _CONTEXT_BYTES), _ROW_BYTES))
    return sorted(rows)


def hexdump(data: bytes, marks: Marks | None = None) -> list[HexRow]:
    """Show ``data`` around its start, its end and ``marks``; gaps are counted, not hidden."""
    marks = marks or Marks()
    shown: list[HexRow] = []
    next_at = 0
    for at in _wanted_rows(len(data), marks.places):
        if at > next_at:
            shown.append(HexRow(((f"          ... {at - next_at:,} bytes not shown ...", "gap"),)))
        row = data[at : at + _ROW_BYTES]
        shown.append(_row(row, at, marks.wrong))
        if (wanted := _expected_row(row, at, marks.expected)) is not None:
            shown.append(wanted)
        shown += _remarks(marks, at, at + _ROW_BYTES)
        next_at = at + _ROW_BYTES
    shown += _remarks(marks, next_at, None)
    return shown


def _remarks(marks: Marks, start: int, end: int | None) -> list[HexRow]:
    return [
        HexRow(((f"{offset:08x}  ^ {words}", "hit"),), marked=True)
        for offset, words in sorted(marks.remarks.items())
        if offset >= start and (end is None or offset < end)
    ]
