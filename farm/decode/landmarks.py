"""One pass over a dump of memory, for what tells the way in it.

Words at multiples of 8 bytes are compared by numpy, a MiB at a time, which is about as fast as
one processor can read the memory at all; most landmarks are looked for at the beginning of pages
only. Neither reading nor comparing holds Python's lock, so that all processors take part.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields

import numpy as np

from farm.decode.memory import FileSource, Memory, Segment
from farm.formats.devicetree import FDT_MAGIC
from farm.formats.memory_table import MAGIC, MAX_ENTRIES
from farm.formats.ramoops import PANICDUMP_SIGNATURE, SIGNATURE
from farm.formats.vmcoreinfo import FIRST_WORD

__all__ = ["Landmarks", "Place", "find_bytes", "find_landmarks", "pieces"]

CHUNK_BYTES = 1 << 20
PAGE_BYTES = 4096
_STRETCH_BYTES = 64 * CHUNK_BYTES
# More do not read faster.
_MAX_THREADS = min(4, os.cpu_count() or 1)
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
    """Where in the dump what stands, by segment and offset; nothing of it is checked yet.

    `entries` are pages at which those of a table may begin, in segments of unknown address only.
    """

    tables: list[Place] = field(default_factory=list)
    vmcoreinfo: list[Place] = field(default_factory=list)
    zones: list[Place] = field(default_factory=list)
    devicetrees: list[Place] = field(default_factory=list)
    entries: list[Place] = field(default_factory=list)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text[:8], "little"))


_TABLE = _word(MAGIC)
_INFO = _word(FIRST_WORD)
_ZONES = (np.uint64(SIGNATURE), np.uint64(PANICDUMP_SIGNATURE))
_TREE = np.uint64(int.from_bytes(FDT_MAGIC, "little"))
_LOW = np.uint64(0xFFFF_FFFF)
_PAGE_WORDS = PAGE_BYTES // 8
# A page's words up to that of an entry's kind and flags, in which the flags are zero.
_KIND_WORD = 4
_HEAD_WORDS = _KIND_WORD + 1
_KINDS = np.uint64(4)
# The heads of so many pages are looked at together: numpy takes a microsecond to begin.
_PAGES_AT_ONCE = 1024

_Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


def find_landmarks(memory: Memory, progress: Progress | None = None) -> Landmarks:
    """Look through all of the dump; `progress` gets bytes done and bytes in all."""
    found = Landmarks()
    # Other sources unpack, which Python does in one thread at a time.
    alike = all(isinstance(one.source, FileSource) for one in memory.segments)
    with ThreadPoolExecutor(_MAX_THREADS if alike else 1) as pool:
        stretches = (
            (number, segment, stretch)
            for number, segment in enumerate(memory.segments)
            for stretch in _stretches(segment)
        )
        for number, end, part in pool.map(lambda one: _look_through(*one), stretches):
            for one in fields(Landmarks):
                places = getattr(found, one.name)
                places += getattr(part, one.name)
                if one.name != "entries":
                    del places[_MAX_PLACES:]
            if progress is not None:
                before = sum(one.size_bytes for one in memory.segments[:number])
                progress(before + end, memory.size_bytes)
    return found


def _stretches(segment: Segment) -> Iterator[tuple[int, int]]:
    """What one thread takes at once, from and to; holes are left out."""
    at, _ = _next_data(segment, 0)
    while at < segment.size_bytes:
        end = min(at + _STRETCH_BYTES, segment.size_bytes)
        yield at, end
        at, _ = _next_data(segment, end)


def _look_through(
    number: int, segment: Segment, stretch: tuple[int, int]
) -> tuple[int, int, Landmarks]:
    found = Landmarks()
    # At the beginning of a page, as files are: where the two differ by 8 or 16 bytes, as with a
    # bytearray of this size, some processors' string copies take four times as long.
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    words = np.frombuffer(buffer, dtype="<u8")
    hits = np.zeros(len(words), dtype=np.bool_)
    pages = words.reshape(-1, _PAGE_WORDS)[:, :_HEAD_WORDS]
    heads = np.zeros((_PAGES_AT_ONCE, _HEAD_WORDS), dtype=np.uint64)
    begin = end = gathered = 0
    for at, size in pieces(segment, buffer, stretch):
        if size < CHUNK_BYTES:
            buffer[size:] = bytes(CHUNK_BYTES - size)
        _keep(np.equal(words, _TABLE, out=hits), 8, Place(number, at), found.tables)
        if gathered == _PAGES_AT_ONCE or at != end:
            _look_at_heads(heads[:gathered], Place(number, begin), segment, found)
            begin, gathered = at, 0
        heads[gathered : gathered + len(pages)] = pages
        gathered += len(pages)
        end = at + size
    _look_at_heads(heads[:gathered], Place(number, begin), segment, found)
    return number, stretch[1], found


def pieces(
    segment: Segment, buffer: mmap.mmap, stretch: tuple[int, int] | None = None, more: int = 0
) -> Iterator[tuple[int, int]]:
    """Read a segment, or what of it is in a stretch, into the buffer: (offset, bytes read).

    Each piece begins CHUNK_BYTES behind the one before, but for holes, and is `more` bytes longer.
    """
    view = memoryview(buffer)
    at, stop = stretch or (0, segment.size_bytes)
    hole = at
    while True:
        if at >= hole:
            at, hole = _next_data(segment, at)
        size = min(CHUNK_BYTES + more, stop - at)
        if size <= 0:
            return
        segment.source.read_into(segment.offset + at, view[:size])
        yield at, size
        at += CHUNK_BYTES


def _next_data(segment: Segment, at: int) -> tuple[int, int]:
    """Where data goes on, at a multiple of a page, and up to where: holes are nothing but zeros."""
    if not isinstance(segment.source, FileSource):
        return at, segment.size_bytes
    data, hole = (one - segment.offset for one in segment.source.next_data(segment.offset + at))
    return max(at, min(data, segment.size_bytes) // PAGE_BYTES * PAGE_BYTES), hole


def _look_at_heads(heads: _Words, first: Place, segment: Segment, found: Landmarks) -> None:
    head = heads[:, 0]
    _keep(head == _INFO, PAGE_BYTES, first, found.vmcoreinfo)
    behind = Place(first.number, first.offset + _NOTE_HEADER_BYTES)
    _keep(heads[:, _NOTE_HEADER_BYTES // 8] == _INFO, PAGE_BYTES, behind, found.vmcoreinfo)
    low = head & _LOW
    _keep((low == _ZONES[0]) | (low == _ZONES[1]), PAGE_BYTES, first, found.zones)
    _keep(low == _TREE, PAGE_BYTES, first, found.devicetrees)
    if segment.paddr is None:
        kind = heads[:, _KIND_WORD]
        device, region = low, head >> np.uint64(32)
        fits = (kind >= 1) & (kind <= _KINDS) & (device > 0)
        fits &= (device <= MAX_ENTRIES) & (region < MAX_ENTRIES)
        # None may be left out: the dump is located by the one that fits best.
        _keep(fits, PAGE_BYTES, first, found.entries, most=len(found.entries) + len(heads))


def _keep(
    hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    step: int,
    first: Place,
    places: list[Place],
    most: int = _MAX_PLACES,
) -> None:
    if not hits.any():
        return
    for index in np.flatnonzero(hits)[: max(0, most - len(places))]:
        places.append(Place(first.number, first.offset + int(index) * step))


def find_bytes(memory: Memory, wanted: bytes, progress: Progress | None = None) -> Place | None:
    """The first place of these bytes, anywhere; None if they are not in the dump."""
    buffer = mmap.mmap(-1, CHUNK_BYTES + len(wanted))
    done = 0
    for number, segment in enumerate(memory.segments):
        # What begins in a piece and ends in the next one is found in the first.
        for at, size in pieces(segment, buffer, more=len(wanted)):
            index = buffer.find(wanted, 0, size)
            if index >= 0:
                return Place(number, at + index)
            if progress is not None:
                progress(done + at + size, memory.size_bytes)
        done += segment.size_bytes
    return None
