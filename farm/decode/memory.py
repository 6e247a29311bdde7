"""A dump of a board's memory, whatever file or folder it came in: bytes by physical address.

Nothing is read before it is asked for, and no more is held than that: a dump can be larger than
the memory of the computer that looks at it.
"""

from __future__ import annotations

import bisect
import json
import mmap
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from farm.errors import FormatError, UsageError
from farm.formats.elf import ELF_MAGIC, Note, SegmentType, parse_elf, parse_notes
from farm.formats.kdump import (
    FLATTENED_MAGIC,
    KDUMP_MAGIC,
    KdumpFile,
    flattened_pieces,
    open_kdump,
)
from farm.formats.layout import printable

__all__ = ["Memory", "Segment", "open_memory"]

ACCOUNT = "ramdump.json"
_CMM = re.compile(
    r"d(?:ata)?\.load\.b(?:inary)?\s+\"?([^\s\"()]+)\"?\s+(?:[a-z]+:)?(0x[0-9a-f]+)", re.IGNORECASE
)
_DUMP_INFO = re.compile(r"^\s*\d+\s+(0x[0-9a-fA-F]+)\s+(0x[0-9a-fA-F]+|\d+)\s+.*?(\S+)\s*$", re.M)
_IN_NAME = re.compile(r"(?:@|_|-)0x([0-9a-fA-F]{1,16})(?:\.[A-Za-z0-9]+)?$")
_MAX_TEXT_BYTES = 1 << 20
_MAX_END = 1 << 64
_MAX_FILES = 4096
_MAX_NOTES_BYTES = 1 << 24


class Source(Protocol):
    """Where bytes come from."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view from this offset on; what the source lacks comes out as zeros."""


@dataclass(frozen=True)
class Segment:
    """Memory that is contiguous; `paddr` is where it begins, None as long as nobody knows.

    `file` names where it came from, for messages; `name` is what the board called it, escaped.
    """

    paddr: int | None
    size_bytes: int
    source: Source
    offset: int
    file: str
    vaddr: int = 0
    name: str = ""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return (self.paddr or 0) + self.size_bytes


class Memory:
    """Segments in the order in which they were found; notes are those of an ELF or a kdump file."""

    def __init__(
        self,
        kind: str,
        segments: Sequence[Segment],
        notes: Sequence[Note] = (),
        vmcoreinfo: bytes = b"",
    ) -> None:
        self.kind = kind
        self.segments = list(segments)
        self.notes = tuple(notes)
        self.vmcoreinfo = vmcoreinfo
        self._sort()

    def _sort(self) -> None:
        located = [one for one in self.segments if one.paddr is not None]
        self._by_address = sorted(located, key=lambda one: one.paddr or 0)
        self._starts = [one.paddr or 0 for one in self._by_address]

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(one.size_bytes for one in self.segments)

    @property
    def located(self) -> tuple[Segment, ...]:
        """The segments whose address is known, in the order of it."""
        return tuple(self._by_address)

    def locate(self, segment: Segment, paddr: int) -> None:
        """Say where a segment begins."""
        self.segments[self.segments.index(segment)] = replace(segment, paddr=paddr)
        self._sort()

    def read(self, paddr: int, size_bytes: int) -> bytes | None:
        """The bytes at an address; None if one of them is not in the dump."""
        out = bytearray(size_bytes)
        for start, size, segment in self.spans(paddr, size_bytes):
            if segment is None:
                return None
            at = segment.offset + start - (segment.paddr or 0)
            segment.source.read_into(at, memoryview(out)[start - paddr :][:size])
        return bytes(out)

    def spans(self, paddr: int, size_bytes: int) -> Iterator[tuple[int, int, Segment | None]]:
        """Cut a range where segments begin and end: (address, size, segment or None)."""
        at, end = paddr, paddr + size_bytes
        while at < end:
            number = bisect.bisect_right(self._starts, at)
            segment = self._by_address[number - 1] if number else None
            if segment is not None and at < segment.end:
                stop = min(end, segment.end)
            else:
                segment = None
                stop = min(end, self._starts[number]) if number < len(self._starts) else end
            yield at, stop - at, segment
            at = stop


class FileSource:
    """A file, from its first byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A pipe that nobody writes to would have the command wait for ever.
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._file)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(
                f"{path} is not a regular file",
                "What it gives is read in any order: write it to a file first.",
            )
        self.size_bytes = status.st_size

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view; behind the end of the file there are zeros."""
        while view:
            got = os.preadv(self._file, [view], offset)
            if not got:
                view[:] = bytes(len(view))
                return
            view, offset = view[got:], offset + got

    def read(self, offset: int, size_bytes: int) -> bytes:
        """What of these bytes is there."""
        return os.pread(self._file, size_bytes, offset) if 0 <= offset < self.size_bytes else b""

    def next_data(self, offset: int) -> tuple[int, int]:
        """Where the file next holds data and no hole, and where a hole follows; else its size."""
        try:
            data = os.lseek(self._file, offset, os.SEEK_DATA)
            return data, os.lseek(self._file, data, os.SEEK_HOLE)
        except OSError:
            return self.size_bytes, self.size_bytes

    def mapped(self) -> mmap.mmap:
        """The file in memory, for parsing its headers."""
        return mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)


class PieceSource:
    """A flattened dump put together again."""

    def __init__(self, file: FileSource) -> None:
        self._file = file
        self._pieces = flattened_pieces(file.read, file.size_bytes)
        self._starts = [offset for offset, _, _ in self._pieces]
        self.size_bytes = max((offset + size for offset, size, _ in self._pieces), default=0)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """What of these bytes is there; gaps between pieces are zeros."""
        size_bytes = max(0, min(size_bytes, self.size_bytes - offset))
        out = bytearray(size_bytes)
        number = max(0, bisect.bisect_right(self._starts, offset) - 1)
        for start, size, at in self._pieces[number:]:
            if start >= offset + size_bytes:
                break
            begin, end = max(start, offset), min(start + size, offset + size_bytes)
            if begin < end:
                piece = self._file.read(at + begin - start, end - begin)
                out[begin - offset : begin - offset + len(piece)] = piece
        return bytes(out)


class PageSource:
    """A kdump-compressed file: offsets are physical addresses; the last page is kept."""

    def __init__(self, dump: KdumpFile) -> None:
        self._dump = dump
        self._last: tuple[int, bytes] | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view, page by page; pages that the dump leaves out are zeros."""
        size = self._dump.page_size
        at = 0
        while at < len(view):
            number, inside = divmod(offset + at, size)
            count = min(size - inside, len(view) - at)
            view[at : at + count] = self._page(number)[inside : inside + count]
            at += count

    def _page(self, number: int) -> bytes:
        if self._last is None or self._last[0] != number:
            self._last = number, self._dump.page(number) or bytes(self._dump.page_size)
        return self._last[1]


def open_memory(
    paths: Sequence[Path], *, base_paddr: int | None = None, places: Sequence[tuple[str, int]] = ()
) -> Memory:
    """Open a dump: one file, a folder of files, or several files that are one dump together.

    `base_paddr` is where a flat file begins; `places` are (file name, address) for files of a
    folder. Raises FormatError or UsageError that names the file.
    """
    if len(paths) == 1 and paths[0].is_dir():
        return _folder(paths[0], dict(places))
    if len(paths) > 1:
        known = dict(places)
        return Memory("files", [_flat(path, known.get(path.name)) for path in paths])
    path = paths[0]
    file = FileSource(path)
    head = file.read(0, 16)
    try:
        if head.startswith(ELF_MAGIC):
            return _elf(file)
        if head.startswith(FLATTENED_MAGIC):
            pieces = PieceSource(file)
            return _kdump(open_kdump(pieces.read, pieces.size_bytes), path)
        if head.startswith(KDUMP_MAGIC):
            return _kdump(open_kdump(file.read, file.size_bytes), path)
    except FormatError as error:
        raise FormatError(
            f"{path}: offset {error.offset:#x}: {error.message}",
            offset=error.offset,
            next_step=error.next_step,
        ) from error
    base = base_paddr if base_paddr is not None else dict(places).get(path.name)
    return Memory("flat", [_flat(path, base)])


def _flat(path: Path, paddr: int | None, name: str = "") -> Segment:
    file = FileSource(path)
    if paddr is None:
        match = _IN_NAME.search(path.name)
        paddr = int(match[1], 16) if match else None
    if paddr is not None and not 0 <= paddr <= _MAX_END - file.size_bytes:
        raise UsageError(f"{path}: no memory of {file.size_bytes:,} bytes begins at {paddr:#x}")
    return Segment(paddr, file.size_bytes, file, 0, str(path), name=name)


def _elf(file: FileSource) -> Memory:
    image = parse_elf(file.mapped())
    if image.damages and file.read(4, 2) != b"\2\1":
        raise FormatError("an ELF file that is not 64-bit little-endian", offset=4)
    segments = []
    names: dict[int, str] = {}
    for section in image.sections:
        if section.size_bytes:
            names.setdefault(section.offset, section.name)
    for one in image.segments:
        if one.type is not SegmentType.LOAD or not one.file_size_bytes:
            continue
        size = min(one.file_size_bytes, file.size_bytes - one.offset, _MAX_END - one.paddr)
        if size > 0:
            name = names.get(one.offset, "")
            segments.append(
                Segment(one.paddr, size, file, one.offset, str(file.path), one.vaddr, name)
            )
    # A file is not more memory than it is long: its bytes are at one address only.
    return Memory("ELF", _without_overlaps(_without_overlaps(segments, "offset")), image.notes)


def _without_overlaps(segments: list[Segment], of: str = "paddr") -> list[Segment]:
    """The first to hold an address, or an offset in the file, keeps it: no byte counts twice."""
    kept: list[Segment] = []
    end = 0
    for one in sorted(segments, key=lambda segment: getattr(segment, of)):
        cut = max(0, end - getattr(one, of))
        if cut >= one.size_bytes:
            continue
        if cut:
            one = replace(
                one,
                paddr=(one.paddr or 0) + cut,
                vaddr=one.vaddr and one.vaddr + cut,
                offset=one.offset + cut,
                size_bytes=one.size_bytes - cut,
            )
        kept.append(one)
        end = getattr(one, of) + one.size_bytes
    return kept


def _kdump(dump: KdumpFile, path: Path) -> Memory:
    source = PageSource(dump)
    size = dump.page_size
    segments = [
        Segment(first * size, count * size, source, first * size, str(path))
        for first, count in dump.runs
    ]
    return Memory("kdump", segments, _notes_of(dump.notes), dump.vmcoreinfo)


def _notes_of(data: bytes) -> list[Note]:
    return parse_notes(data[:_MAX_NOTES_BYTES])


def _folder(folder: Path, places: dict[str, int]) -> Memory:
    """Every file whose address is told: by the caller, by what lies beside it, or by its name."""
    try:
        files = sorted(one for one in folder.iterdir() if one.is_file() and not one.is_symlink())
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from error
    if len(files) > _MAX_FILES:
        raise UsageError(f"{folder} has {len(files)} files: not a dump of memory")
    told = {**_told_by_texts(files), **{name.lower(): at for name, at in places.items()}}
    segments = []
    for path in files:
        paddr = told.get(path.name.lower())
        match = _IN_NAME.search(path.name)
        if paddr is None and match:
            paddr = int(match[1], 16)
        if paddr is not None and path.stat().st_size:
            segments.append(_flat(path, paddr, printable(path.name.encode(errors="replace"))))
    if not segments:
        # Without any address, a large file may still tell its own.
        large = max(files, key=lambda one: one.stat().st_size, default=None)
        if large is None or not large.stat().st_size:
            raise UsageError(f"{folder} has no file with memory in it")
        segments = [_flat(large, None)]
    return Memory("folder", _without_overlaps(segments))


def _told_by_texts(files: list[Path]) -> dict[str, int]:
    """Addresses that files beside the dump give: by name, in lower case."""
    told: dict[str, int] = {}
    for path in files:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            continue
        name = path.name.lower()
        if name == ACCOUNT:
            told.update(_told_by_account(path))
        elif name.endswith(".cmm"):
            text = path.read_text(encoding="latin-1")
            told.update((file.lower(), int(at, 16)) for file, at in _CMM.findall(text))
        elif name == "dump_info.txt":
            text = path.read_text(encoding="latin-1")
            told.update((file.lower(), int(at, 16)) for at, _, file in _DUMP_INFO.findall(text))
    return told


def _told_by_account(path: Path) -> dict[str, int]:
    try:
        said = json.loads(path.read_text())
        return {str(one["file"]).lower(): int(one["base"]) for one in said["files"]}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise FormatError(f"{path} is no account of a dump: {error}", offset=0) from error
