"""One pass over a dump of memory, for what tells the way in it.

Words at multiples of 8 bytes are compared by numpy, a MiB at a time, which is about as fast as
one processor can read the memory at all; most landmarks are looked for at the beginning of pages
only. Neither reading nor comparing holds Python's lock, so that all processors take part.
"""

from __future__ import annotations

import bisect
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

__all__ = ["Landmarks", "Place", "find_bytes", "find_landmarks", "pieces", "whole_pages"]

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


@dataclass(frozen=True, slots=True)
class _Part:
    """What of a segment is looked through at once; `begin` is at a page's beginning."""

    number: int
    segment: Segment
    begin: int
    end: int


def find_landmarks(memory: Memory, progress: Progress | None = None) -> Landmarks:
    """Look through all of the dump; `progress` gets bytes done and bytes in all."""
    found = Landmarks()
    size_bytes = memory.size_bytes
    # Other sources unpack, which Python does in one thread at a time.
    alike = all(isinstance(one.source, FileSource) for one in memory.segments)
    with ThreadPoolExecutor(_MAX_THREADS if alike else 1) as pool:
        for done, part in pool.map(lambda one: (one[0], _look_through(one[1])), _stretches(memory)):
            for one in fields(Landmarks):
                places = getattr(found, one.name)
                places += getattr(part, one.name)
                if one.name != "entries":
                    del places[_MAX_PLACES:]
            if progress is not None:
                progress(done, size_bytes)
    return found


def _stretches(memory: Memory) -> Iterator[tuple[int, list[_Part]]]:
    """What one thread takes at once, and how far the dump is done with it; holes are left out.

    All parts of one are of segments whose address is known, or none is.
    """
    parts: list[_Part] = []
    before = size = 0
    for number, segment in enumerate(memory.segments):
        if parts and (parts[-1].segment.paddr is None) != (segment.paddr is None):
            yield before, parts
            parts, size = [], 0
        at, _ = _next_data(segment, 0)
        while at < segment.size_bytes:
            end = min(at + _STRETCH_BYTES - size, segment.size_bytes)
            parts.append(_Part(number, segment, at, end))
            size += whole_pages(end - at)
            if size == _STRETCH_BYTES:
                yield before + end, parts
                parts, size = [], 0
            at, _ = _next_data(segment, end)
        before += segment.size_bytes
    if parts:
        yield before, parts


def whole_pages(size_bytes: int) -> int:
    """So many bytes and what is missing of the last page."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


@dataclass
class _Spots:
    """Where in the dump the pages of a buffer are: from byte `starts[n]` of it on, `places[n]`."""

    starts: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, start: int, place: Place) -> None:
        self.starts.append(start)
        self.places.append(place)

    def place(self, at: int) -> Place:
        """Where in the dump the byte `at` of the buffer is."""
        index = bisect.bisect_right(self.starts, at) - 1
        first = self.places[index]
        return Place(first.number, first.offset + at - self.starts[index])


def _look_through(parts: list[_Part]) -> Landmarks:
    found = Landmarks()
    unlocated = parts[0].segment.paddr is None
    # At the beginning of a page, as files are: where the two differ by 8 or 16 bytes, as with a
    # bytearray of this size, some processors' string copies take four times as long.
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    words = np.frombuffer(buffer, dtype="<u8")
    hits = np.zeros(len(words), dtype=np.bool_)
    pages = words.reshape(-1, _PAGE_WORDS)[:, :_HEAD_WORDS]
    heads = np.zeros((_PAGES_AT_ONCE, _HEAD_WORDS), dtype=np.uint64)
    gathered, of_heads = 0, _Spots()
    for used, spots in _fill(parts, buffer):
        count = used // 8
        _keep(np.equal(words[:count], _TABLE, out=hits[:count]), 8, spots, found.tables)
        more = used // PAGE_BYTES
        if gathered + more > _PAGES_AT_ONCE:
            _look_at_heads(heads[:gathered], of_heads, unlocated, found)
            gathered, of_heads = 0, _Spots()
        heads[gathered : gathered + more] = pages[:more]
        for start, place in zip(spots.starts, spots.places, strict=True):
            of_heads.add(gathered * PAGE_BYTES + start, place)
        gathered += more
    _look_at_heads(heads[:gathered], of_heads, unlocated, found)
    return found


def _fill(parts: list[_Part], buffer: mmap.mmap) -> Iterator[tuple[int, _Spots]]:
    """Read the parts, a buffer at a time: how many bytes of it are used, and what they are.

    Segments begin at a page of the buffer, however small they are: a dump may be of single pages.
    """
    view = memoryview(buffer)
    used, spots = 0, _Spots()
    for part in parts:
        at = hole = part.begin
        while True:
            if at >= hole:
                at, hole = _next_data(part.segment, at)
            size = min(CHUNK_BYTES - used, part.end - at)
            if size <= 0:
                break
            end = used + size
            part.segment.source.read_into(part.segment.offset + at, view[used:end])
            spots.add(used, Place(part.number, at))
            used = whole_pages(end)
            view[end:used] = bytes(used - end)
            at += size
            if used == CHUNK_BYTES:
                yield used, spots
                used, spots = 0, _Spots()
    if used:
        yield used, spots


def pieces(segment: Segment, buffer: mmap.mmap, more: int = 0) -> Iterator[tuple[int, int]]:
    """Read a segment into the buffer: (offset, bytes read).

    Each piece begins CHUNK_BYTES behind the one before, but for holes, and is `more` bytes longer.
    """
    view = memoryview(buffer)
    at = hole = 0
    while True:
        if at >= hole:
            at, hole = _next_data(segment, at)
        size = min(CHUNK_BYTES + more, segment.size_bytes - at)
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


def _look_at_heads(heads: _Words, spots: _Spots, unlocated: bool, found: Landmarks) -> None:
    head = heads[:, 0]
    _keep(head == _INFO, PAGE_BYTES, spots, found.vmcoreinfo)
    behind = heads[:, _NOTE_HEADER_BYTES // 8] == _INFO
    _keep(behind, PAGE_BYTES, spots, found.vmcoreinfo, at=_NOTE_HEADER_BYTES)
    low = head & _LOW
    _keep((low == _ZONES[0]) | (low == _ZONES[1]), PAGE_BYTES, spots, found.zones)
    _keep(low == _TREE, PAGE_BYTES, spots, found.devicetrees)
    if unlocated:
        kind = heads[:, _KIND_WORD]
        device, region = low, head >> np.uint64(32)
        fits = (kind >= 1) & (kind <= _KINDS) & (device > 0)
        fits &= (device <= MAX_ENTRIES) & (region < MAX_ENTRIES)
        # None may be left out: the dump is located by the one that fits best.
        _keep(fits, PAGE_BYTES, spots, found.entries, most=len(found.entries) + len(heads))


def _keep(
    hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    step: int,
    spots: _Spots,
    places: list[Place],
    *,
    at: int = 0,
    most: int = _MAX_PLACES,
) -> None:
    """Add the places of the hits, `at` bytes behind every `step` bytes of the buffer."""
    if not hits.any():
        return
    for index in np.flatnonzero(hits)[: max(0, most - len(places))]:
        places.append(spots.place(int(index) * step + at))


def find_bytes(memory: Memory, wanted: bytes, progress: Progress | None = None) -> Place | None:
    """The first place of these bytes, anywhere; None if they are not in the dump."""
    buffer = mmap.mmap(-1, CHUNK_BYTES + len(wanted))
    done, size_bytes = 0, memory.size_bytes
    for number, segment in enumerate(memory.segments):
        # What begins in a piece and ends in the next one is found in the first.
        for at, size in pieces(segment, buffer, more=len(wanted)):
            index = buffer.find(wanted, 0, size)
            if index >= 0:
                return Place(number, at + index)
            if progress is not None:
                progress(done + at + size, size_bytes)
        done += segment.size_bytes
    return None
