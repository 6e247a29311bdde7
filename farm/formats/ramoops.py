"""A ramoops region: its zones, their headers and ECC, and the frames of the panicdump zone.

Source: fs/pstore/ram.c (ramoops_probe, ramoops_init_przs, ramoops_write_kmsg_hdr) and ram_core.c
of Linux 6.12; Documentation/admin-guide/panicdump.rst, section 7, for the panicdump zone.
Left out: the records inside ftrace zones, pstore/zone and pstore/blk, big-endian machines.

A zone's header can be lost although its payload reached memory: frames are therefore also looked
for outside what the header calls valid, and marked as such.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.errors import UsageError
from farm.formats import ecc
from farm.formats.elf import EHDR, ELF_MAGIC, SHDR
from farm.formats.layout import Damage, OpenEnum, StructTable
from farm.formats.record import COMMIT, HEADER, RECORD_MAGIC

__all__ = [
    "PANICDUMP_SIGNATURE",
    "Frame",
    "FrameState",
    "PanicdumpZone",
    "RamoopsSizes",
    "Zone",
    "ZoneKind",
    "ZoneLayout",
    "ZonePlace",
    "decode_panicdump_zone",
    "decode_zone",
    "mended_data",
    "of_ftrace",
    "place_zones",
    "signature_of",
    "walk_frames",
    "zone_layout",
]

SIGNATURE = 0x4347_4244  # "DBGC"
PANICDUMP_SIGNATURE = SIGNATURE ^ 0x504D_4450  # "PDMP"
# Of LINUX_VERSION_CODE, which tells a zone for ftrace: 3.6 is the first that has one, and no
# version has got to 21 in the second place. Parity and packed text hold any word once in a while.
_MAJOR_VERSIONS = (3, 15)
_MOST_MINOR_VERSION = 31
FRAME_MAGIC = 0x4644_4450  # "PDDF"

ZONE_HEADER = StructTable("zone header", 12, ((0, "I", "sig"), (4, "I", "start"), (8, "I", "size")))
FRAME_HEADER = StructTable(
    "frame header", 16, ((0, "I", "magic"), (4, "I", "size"), (8, "I", "state"), (12, "I", "crc"))
)


class ZoneKind(enum.StrEnum):
    """What a zone is for; the values are pstore's type names."""

    DMESG = "dmesg"
    PANICDUMP = "panicdump"
    CONSOLE = "console"
    PMSG = "pmsg"
    FTRACE = "ftrace"


class FrameState(OpenEnum):
    """Whether a frame's record was unlinked."""

    LIVE = 0x4556_494C
    ERASED = 0x5341_5245


@dataclass(frozen=True, slots=True, kw_only=True)
class RamoopsSizes:
    """The sizes ramoops was given, in bytes, as in the device tree or its parameters.

    `ecc_size_bytes` is what is in use; the module parameter's value 1, which means 16, must be
    translated by whoever reads it.  `ftrace_zones` is the number of processors when ftrace has a
    zone for each, else 1.  `ftrace_before_pmsg` is the order of older kernels, 6.1 among them.
    """

    mem_size_bytes: int
    record_size_bytes: int = 0
    panicdump_size_bytes: int = 0
    console_size_bytes: int = 0
    pmsg_size_bytes: int = 0
    ftrace_size_bytes: int = 0
    ecc_size_bytes: int = 0
    ftrace_zones: int = 1
    ftrace_before_pmsg: bool = False


@dataclass(frozen=True, slots=True)
class ZonePlace:
    """Where a zone lies in the region; `index` counts the zones of its kind."""

    kind: ZoneKind
    index: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ZoneLayout:
    """What lies where in a zone, from its start: header, data, parity by block, header parity."""

    data_offset: int
    data_bytes: int
    blocks: int
    parity_offset: int
    header_parity_offset: int


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's header and content.

    `start` and `size` are as (corrected and) stored; `written` tells whether the signature is this
    zone's, `valid` whether start and size are possible too.  `contents` are the valid bytes in
    order of writing, corrected; None without a valid header.  `corrected_blocks` (offset, symbols)
    and `bad_blocks` (offsets), from the zone's start and 0 for the header, are those that the
    kernel looks at: the header and the blocks that hold valid bytes.  Damages are from the zone's
    start.
    """

    size_bytes: int
    layout: ZoneLayout
    signature: int
    start: int
    size: int
    written: bool
    valid: bool
    contents: bytes | None
    corrected_blocks: tuple[tuple[int, int], ...]
    bad_blocks: tuple[int, ...]
    damages: tuple[Damage, ...]

    @property
    def corrected_symbols(self) -> int:
        """Bytes corrected in all, those of the parity included, as the kernel counts them."""
        return sum(symbols for _, symbols in self.corrected_blocks)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the panicdump zone, `data` its record.

    `offset` is that of the frame, from the zone's start, and `data_offset` that of its record.
    `ordinal` is N of panicdump-ramoops-N; None where the kernel shows no file: behind the zone's
    valid bytes (`within` is False: an older panic's remains, or all that is left when the header is
    lost) or when the frame's own header is damaged (`header_intact` is False; then the record
    itself tells its size).
    """

    ordinal: int | None
    offset: int
    data_offset: int
    state: FrameState
    within: bool
    header_intact: bool
    data: bytes
    bad_blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PanicdumpZone:
    """The panicdump zone; `damages` are those of zone and frames, from the zone's start."""

    zone: Zone
    frames: tuple[Frame, ...]
    damages: tuple[Damage, ...]


def of_ftrace(signature: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which of these signatures a zone for ftrace can have: those with the version of a kernel."""
    code = signature ^ np.uint32(SIGNATURE)
    major, minor = code >> 16, code >> 8 & 0xFF
    least, most = _MAJOR_VERSIONS
    return (major >= least) & (major <= most) & (minor <= _MOST_MINOR_VERSION)


def signature_of(kind: ZoneKind, *, linux_version_code: int = 0) -> int:
    """The signature of a zone; that of ftrace depends on the kernel's LINUX_VERSION_CODE."""
    if kind is ZoneKind.PANICDUMP:
        return PANICDUMP_SIGNATURE
    if kind is ZoneKind.FTRACE:
        return SIGNATURE ^ linux_version_code
    return SIGNATURE


def place_zones(sizes: RamoopsSizes) -> tuple[ZonePlace, ...]:
    """Place the zones in the region as ramoops_probe() does.

    Sizes other than the region's are rounded down to a power of two; what is left of the region
    is for dmesg.  Raises UsageError when ramoops would refuse the sizes.
    """
    given = (
        sizes.record_size_bytes,
        sizes.console_size_bytes,
        sizes.pmsg_size_bytes,
        sizes.ftrace_size_bytes,
        sizes.panicdump_size_bytes,
    )
    if min(*given, sizes.ecc_size_bytes) < 0 or sizes.ftrace_zones < 1:
        raise UsageError("ramoops: a size is negative")
    record, console, pmsg, ftrace, panicdump = (1 << size.bit_length() >> 1 for size in given)
    dmesg = sizes.mem_size_bytes - panicdump - console - pmsg - ftrace
    if sizes.mem_size_bytes <= 0 or dmesg < 0:
        raise UsageError(
            f"ramoops: the zones need {-dmesg} bytes more than mem_size {sizes.mem_size_bytes}"
        )

    places: list[ZonePlace] = []
    at = 0

    def place(kind: ZoneKind, count: int, total: int) -> None:
        nonlocal at
        each = total if count == 1 and kind is not ZoneKind.DMESG else total // count & ~1
        if each <= ZONE_HEADER.size_bytes:
            raise UsageError(f"ramoops: a {kind} zone of {each} bytes holds nothing")
        for index in range(count):
            places.append(ZonePlace(kind, index, at, each))
            at += each

    if dmesg and record:
        if dmesg < record:
            raise UsageError(f"ramoops: {dmesg} bytes left for dmesg, a record takes {record}")
        place(ZoneKind.DMESG, dmesg // record, dmesg)
    last = [(ZoneKind.PMSG, 1, pmsg), (ZoneKind.FTRACE, sizes.ftrace_zones, ftrace)]
    if sizes.ftrace_before_pmsg:
        last.reverse()
    for kind, count, size in (
        (ZoneKind.PANICDUMP, 1, panicdump),
        (ZoneKind.CONSOLE, 1, console),
        *last,
    ):
        if size:
            place(kind, count, size)
    return tuple(places)


def zone_layout(size_bytes: int, ecc_size_bytes: int) -> ZoneLayout:
    """Lay a zone out; raises UsageError when the kernel would refuse the sizes."""
    room = size_bytes - ZONE_HEADER.size_bytes
    if room <= 0 or not 0 <= ecc_size_bytes <= ecc.MAX_ECC_BYTES:
        raise UsageError(f"no zone of {size_bytes} bytes with {ecc_size_bytes} bytes of ECC")
    if not ecc_size_bytes:
        return ZoneLayout(ZONE_HEADER.size_bytes, room, 0, size_bytes, size_bytes)
    blocks = -(-(room - ecc_size_bytes) // (ecc.BLOCK_BYTES + ecc_size_bytes))
    data_bytes = room - (blocks + 1) * ecc_size_bytes
    if blocks < 1 or data_bytes <= 0:
        raise UsageError(f"a zone of {size_bytes} bytes is too small for {ecc_size_bytes} of ECC")
    parity_offset = ZONE_HEADER.size_bytes + data_bytes
    return ZoneLayout(
        ZONE_HEADER.size_bytes,
        data_bytes,
        blocks,
        parity_offset,
        parity_offset + blocks * ecc_size_bytes,
    )


class _Area:
    """A zone's data, corrected block by block as it is asked for.

    Memory that was never written has no parity worth checking, so only blocks in use are.
    """

    def __init__(self, data: bytes, layout: ZoneLayout, ecc_size_bytes: int) -> None:
        self.layout = layout
        self.data = bytearray(data[layout.data_offset :][: layout.data_bytes])
        self._found: dict[int, tuple[bytes, int] | None] = {}
        if ecc_size_bytes:
            used = -(-layout.data_bytes // ecc.BLOCK_BYTES) * ecc_size_bytes
            parity = data[layout.parity_offset : layout.header_parity_offset][:used]
            self._found = ecc.solve(bytes(self.data), parity, ecc_size_bytes)

    def correct(self, start: int, end: int) -> tuple[dict[int, int], tuple[int, ...]]:
        """Correct the blocks of data[start:end].

        Returns the symbols that are wrong in these blocks and the blocks beyond repair, by their
        offset from the zone's start.
        """
        if not self._found or start >= end:
            return {}, ()
        corrected, bad = {}, []
        for number in range(start // ecc.BLOCK_BYTES, -(-end // ecc.BLOCK_BYTES)):
            if number not in self._found:
                continue
            at = number * ecc.BLOCK_BYTES
            fixed = self._found[number]
            if fixed is None:
                bad.append(self.layout.data_offset + at)
            else:
                self.data[at : at + len(fixed[0])] = fixed[0]
                corrected[self.layout.data_offset + at] = fixed[1]
        return corrected, tuple(bad)


def decode_zone(data: bytes, ecc_size_bytes: int, signature: int) -> Zone:
    """Decode one zone, `data` being exactly its bytes.

    Raises UsageError when there can be no such zone.
    """
    return _decode_zone(bytes(data), ecc_size_bytes, signature)[0]


def mended_data(data: bytes, ecc_size_bytes: int) -> bytes:
    """The whole data area of a zone, whatever its header says, corrected where that is possible."""
    area = _Area(bytes(data), zone_layout(len(data), ecc_size_bytes), ecc_size_bytes)
    area.correct(0, area.layout.data_bytes)
    return bytes(area.data)


def _decode_zone(data: bytes, ecc_size_bytes: int, signature: int) -> tuple[Zone, _Area]:
    layout = zone_layout(len(data), ecc_size_bytes)
    damages: list[Damage] = []
    corrected: list[tuple[int, int]] = []
    bad: list[int] = []
    head = data[: ZONE_HEADER.size_bytes]
    if ecc_size_bytes:
        fixed = ecc.correct(
            head, data[layout.header_parity_offset :][:ecc_size_bytes], ecc_size_bytes
        )
        head = fixed.data
        corrected, bad = list(fixed.corrected), list(fixed.uncorrectable)
    values = ZONE_HEADER.unpack(head)
    start, size = values.number("start"), values.number("size")
    written = values.number("sig") == signature
    valid = written and start <= size <= layout.data_bytes
    if written and not valid:
        what = f"start {start} and size {size} of {layout.data_bytes} bytes are not possible"
        damages.append(Damage(4, 8, what))

    area = _Area(data, layout, ecc_size_bytes)
    contents = None
    if valid:
        mended, blocks = area.correct(0, size)
        corrected += mended.items()
        bad += blocks
        content = bytes(area.data[:size])
        contents = content[start:] + content[:start]
        damages += [
            Damage(at, min(ecc.BLOCK_BYTES, layout.parity_offset - at), "block beyond repair")
            for at in blocks
        ]
        if 0 in bad:
            damages.append(Damage(0, ZONE_HEADER.size_bytes, "zone header beyond repair"))
    elif not written:
        # Memory that was never a zone fails its ECC too: that is no finding.
        corrected, bad = [], []
    zone = Zone(
        size_bytes=len(data),
        layout=layout,
        signature=values.number("sig"),
        start=start,
        size=size,
        written=written,
        valid=valid,
        contents=contents,
        corrected_blocks=tuple(corrected),
        bad_blocks=tuple(bad),
        damages=tuple(sorted(damages)),
    )
    return zone, area


def decode_panicdump_zone(data: bytes, ecc_size_bytes: int) -> PanicdumpZone:
    """Decode the panicdump zone and find its frames, `data` being exactly the zone's bytes.

    Frames come in order of offset and never overlap; work is linear.  Raises UsageError when there
    can be no such zone.
    """
    zone, area = _decode_zone(bytes(data), ecc_size_bytes, PANICDUMP_SIGNATURE)
    damages: list[Damage] = []
    extent = zone.size if zone.valid else 0
    if zone.valid and zone.start:
        damages.append(Damage(4, 4, f"start is {zone.start}, expected 0"))
    frames = list(_walk(area, 0, extent, within=True, damages=damages))
    ignored: list[Damage] = []
    beyond = (extent + 7) & ~7
    frames += _walk(area, beyond, len(area.data), within=False, damages=ignored)
    if not zone.valid and frames:
        damages.append(
            Damage(0, ZONE_HEADER.size_bytes, f"zone header lost, {len(frames)} frames found")
        )
    return PanicdumpZone(zone, tuple(frames), tuple(sorted({*zone.damages, *damages})))


def walk_frames(data: bytes, extent: int, data_offset: int) -> Iterator[Frame]:
    """Frames of a zone's data without ECC, of which `extent` bytes are valid."""
    layout = ZoneLayout(0, len(data), 0, len(data), len(data))
    area = _Area(data, layout, 0)
    area.layout = ZoneLayout(
        data_offset, len(data), 0, data_offset + len(data), data_offset + len(data)
    )
    yield from _walk(area, 0, extent, within=True, damages=[])


def _walk(
    area: _Area, begin: int, end: int, *, within: bool, damages: list[Damage]
) -> Iterator[Frame]:
    """Frames of data[begin:end], resynchronising at the next valid one after damage."""
    base = area.layout.data_offset
    marks = _marks(area, begin, end)
    next_mark = 0
    ordinal = 0
    at = begin
    while at + FRAME_HEADER.size_bytes <= end:
        area.correct(at, at + FRAME_HEADER.size_bytes)
        size = _frame_size(area, at, end)
        if size is None:
            while next_mark < len(marks) and not (
                marks[next_mark] > at and _valid_after_correction(area, marks[next_mark], end)
            ):
                next_mark += 1
            follower = marks[next_mark] if next_mark < len(marks) else end
            what = "no frame where one should be"
            if frame := _headless(area, at, follower, within=within):
                what = "frame header damaged, a record stands behind it"
                follower = min(follower, (frame.data_offset - base + len(frame.data) + 7) & ~7)
                yield frame
            damages.append(Damage(base + at, follower - at, what))
            at = follower
            continue
        data_at = at + FRAME_HEADER.size_bytes
        _, bad = area.correct(data_at, data_at + size)
        values = FRAME_HEADER.unpack(bytes(area.data[at:data_at]))
        state = FrameState(values.number("state"))
        if not state.known:
            damages.append(Damage(base + at + 8, 4, f"frame state {int(state):#x} is unknown"))
        yield Frame(
            ordinal=ordinal if within else None,
            offset=base + at,
            data_offset=base + data_at,
            state=state,
            within=within,
            header_intact=True,
            data=bytes(area.data[data_at : data_at + size]),
            bad_blocks=bad,
        )
        ordinal += 1
        at = (data_at + size + 7) & ~7
    if within and at < end:
        damages.append(Damage(base + at, end - at, "bytes behind the last frame"))


def _marks(area: _Area, begin: int, end: int) -> list[int]:
    """The 8-aligned places where a frame's magic stands, ascending."""
    begin = (begin + 7) & ~7
    words = np.frombuffer(bytes(area.data[begin : max(begin, end - end % 8)]), dtype="<u4")[::2]
    return [begin + 8 * int(place) for place in np.flatnonzero(words == FRAME_MAGIC)]


def _frame_size(area: _Area, at: int, end: int) -> int | None:
    """Size of the record whose frame stands here; None if no valid frame does."""
    if at + FRAME_HEADER.size_bytes > end:
        return None
    head = bytes(area.data[at : at + FRAME_HEADER.size_bytes])
    values = FRAME_HEADER.unpack(head)
    size = values.number("size")
    if values.number("magic") != FRAME_MAGIC or zlib.crc32(head[:8]) != values.number("crc"):
        return None
    return size if at + FRAME_HEADER.size_bytes + size <= end else None


def _valid_after_correction(area: _Area, at: int, end: int) -> bool:
    area.correct(at, min(at + FRAME_HEADER.size_bytes, end))
    return _frame_size(area, at, end) is not None


def _headless(area: _Area, at: int, follower: int, *, within: bool) -> Frame | None:
    """The record behind a damaged frame header, as long as it says it is itself."""
    data_at = at + FRAME_HEADER.size_bytes
    area.correct(data_at, min(data_at + HEADER.size_bytes, follower))
    head = bytes(area.data[data_at : min(data_at + HEADER.size_bytes, follower)])
    if len(head) < HEADER.size_bytes or not head.startswith((RECORD_MAGIC, ELF_MAGIC)):
        return None
    if head.startswith(RECORD_MAGIC):
        size = HEADER.unpack(head).number("record_size")
    else:
        elf = EHDR.unpack(head)
        size = elf.number("shoff") + elf.number("shnum") * SHDR.size_bytes + COMMIT.size_bytes
    if not HEADER.size_bytes <= size <= follower - data_at:
        size = follower - data_at
    _, bad = area.correct(data_at, data_at + size)
    base = area.layout.data_offset
    return Frame(
        ordinal=None,
        offset=base + at,
        data_offset=base + data_at,
        state=FrameState(int.from_bytes(area.data[at + 8 : at + 12], "little")),
        within=within,
        header_intact=False,
        data=bytes(area.data[data_at : data_at + size]),
        bad_blocks=bad,
    )
