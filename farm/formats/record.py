"""One panicdump record in ELF or raw form.

Source: Documentation/admin-guide/panicdump.rst, sections 1 to 5; the "\\nECC: ..." notice:
persistent_ram_ecc_string() in fs/pstore/ram_core.c of Linux 6.12.
Left out: the ELF wrapping beyond what the specification orders (`elf.check_elf` lets pyelftools
judge that), compression (pstore does not compress these records).

A record is *torn* when it has no commit mark at its own end, *corrupt* when the mark is there and
anything at all is not as it should be, *intact* otherwise.
"""

from __future__ import annotations

import enum
import re
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.elf import (
    EHDR,
    ELF_MAGIC,
    NHDR,
    ElfImage,
    Section,
    SegmentType,
    parse_elf,
)
from farm.formats.layout import Damage, OpenEnum, StructTable, Values, printable

__all__ = [
    "EccNotice",
    "Form",
    "Record",
    "RecordFlags",
    "RecordKind",
    "RecordState",
    "Region",
    "RegionFlags",
    "RegionKind",
    "decode_record",
]

RECORD_MAGIC = b"PANICDMP"
VERSION = 1
UNKNOWN_PA = 0xFFFF_FFFF_FFFF_FFFF
COMMIT_MAGIC = 0x4D43_4450

HEADER = StructTable(
    "record header",
    192,
    (
        (0, "8s", "magic"),
        (8, "H", "version"),
        (10, "H", "header_size"),
        (12, "H", "region_size"),
        (14, "H", "nr_regions"),
        (16, "I", "kind"),
        (20, "I", "flags"),
        (24, "16s", "boot_id"),
        (40, "Q", "sequence"),
        (48, "I", "device_id"),
        (52, "I", "index"),
        (56, "Q", "time_ns"),
        (64, "Q", "uptime_ns"),
        (72, "Q", "data_size"),
        (80, "32s", "driver"),
        (112, "64s", "device"),
        (176, "i", "error"),
        (180, "i", "priority"),
        (184, "Q", "record_size"),
    ),
    magic=RECORD_MAGIC,
)
REGION = StructTable(
    "region descriptor",
    96,
    (
        (0, "32s", "name"),
        (32, "Q", "va"),
        (40, "Q", "pa"),
        (48, "Q", "size"),
        (56, "Q", "offset"),
        (64, "Q", "saved"),
        (72, "I", "kind"),
        (76, "I", "flags"),
        (80, "H", "width"),
        (82, "H", "stride"),
        (84, "i", "error"),
        (88, "I", "crc"),
        (92, "I", "note_type"),
    ),
)
COMMIT = StructTable("commit mark", 16, ((0, "I", "magic"), (4, "I", "crc"), (8, "Q", "size")))

NOTE_NAME = b"PANICDUMP"
NOTE_PREFIX = b".note."
NOTE_HEADER, NOTE_RELEASE = 1, 2
GNU_NAME = b"GNU"
NOTE_BUILD_ID = 3
MAX_RELEASE_BYTES = 64  # __NEW_UTS_LEN
MAX_BUILD_ID_BYTES = 64

_NOTICE = re.compile(
    rb"\nECC: (?:(\d{1,10}) Corrected bytes, (\d{1,10}) unrecoverable blocks"
    rb"|No errors detected)\n\Z"
)
_NOTICE_MAX_BYTES = 80


class Form(enum.StrEnum):
    """How a record is wrapped."""

    ELF = "elf"
    RAW = "raw"


class RecordState(enum.StrEnum):
    """What the commit mark and the checksums say of a record."""

    INTACT = "intact"
    TORN = "torn"
    CORRUPT = "corrupt"


class RecordKind(OpenEnum):
    """What a record is about."""

    DEVICE = 0
    CONTENTS = 1


class RegionKind(OpenEnum):
    """How the kernel got at a region's bytes."""

    BUFFER = 1
    REGISTERS = 2
    CALLBACK = 3
    NOTE = 4


class RegionFlags(enum.IntFlag, boundary=enum.KEEP):
    """What the kernel met while saving a region."""

    TRUNCATED = 1
    FAULT = 2
    CALLBACK_ERROR = 4
    NAME_TRUNCATED = 8


class RecordFlags(enum.IntFlag, boundary=enum.KEEP):
    """The same for the record as a whole: NAME_TRUNCATED is about driver or device."""

    TRUNCATED = 1
    FAULT = 2
    CALLBACK_ERROR = 4
    NAME_TRUNCATED = 8


@dataclass(frozen=True, slots=True)
class EccNotice:
    """What ramoops appends to a file when ECC is on: symbols corrected, blocks beyond repair."""

    corrected_bytes: int
    bad_blocks: int


@dataclass(frozen=True, slots=True)
class Region:
    """A region's descriptor and what was saved of it.

    `offset` is from the start of the record; `data` holds what of the `saved_bytes` is really in
    the input, so it is shorter where the record is cut.  `crc_ok` tells whether all of it is there
    and has the descriptor's CRC-32.  `pa` is None when unknown, `note_type` is 0 but for a note.
    """

    index: int
    name_raw: bytes
    kind: RegionKind
    va: int
    pa: int | None
    size_bytes: int
    offset: int
    saved_bytes: int
    flags: RegionFlags
    width_bytes: int
    stride_bytes: int
    note_type: int
    error: int
    crc: int
    crc_ok: bool
    data: bytes

    @property
    def name(self) -> str:
        """The name, escaped."""
        return printable(self.name_raw)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything a record says; after damage, what could still be read.

    `record_size_bytes` is where the record ends in the input (its commit mark included), or what
    its header claims when there is no mark.  `header_offset` is where the panicdump header stands.
    `release`, `build_id` (hex) and `machine` (e_machine) come from the ELF form and are None in the
    raw one.  `trailing` is what follows the record; `notice` is that, parsed, if ramoops wrote it.
    """

    form: Form
    state: RecordState
    kind: RecordKind
    flags: RecordFlags
    boot_id: str
    sequence: int
    device_id: int
    index: int
    time_ns: int
    uptime_ns: int
    data_size_bytes: int
    driver_raw: bytes
    device_raw: bytes
    error: int
    priority: int
    record_size_bytes: int
    header_offset: int
    release: str | None
    build_id: str | None
    machine: int | None
    regions: tuple[Region, ...]
    damages: tuple[Damage, ...]
    notice: EccNotice | None
    trailing: bytes

    @property
    def driver(self) -> str:
        """The driver's name, escaped."""
        return printable(self.driver_raw)

    @property
    def device(self) -> str:
        """The device's name, escaped."""
        return printable(self.device_raw)


def decode_record(data: bytes) -> Record:
    """Decode one record, told apart by magic; what is damaged becomes a Damage.

    `data` is a file of pstorefs or the content of a frame.  Offsets are from its start.  Work and
    memory are linear in its length.  Raises FormatError when no record header can be found, or when
    the record is complete but of another version.
    """
    data = bytes(data)
    image, header_at = _find_header(data)
    values = HEADER.unpack(data, header_at)
    damages: list[Damage] = list(image.damages) if image else []

    end, crc_ok = _committed(data, values, header_at, image, damages)
    if crc_ok and values.number("version") != VERSION:
        raise FormatError(
            f"record version {values.number('version')} is not known",
            offset=header_at + HEADER.offset_of("version"),
            next_step=f"This farm reads version {VERSION}.",
        )
    _check_magic(values, header_at, damages)
    limit = end if end is not None else len(data)
    regions = _regions(data, values, header_at, limit, crc_ok is True, damages)
    _check_totals(values, header_at, regions, damages)
    release, build_id = _identity(image)
    if image:
        _check_wrapping(image, regions, values.number("record_size"), damages)
    if crc_ok is False:
        _locate(data, regions, limit, damages)

    if end is None:
        state = RecordState.TORN
    elif crc_ok and not damages:
        state = RecordState.INTACT
    else:
        state = RecordState.CORRUPT
    trailing, notice = _after(data, end)
    return Record(
        form=Form.ELF if image else Form.RAW,
        state=state,
        kind=RecordKind(values.number("kind")),
        flags=RecordFlags(values.number("flags")),
        boot_id=str(uuid.UUID(bytes=values.raw("boot_id"))),
        sequence=values.number("sequence"),
        device_id=values.number("device_id"),
        index=values.number("index"),
        time_ns=values.number("time_ns"),
        uptime_ns=values.number("uptime_ns"),
        data_size_bytes=values.number("data_size"),
        driver_raw=values.raw("driver"),
        device_raw=values.raw("device"),
        error=values.number("error"),
        priority=values.number("priority"),
        record_size_bytes=end if end is not None else values.number("record_size"),
        header_offset=header_at,
        release=release,
        build_id=build_id,
        machine=image.machine if image else None,
        regions=tuple(regions),
        damages=tuple(sorted(set(damages), key=lambda damage: (damage.offset, damage.what))),
        notice=notice,
        trailing=trailing,
    )


def _find_header(data: bytes) -> tuple[ElfImage | None, int]:
    """Where the panicdump header is, and the ELF wrapping if there is one."""
    if _looks_like_header(data, 0):
        return None, 0
    wrapped = data.startswith(ELF_MAGIC)
    if wrapped:
        image = parse_elf(data)
        for note in image.notes:
            if (note.name_raw, note.type) == (NOTE_NAME, NOTE_HEADER):
                if _looks_like_header(data, note.desc_at):
                    return image, note.desc_at
                break
    # The way there may be damaged: the header stands right behind its note's name.
    name = NOTE_NAME + b"\0\0\0"
    for needle, to_header in (
        (name + RECORD_MAGIC, len(name)),
        (RECORD_MAGIC, 0),
        (name, len(name)),
    ):
        found = data.find(needle)
        at = found + to_header
        if found >= EHDR.size_bytes and _looks_like_header(data, at):
            return parse_elf(data), at
    raise FormatError(
        "an ELF file without a panicdump header"
        if wrapped
        else "neither a panicdump header nor an ELF file with one",
        offset=0,
    )


def _looks_like_header(data: bytes, at: int) -> bool:
    """Whether a version 1 header stands here; a few of its telling bytes may be damaged."""
    if at + HEADER.size_bytes > len(data):
        return False
    values = HEADER.unpack(data, at)
    wrong = sum(a != b for a, b in zip(values.raw("magic"), RECORD_MAGIC, strict=True))
    if wrong == 0:
        return True
    sizes = (values.number("header_size"), values.number("region_size"))
    return (
        wrong <= 2
        and values.number("version") == VERSION
        and sizes == (HEADER.size_bytes, REGION.size_bytes)
    )


def _check_magic(values: Values, at: int, damages: list[Damage]) -> None:
    if values.raw("magic") != RECORD_MAGIC:
        damages.append(Damage(at, len(RECORD_MAGIC), "record magic is damaged"))
    if (version := values.number("version")) != VERSION:
        damages.append(
            Damage(at + HEADER.offset_of("version"), 2, f"version {version}, expected {VERSION}")
        )
    if not RecordKind(values.number("kind")).known:
        damages.append(
            Damage(
                at + HEADER.offset_of("kind"), 4, f"record kind {values.number('kind')} is unknown"
            )
        )


def _committed(
    data: bytes, values: Values, header_at: int, image: ElfImage | None, damages: list[Damage]
) -> tuple[int | None, bool | None]:
    """End of the record if a commit mark stands there, and whether its CRC is right.

    The end is looked for where the header, the ELF wrapping and the input itself say it is: a flip
    in one of them does not make a complete record look torn.
    """
    claimed = values.number("record_size")
    whole = len(data) - len(_notice_at_end(data)[0])
    ends = [claimed, *([image.end + COMMIT.size_bytes] if image else []), whole]
    for end in ends:
        if not header_at + HEADER.size_bytes + COMMIT.size_bytes <= end <= len(data):
            continue
        mark = COMMIT.unpack(data, end - COMMIT.size_bytes)
        if mark.number("magic") != COMMIT_MAGIC or mark.number("size") != end:
            continue
        if claimed != end:
            damages.append(
                Damage(
                    header_at + HEADER.offset_of("record_size"),
                    8,
                    f"the header says {claimed} bytes, the commit mark stands at the end of {end}",
                )
            )
        crc = zlib.crc32(memoryview(data)[: end - COMMIT.size_bytes])
        return end, crc == mark.number("crc")
    if claimed > len(data):
        what = f"torn: the header says {claimed} bytes, the input has {len(data)}"
        damages.append(Damage(len(data), None, what))
    else:
        at = max(0, claimed - COMMIT.size_bytes)
        damages.append(Damage(at, COMMIT.size_bytes, "torn: no commit mark at the record's end"))
    return None, None


def _regions(
    data: bytes,
    values: Values,
    header_at: int,
    limit: int,
    trusted: bool,
    damages: list[Damage],
) -> list[Region]:
    step = {"header_size": HEADER.size_bytes, "region_size": REGION.size_bytes}
    for field, least in step.items():
        given = values.number(field)
        # A larger one is a later kernel's only when the CRC vouches for it.
        if given > least and trusted:
            step[field] = given
        elif given != least:
            at = header_at + HEADER.offset_of(field)
            damages.append(Damage(at, 2, f"{field} is {given}, expected {least}"))
    first = header_at + step["header_size"]
    room = max(0, limit - first) // step["region_size"]
    count = values.number("nr_regions")
    if count > room:
        damages.append(
            Damage(
                header_at + HEADER.offset_of("nr_regions"),
                2,
                f"{count} region descriptors, there is room for {room}",
            )
        )
        count = room

    regions: list[Region] = []
    # Regions that share bytes would make the work grow with their number.
    budget = limit
    spans: list[tuple[int, int, int, str]] = []
    for index in range(count):
        at = first + index * step["region_size"]
        entry = REGION.unpack(data, at)
        offset, saved = entry.number("offset"), entry.number("saved")
        name = printable(entry.raw("name"))
        available = max(0, min(saved, limit - offset)) if offset <= limit else 0
        if available < saved:
            what = f"region {name!r} {offset:#x}+{saved:#x} passes the end at {limit:#x}"
            damages.append(Damage(at + REGION.offset_of("offset"), 16, what))
        # ELF aligns notes to 4 bytes.
        align = 4 if entry.number("kind") == RegionKind.NOTE else 8
        if offset % align:
            what = f"region {name!r} is not {align}-aligned"
            damages.append(Damage(at + REGION.offset_of("offset"), 8, what))
        spans.append((offset, available, at, name))
        if available > budget:
            available = 0
        budget -= available
        content = data[offset : offset + available]
        crc_ok = available == saved and zlib.crc32(content) == entry.number("crc")
        if available == saved and not crc_ok:
            damages.append(Damage(offset, saved, f"region {name!r}: CRC differs"))
        region = Region(
            index=index,
            name_raw=entry.raw("name"),
            kind=RegionKind(entry.number("kind")),
            va=entry.number("va"),
            pa=None if entry.number("pa") == UNKNOWN_PA else entry.number("pa"),
            size_bytes=entry.number("size"),
            offset=offset,
            saved_bytes=saved,
            flags=RegionFlags(entry.number("flags")),
            width_bytes=entry.number("width"),
            stride_bytes=entry.number("stride"),
            note_type=entry.number("note_type"),
            error=entry.number("error"),
            crc=entry.number("crc"),
            crc_ok=crc_ok,
            data=content,
        )
        damages += [Damage(at, REGION.size_bytes, what) for what in _oddities(region)]
        regions.append(region)
    filled = first + count * step["region_size"]
    for offset, available, at, name in sorted(spans):
        if offset < filled:
            what = f"region {name!r} overlaps what comes before it"
            damages.append(Damage(at + REGION.offset_of("offset"), 8, what))
        else:
            filled = offset + available
    return regions


def _oddities(region: Region) -> Iterator[str]:
    if not region.kind.known:
        yield f"region {region.name!r}: kind {int(region.kind)} is unknown"
    if region.saved_bytes > region.size_bytes:
        yield f"region {region.name!r}: {region.saved_bytes} saved of {region.size_bytes}"
    access = (region.width_bytes, region.stride_bytes)
    if region.kind is RegionKind.REGISTERS:
        if region.width_bytes not in (1, 2, 4, 8) or region.stride_bytes < region.width_bytes:
            yield f"region {region.name!r}: width {access[0]} and stride {access[1]}"
    elif access != (0, 0):
        yield f"region {region.name!r}: width and stride, but no registers"


def _check_totals(
    values: Values, header_at: int, regions: list[Region], damages: list[Damage]
) -> None:
    total = sum(region.saved_bytes for region in regions)
    if total != values.number("data_size"):
        damages.append(
            Damage(
                header_at + HEADER.offset_of("data_size"),
                8,
                f"data size {values.number('data_size')}, the regions add up to {total}",
            )
        )


def _identity(image: ElfImage | None) -> tuple[str | None, str | None]:
    release = build_id = None
    for note in image.notes if image else ():
        if (note.name_raw, note.type) == (NOTE_NAME, NOTE_RELEASE) and release is None:
            release = printable(note.desc[: MAX_RELEASE_BYTES + 1])
        elif (note.name_raw, note.type) == (GNU_NAME, NOTE_BUILD_ID) and build_id is None:
            build_id = note.desc[:MAX_BUILD_ID_BYTES].hex()
    return release, build_id


def _has_segment(region: Region) -> bool:
    memory_image = region.kind is RegionKind.REGISTERS and region.stride_bytes == region.width_bytes
    return region.kind is RegionKind.BUFFER or memory_image


def _check_wrapping(
    image: ElfImage, regions: list[Region], record_size: int, damages: list[Damage]
) -> None:
    """Compare the ELF wrapping with the descriptors, entry by entry."""
    if image.end + COMMIT.size_bytes != record_size:
        what = f"the section headers end at {image.end:#x}, the record at {record_size:#x}"
        damages.append(Damage(40, 8, what))
    if (image.notes and image.notes[0].name_raw != NOTE_NAME) or not image.notes:
        damages.append(Damage(32, 8, "the first note is not panicdump's"))
    if not any((n.name_raw, n.type) == (NOTE_NAME, NOTE_RELEASE) for n in image.notes):
        damages.append(Damage(32, 8, "there is no release note"))
    loads = [segment for segment in image.segments if segment.type is SegmentType.LOAD]
    wanted = [region for region in regions if _has_segment(region)]
    if len(loads) != len(wanted):
        damages.append(Damage(32, 8, f"{len(loads)} load segments, expected {len(wanted)}"))
    for segment, region in zip(loads, wanted, strict=False):
        got = (
            segment.offset,
            segment.vaddr,
            segment.paddr,
            segment.file_size_bytes,
            segment.memory_size_bytes,
        )
        if got != (
            region.offset,
            region.va,
            region.pa or 0,
            region.saved_bytes,
            region.size_bytes,
        ):
            what = f"the segment differs from region {region.name!r}"
            damages.append(Damage(segment.at, 56, what))
    # The null section, the notes' own and perhaps the build id come first, the names last.
    described = image.sections[-1 - len(regions) : -1] if regions else ()
    if not len(regions) + 3 <= len(image.sections) <= len(regions) + 4:
        what = f"{len(image.sections)} sections for {len(regions)} regions"
        damages.append(Damage(40, 8, what))
    for section, region in zip(described, regions, strict=False):
        if not _section_fits(section, region):
            what = f"the section differs from region {region.name!r}"
            damages.append(Damage(section.at, 64, what))


def _section_fits(section: Section, region: Region) -> bool:
    name = region.name_raw.split(b"\0", 1)[0]
    if region.kind is not RegionKind.NOTE:
        place = (section.offset, section.addr, section.size_bytes)
        return section.name_raw == name and place == (region.offset, region.va, region.saved_bytes)
    head = NHDR.size_bytes + -(-(len(name) + 1) // 4) * 4
    size_bytes = head + -(-region.saved_bytes // 4) * 4
    if not region.saved_bytes:
        # A note without content is left out.
        head = size_bytes = 0
    wanted = (NOTE_PREFIX + name, region.offset - head, size_bytes)
    return (section.name_raw, section.offset, section.size_bytes) == wanted


def _locate(data: bytes, regions: list[Region], limit: int, damages: list[Damage]) -> None:
    """The record's CRC is wrong: if no region's is, say what is left."""
    place = 0
    for region in sorted(regions, key=lambda region: region.offset):
        if place and place < region.offset <= min(limit, place + 8):
            gap = data[place : region.offset]
            if gap.strip(b"\0"):
                damages.append(Damage(place, len(gap), "padding is not zero"))
        if region.crc_ok:
            place = region.offset + region.saved_bytes
    if not damages:
        what = "CRC differs, every region's is right: header, wrapping, padding or mark is damaged"
        damages.append(Damage(0, limit, what))


def _notice_at_end(data: bytes) -> tuple[bytes, EccNotice | None]:
    match = _NOTICE.search(data, max(0, len(data) - _NOTICE_MAX_BYTES))
    if match is None:
        return b"", None
    return match[0], EccNotice(int(match[1] or 0), int(match[2] or 0))


def _after(data: bytes, end: int | None) -> tuple[bytes, EccNotice | None]:
    text, notice = _notice_at_end(data)
    if end is None:
        return text, notice
    # A notice that begins inside the record is the record's own data.
    return data[end:], notice if len(data) - len(text) >= end else None
