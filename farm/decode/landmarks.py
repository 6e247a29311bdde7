"""One pass over a dump of memory, for what tells the way in it.

Words at multiples of 8 bytes are compared by numpy, 512 KiB at a time, which is about as fast as
the memory can be read at all; most landmarks are looked for at the beginning of pages only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from farm.decode.memory import FileSource, Memory, Segment
from farm.formats.devicetree import FDT_MAGIC
from farm.formats.memory_table import MAGIC, MAX_ENTRIES
from farm.formats.ramoops import PANICDUMP_SIGNATURE, SIGNATURE
from farm.formats.vmcoreinfo import FIRST_WORD

__all__ = ["Landmarks", "Place", "entry_pages", "find_bytes", "find_landmarks"]

CHUNK_BYTES = 512 << 10
PAGE_BYTES = 4096
_NOTE_HEADER_BYTES = 24  # of a note of the name VMCOREINFO
# So many of a kind are kept: real dumps have few, and a hostile one may have nothing else.
_MAX_PLACES = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a segment, `offset` bytes from its beginning."""

    number: int
    offset: int


@dataclass
class Landmarks:
    """Where in the dump what stands, by segment and offset; nothing of it is checked yet."""

    tables: list[Place] = field(default_factory=list)
    vmcoreinfo: list[Place] = field(default_factory=list)
    zones: list[Place] = field(default_factory=list)
    devicetrees: list[Place] = field(default_factory=list)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text[:8], "little"))


def find_landmarks(memory: Memory, progress: Progress | None = None) -> Landmarks:
    """Look through all of the dump; `progress` gets bytes done and bytes in all."""
    found = Landmarks()
    buffer = bytearray(CHUNK_BYTES)
    done = 0
    for number, segment in enumerate(memory.segments):
        at = 0
        while at < segment.size_bytes:
            at = _past_hole(segment, at)
            size = min(CHUNK_BYTES, segment.size_bytes - at)
            if size <= 0:
                break
            view = memoryview(buffer)[:size]
            segment.source.read_into(segment.offset + at, view)
            if size < CHUNK_BYTES:
                buffer[size:] = bytes(CHUNK_BYTES - size)
            _look(buffer, number, at, found)
            at += size
            if progress is not None:
                progress(done + at, memory.size_bytes)
        done += segment.size_bytes
    return found


def _past_hole(segment: Segment, at: int) -> int:
    """Where to go on: holes of a file are nothing but zeros.  A multiple of a page."""
    if not isinstance(segment.source, FileSource):
        return at
    data = segment.source.next_data(segment.offset + at) - segment.offset
    return max(at, min(data, segment.size_bytes) // PAGE_BYTES * PAGE_BYTES)


_TABLE = _word(MAGIC)
_INFO = _word(FIRST_WORD)
_ZONES = (np.uint64(SIGNATURE), np.uint64(PANICDUMP_SIGNATURE))
_TREE = np.uint64(int.from_bytes(FDT_MAGIC, "little"))
_LOW = np.uint64(0xFFFF_FFFF)


def _look(buffer: bytearray, number: int, at: int, found: Landmarks) -> None:
    words = np.frombuffer(buffer, dtype="<u8")
    _keep(words == _TABLE, 8, 0, number, at, found.tables)
    heads = words[:: PAGE_BYTES // 8]
    _keep(heads == _INFO, PAGE_BYTES, 0, number, at, found.vmcoreinfo)
    behind = words[_NOTE_HEADER_BYTES // 8 :: PAGE_BYTES // 8]
    _keep(behind == _INFO, PAGE_BYTES, _NOTE_HEADER_BYTES, number, at, found.vmcoreinfo)
    low = heads & _LOW
    _keep((low == _ZONES[0]) | (low == _ZONES[1]), PAGE_BYTES, 0, number, at, found.zones)
    _keep(low == _TREE, PAGE_BYTES, 0, number, at, found.devicetrees)


def _keep(
    hits: np.ndarray[tuple[int], np.dtype[np.bool_]],
    step: int,
    first: int,
    number: int,
    at: int,
    places: list[Place],
) -> None:
    if not hits.any():
        return
    for index in np.flatnonzero(hits):
        if len(places) < _MAX_PLACES:
            places.append(Place(number, at + first + int(index) * step))


def entry_pages(segment: Segment) -> Iterator[int]:
    """Offsets of pages at which the entries of a table may begin."""
    buffer = bytearray(CHUNK_BYTES)
    at = 0
    while at < segment.size_bytes:
        at = _past_hole(segment, at)
        size = min(CHUNK_BYTES, segment.size_bytes - at)
        if size <= 0:
            return
        view = memoryview(buffer)[:size]
        segment.source.read_into(segment.offset + at, view)
        buffer[size:] = bytes(CHUNK_BYTES - size)
        words = np.frombuffer(buffer, dtype="<u4").reshape(-1, PAGE_BYTES // 4)
        device, region, kind, flags = (words[:, column] for column in (0, 1, 8, 9))
        fits = (device > 0) & (device <= MAX_ENTRIES) & (region < MAX_ENTRIES)
        fits &= (kind >= 1) & (kind <= 4) & (flags == 0)
        for index in np.flatnonzero(fits):
            yield at + int(index) * PAGE_BYTES
        at += size


def find_bytes(memory: Memory, wanted: bytes, progress: Progress | None = None) -> Place | None:
    """The first place of these bytes, anywhere; None if they are not in the dump."""
    buffer = bytearray(CHUNK_BYTES + len(wanted))
    done = 0
    for number, segment in enumerate(memory.segments):
        at = 0
        while at < segment.size_bytes:
            at = _past_hole(segment, at)
            size = min(len(buffer), segment.size_bytes - at)
            if size <= 0:
                break
            view = memoryview(buffer)[:size]
            segment.source.read_into(segment.offset + at, view)
            index = buffer.find(wanted, 0, size)
            if index >= 0:
                return Place(number, at + index)
            # What begins in this piece and ends in the next one is found in the next one.
            at += CHUNK_BYTES
            if progress is not None:
                progress(done + at, memory.size_bytes)
        done += segment.size_bytes
    return None
