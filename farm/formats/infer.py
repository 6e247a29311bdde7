"""The layout of a ramoops region, told from the zones themselves.

Every kernel writes the signature into each zone at boot, so that the places of the signatures tell
the sizes; what a zone holds tells its kind where several have the same size; the parity of the
headers tells the bytes of ECC.  A layout is one that ramoops_probe() can lay out: all that are
possible are held against what is seen, and the one that explains it best wins.  Lost headers are
therefore no obstacle as long as most are there.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from farm.errors import FormatError, UsageError
from farm.formats import ecc
from farm.formats.dmesg import split_dmesg
from farm.formats.ramoops import (
    FRAME_MAGIC,
    PANICDUMP_SIGNATURE,
    SIGNATURE,
    ZONE_HEADER,
    RamoopsSizes,
    ZoneKind,
    of_ftrace,
    place_zones,
    zone_layout,
)

__all__ = ["InferredLayout", "has_header_parity", "infer_ecc", "infer_sizes", "signature_places"]

_SMALLEST_ZONE = 512
# Zones for dmesg are cut to even sizes: what that leaves lies behind the last zone of the region.
_SLACK_BYTES = 2048
_HEADERS_TRIED = 16
# What boards use first; then all others that the code allows.
_ECC_SIZES = (16, 8, 32, 4, 64, 12, 20, 24)
_LOOKED_AT_BYTES = 64
_TEXT = re.compile(rb"[\t\n\r\x1b\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class InferredLayout:
    """Sizes that explain `explained` of `seen` signatures; `predicted` is how many there should be.

    `alternatives` is the number of other layouts that explain as many.
    """

    sizes: RamoopsSizes
    explained: int
    seen: int
    predicted: int
    alternatives: int

    @property
    def doubtful(self) -> bool:
        """Whether another layout explains what is seen as well."""
        return self.alternatives > 0


def signature_places(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Offsets of what can be zones: of the plain signature, of panicdump's, of those for ftrace.

    A header whose start and size cannot be is none.
    """
    found: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    # Zones begin at even places, which need not be multiples of four.
    for first in (0, 2):
        words = np.frombuffer(data[first : first + max(0, len(data) - first) // 4 * 4], dtype="<u4")
        kinds = (words == SIGNATURE, words == PANICDUMP_SIGNATURE, of_ftrace(words))
        for which, places in zip(kinds, found, strict=True):
            for index in np.flatnonzero(which[: max(0, len(words) - 2)]):
                start, size = int(words[index + 1]), int(words[index + 2])
                if start <= size <= len(data):
                    places.add(first + 4 * int(index))
    plain, panicdump, ftrace = (tuple(sorted(places)) for places in found)
    return plain, panicdump, ftrace


def _powers(limit: int) -> list[int]:
    sizes = [0]
    size = _SMALLEST_ZONE
    while size <= limit:
        sizes.append(size)
        size *= 2
    return sizes


def infer_sizes(data: bytes, ecc_size_bytes: int | None = None) -> InferredLayout:
    """Infer the sizes of a region that `data` is all of.

    Raises FormatError when no place has a signature, or no layout explains one.
    """
    plain, panicdump, ftrace = signature_places(data)
    panicdump += _before_frames(data, panicdump)
    seen = len(plain) + len(panicdump) + len(ftrace)
    if not seen:
        raise FormatError("no place in the file has the signature of a ramoops zone", offset=0)
    marks = _Marks(data, plain)
    best: _Candidate | None = None
    equals = 0
    for layout in _possible(len(data), plain, panicdump, ftrace):
        candidate = _weigh(layout, marks, panicdump, ftrace, best.hits if best else 1)
        if candidate is None:
            continue
        if best is None or candidate.rank > best.rank:
            equals = 0 if best is None or candidate.rank[:4] > best.rank[:4] else equals + 1
            best = candidate
        elif candidate.rank[:4] == best.rank[:4]:
            equals += 1
    if best is None:
        raise FormatError("no ramoops layout explains the signatures in the file", offset=0)
    sizes = best.sizes
    if ecc_size_bytes is None:
        ecc_size_bytes = infer_ecc(data, sizes)
    sizes = dataclasses.replace(sizes, ecc_size_bytes=ecc_size_bytes)
    return InferredLayout(sizes, best.hits, seen, best.predicted, equals)


class _Marks:
    """What stands at a place: whether a zone's signature does, and what it would hold."""

    def __init__(self, data: bytes, plain: tuple[int, ...]) -> None:
        self._data = data
        self._held: dict[int, str] = {}
        self.is_zone = np.zeros(len(data) + 1, dtype=bool)
        self.is_zone[list(plain)] = True

    def held(self, place: int) -> str:
        """What a zone here would hold: "dmesg", "text", "other", or nothing."""
        if place not in self._held:
            self._held[place] = self._look(place)
        return self._held[place]

    def _look(self, place: int) -> str:
        content = self._data[place + ZONE_HEADER.size_bytes :][:_LOOKED_AT_BYTES]
        if self.is_zone[place]:
            size = int.from_bytes(self._data[place + 8 : place + 12], "little")
            content = content[:size]
        if not content.strip(b"\0\xff"):
            return ""
        if split_dmesg(content) is not None:
            return "dmesg"
        return "text" if _TEXT.fullmatch(content) else "other"


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: tuple[int, ...]
    sizes: RamoopsSizes
    hits: int
    predicted: int


def _possible(
    whole: int, plain: tuple[int, ...], panicdump: tuple[int, ...], ftrace: tuple[int, ...]
) -> Iterator[RamoopsSizes]:
    """Layouts that agree with the places of the rarer signatures."""
    for pmsg, trace_bytes, trace_zones, trace_first in _last_zones(whole, ftrace):
        end = whole - trace_bytes - pmsg
        for console in _powers(end):
            begin = end - console
            saved = next(filter(None, (_saved_bytes(begin - place) for place in panicdump)), 0)
            if panicdump and not saved:
                continue
            dmesg = begin - saved
            for record in _record_sizes(dmesg, sum(place < dmesg for place in plain)):
                yield RamoopsSizes(
                    mem_size_bytes=whole,
                    record_size_bytes=record,
                    panicdump_size_bytes=saved,
                    console_size_bytes=console,
                    pmsg_size_bytes=pmsg,
                    ftrace_size_bytes=trace_bytes,
                    ftrace_zones=trace_zones,
                    ftrace_before_pmsg=trace_first,
                )


def _last_zones(whole: int, ftrace: tuple[int, ...]) -> Iterator[tuple[int, int, int, bool]]:
    """Bytes for pmsg and ftrace, zones of the latter, and whether it comes first: what ends it."""
    trace_bytes, trace_zones = _trace_sizes(whole, ftrace)
    for pmsg in _powers(whole - trace_bytes):
        yield pmsg, trace_bytes, trace_zones, False
    for pmsg in _powers(whole) if ftrace else ():
        trace_bytes, trace_zones = _trace_sizes(whole - pmsg, ftrace)
        if pmsg and trace_bytes:
            yield pmsg, trace_bytes, trace_zones, True


def _saved_bytes(room: int) -> int:
    """The power of two that fills so much but for the slack; 0 if none does."""
    size = 1 << room.bit_length() >> 1 if room > 0 else 0
    return size if size >= _SMALLEST_ZONE and room - size <= _SLACK_BYTES else 0


def _before_frames(data: bytes, panicdump: tuple[int, ...]) -> tuple[int, ...]:
    """Where the zone begins that the first frame is in, for a zone without its header."""
    first = data.find(FRAME_MAGIC.to_bytes(4, "little"))
    place = first - ZONE_HEADER.size_bytes
    return (place,) if place >= 0 and place not in panicdump else ()


def _trace_sizes(whole: int, ftrace: tuple[int, ...]) -> tuple[int, int]:
    """Bytes for ftrace, and the number of its zones."""
    for first in ftrace:
        size = _saved_bytes(whole - first)
        if size:
            rest = [place for place in ftrace if place >= first]
            steps = {after - before for before, after in itertools.pairwise(rest)}
            zones = size // min(steps) if steps else 1
            return size, max(1, zones)
    return 0, 1


def _record_sizes(dmesg: int, seen: int) -> list[int]:
    """Possible record sizes for so many bytes, of which most zones' headers must be there."""
    if not dmesg:
        return [0]
    return [size for size in _powers(dmesg) if not size or dmesg // size <= 4 * seen + 4]


def _weigh(
    sizes: RamoopsSizes,
    marks: _Marks,
    panicdump: tuple[int, ...],
    ftrace: tuple[int, ...],
    least: int,
) -> _Candidate | None:
    """How well a layout explains what is seen; None if it does so at fewer than `least` places."""
    dmesg_bytes = sizes.mem_size_bytes - (
        sizes.panicdump_size_bytes
        + sizes.console_size_bytes
        + sizes.pmsg_size_bytes
        + sizes.ftrace_size_bytes
    )
    count = dmesg_bytes // sizes.record_size_bytes if sizes.record_size_bytes else 0
    stride = dmesg_bytes // count & ~1 if count else 0
    dmesg = np.arange(count) * stride
    at = count * stride + sizes.panicdump_size_bytes
    console = at if sizes.console_size_bytes else None
    pmsg = at + sizes.console_size_bytes if sizes.pmsg_size_bytes else None
    trace = at + sizes.console_size_bytes + sizes.pmsg_size_bytes
    if sizes.ftrace_before_pmsg:
        trace -= sizes.pmsg_size_bytes
        pmsg = trace + sizes.ftrace_size_bytes
    hits = int(marks.is_zone[dmesg].sum())
    predicted = count
    if sizes.panicdump_size_bytes:
        predicted += 1
        hits += at - sizes.panicdump_size_bytes in panicdump
    for place in (console, pmsg):
        if place is not None:
            predicted += 1
            hits += bool(marks.is_zone[place])
    if sizes.ftrace_size_bytes:
        step = sizes.ftrace_size_bytes // sizes.ftrace_zones & ~1
        predicted += sizes.ftrace_zones
        hits += sum(trace + index * step in ftrace for index in range(sizes.ftrace_zones))
    if hits < least:
        return None
    odd = sum(marks.held(int(place)) in ("text", "other") for place in dmesg)
    # Bytes on the console, or text in pmsg, are unusual; a log of dmesg there is impossible.
    for place, unusual in ((console, "other"), (pmsg, "text")):
        if place is not None:
            odd += {"dmesg": 2, unusual: 1}.get(marks.held(place), 0)
    extras = (console is not None) + (pmsg is not None) + (pmsg is not None and console is None)
    # Who gives a region to ramoops gives it all of it.
    unused = count * stride + _SLACK_BYTES < dmesg_bytes
    rank = (hits, -odd, -int(unused), -predicted, -extras)
    return _Candidate(rank, sizes, hits, predicted)


def has_header_parity(zone: bytes) -> bool:
    """Whether the bytes at the end of a zone are the parity of its header, for any usual ECC."""
    head = zone[: ZONE_HEADER.size_bytes]
    for ecc_bytes in _ECC_SIZES:
        try:
            at = zone_layout(len(zone), ecc_bytes).header_parity_offset
        except UsageError:
            continue
        if zone[at : at + ecc_bytes] == ecc.parity_of_one(head, ecc_bytes):
            return True
    return False


def infer_ecc(data: bytes, sizes: RamoopsSizes) -> int:
    """Bytes of ECC with which most headers are code words; 0 when none are."""
    heads = []
    for place in place_zones(sizes):
        head = data[place.offset : place.offset + ZONE_HEADER.size_bytes]
        word = int.from_bytes(head[:4], "little")
        if word in (SIGNATURE, PANICDUMP_SIGNATURE) or place.kind is ZoneKind.FTRACE:
            heads.append((place, head))
        if len(heads) == _HEADERS_TRIED:
            break
    if not heads:
        return 0
    best, best_count = 0, 0
    for ecc_bytes in (*_ECC_SIZES, *range(1, ecc.MAX_ECC_BYTES + 1)):
        count = 0
        for place, head in heads:
            try:
                layout = zone_layout(place.size_bytes, ecc_bytes)
            except UsageError:
                continue
            at = place.offset + layout.header_parity_offset
            count += data[at : at + ecc_bytes] == ecc.parity_of_one(head, ecc_bytes)
        # One byte of parity is right by chance once in 256 times.
        if count > best_count and (ecc_bytes > 2 or count > len(heads) // 2):
            best, best_count = ecc_bytes, count
            if 2 * count > len(heads) and ecc_bytes > 2:
                break
    return best
