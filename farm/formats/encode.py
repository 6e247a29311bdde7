"""Records, tables and zones made from values: for tests, golden files and fuzzing.

Source: Documentation/admin-guide/panicdump.rst, sections 1 to 7.  The layouts are spelt out here
once more, apart from those the decoders use: a wrong offset in one of them must not be mirrored by
the other.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from farm.formats import ecc
from farm.formats.ramoops import PANICDUMP_SIGNATURE, zone_layout

__all__ = [
    "NewContentsEntry",
    "NewRecord",
    "NewRegion",
    "encode_contents",
    "encode_frames",
    "encode_record",
    "encode_zone",
]

BUFFER, REGISTERS, CALLBACK, NOTE = 1, 2, 3, 4
NAME_TRUNCATED = 8
EM_AARCH64 = 183
NO_PA = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRegion:
    """A region to encode; `kind` is 1 buffer, 2 registers, 3 callback, 4 note.

    `size_bytes` and `crc` follow from the data when None; `pa` None means unknown.
    """

    name: str | bytes
    data: bytes
    kind: int = BUFFER
    va: int = 0
    pa: int | None = None
    size_bytes: int | None = None
    width_bytes: int = 0
    stride_bytes: int = 0
    note_type: int = 0
    flags: int = 0
    error: int = 0
    crc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """A record to encode; `kind` is 0 for a device, 1 for the contents."""

    driver: str | bytes
    device: str | bytes
    regions: Sequence[NewRegion] = ()
    kind: int = 0
    flags: int = 0
    boot_id: uuid.UUID = field(
        default_factory=lambda: uuid.UUID("12345678-9abc-4def-8123-456789abcdef")
    )
    sequence: int = 1
    device_id: int = 1
    index: int = 1
    time_ns: int = 0
    uptime_ns: int = 0
    error: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContentsEntry:
    """An entry of the contents table; `index` None means that there is no record."""

    device_id: int
    driver: str | bytes
    device: str | bytes
    outcome: int = 0
    index: int | None = None
    error: int = 0
    needed_bytes: int = 0
    saved_bytes: int = 0


def _raw(name: str | bytes) -> bytes:
    return name.encode() if isinstance(name, str) else name


def _pad(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _describe(record: NewRecord, offsets: Sequence[int], record_size: int) -> bytes:
    """Header and region descriptors."""
    driver, device = _raw(record.driver), _raw(record.device)
    flags = record.flags
    if len(driver) > 32 or len(device) > 64:
        flags |= NAME_TRUNCATED
    for region in record.regions:
        flags |= region.flags & 7
    out = struct.pack(
        "<8s4H2I16sQ2I3Q32s64s2iQ",
        b"PANICDMP",
        1,
        192,
        96,
        len(record.regions),
        record.kind,
        flags,
        record.boot_id.bytes,
        record.sequence,
        record.device_id,
        record.index,
        record.time_ns,
        record.uptime_ns,
        sum(len(region.data) for region in record.regions),
        driver,
        device,
        record.error,
        record.priority,
        record_size,
    )
    for region, offset in zip(record.regions, offsets, strict=True):
        name = _raw(region.name)
        out += struct.pack(
            "<32s5Q2I2Hi2I",
            name,
            region.va,
            NO_PA if region.pa is None else region.pa,
            len(region.data) if region.size_bytes is None else region.size_bytes,
            offset,
            len(region.data),
            region.kind,
            region.flags | (NAME_TRUNCATED if len(name) > 32 else 0),
            region.width_bytes,
            region.stride_bytes,
            region.error,
            zlib.crc32(region.data) if region.crc is None else region.crc,
            region.note_type,
        )
    return out


def _commit(body: bytes) -> bytes:
    return body + struct.pack("<2IQ", 0x4D434450, zlib.crc32(body), len(body) + 16)


def _lay_out(regions: Sequence[NewRegion], begin: int) -> tuple[list[int], bytes]:
    """Offsets of the regions from `begin` on, and their bytes with padding."""
    offsets = []
    out = bytearray()
    for region in regions:
        offsets.append(begin + len(out))
        out += _pad(region.data, 8)
    return offsets, bytes(out)


def _note(name: bytes, kind: int, desc: bytes) -> bytes:
    name += b"\0"
    return struct.pack("<3I", len(name), len(desc), kind) + _pad(name, 4) + _pad(desc, 4)


def encode_record(
    record: NewRecord,
    form: str = "elf",
    *,
    release: str = "6.12.90",
    build_id: bytes | None = bytes(range(20)),
    machine: int = EM_AARCH64,
) -> bytes:
    """Encode a record, `form` being "elf" or "raw"; the other options are for the ELF form."""
    if form == "raw":
        begin = 192 + 96 * len(record.regions)
        offsets, data = _lay_out(record.regions, begin)
        return _commit(_describe(record, offsets, begin + len(data) + 16) + data)
    if form != "elf":
        raise ValueError(f"form {form!r}, expected elf or raw")

    loads = [
        number
        for number, region in enumerate(record.regions)
        if region.kind == BUFFER
        or (region.kind == REGISTERS and region.stride_bytes == region.width_bytes)
    ]
    notes_at = 64 + 56 * (1 + len(loads))
    release_note = _note(b"PANICDUMP", 2, release.encode() + b"\0")
    build_note = _note(b"GNU", 3, build_id) if build_id else b""
    own_bytes = 24 + 192 + 96 * len(record.regions) + len(release_note)
    # What was registered as a note comes behind the others, and not among the data.
    end = notes_at + own_bytes + len(build_note)
    registered_notes = b""
    note_spans: dict[int, tuple[int, int]] = {}
    for number, region in enumerate(record.regions):
        if region.kind == NOTE:
            name = _raw(region.name)[:32].split(b"\0", 1)[0]
            # One without content is left out.
            note = _note(name, region.note_type, region.data) if region.data else b""
            note_spans[number] = (end + len(registered_notes), len(note))
            registered_notes += note
    data_at = (end + len(registered_notes) + 7) & ~7
    others = [region for region in record.regions if region.kind != NOTE]
    places, data = _lay_out(others, data_at)
    offsets = []
    for number, region in enumerate(record.regions):
        if number in note_spans:
            at, size = note_spans[number]
            offsets.append(at + size - len(_pad(region.data, 4)))
        else:
            offsets.append(places.pop(0))

    # (name, type, address, offset, size, alignment)
    sections = [(b".note.panicdump", 7, 0, notes_at, own_bytes, 4)]
    if build_note:
        where = notes_at + own_bytes
        sections.append((b".note.gnu.build-id", 7, 0, where, len(build_note), 4))
    for number, (region, offset) in enumerate(zip(record.regions, offsets, strict=True)):
        name = _raw(region.name)[:32].split(b"\0", 1)[0]
        if number in note_spans:
            sections.append((b".note." + name, 7, 0, *note_spans[number], 4))
            continue
        sections.append((name, 1, region.va, offset, len(region.data), 1))
    names = b"\0"
    name_at = []
    for section in sections:
        name_at.append(len(names))
        names += section[0] + b"\0"
    name_at.append(len(names))
    names += b".shstrtab\0"
    names_at = data_at + len(data)
    sections.append((b".shstrtab", 3, 0, names_at, len(names), 1))
    headers_at = (names_at + len(names) + 7) & ~7
    record_size = headers_at + 64 * (len(sections) + 1) + 16

    out = b"\x7fELF\x02\x01\x01" + bytes(9)
    out += struct.pack(
        "<2HI3QI6H",
        4,
        machine,
        1,
        0,
        64,
        headers_at,
        0,
        64,
        56,
        1 + len(loads),
        64,
        len(sections) + 1,
        len(sections),
    )
    notes_bytes = own_bytes + len(build_note) + len(registered_notes)
    out += struct.pack("<2I6Q", 4, 4, notes_at, 0, 0, notes_bytes, notes_bytes, 4)
    for number in loads:
        region, offset = record.regions[number], offsets[number]
        out += struct.pack(
            "<2I6Q",
            1,
            4,
            offset,
            region.va,
            region.pa or 0,
            len(region.data),
            len(region.data) if region.size_bytes is None else region.size_bytes,
            8 if (offset - region.va) % 8 == 0 else 1,
        )
    out += _note(b"PANICDUMP", 1, _describe(record, offsets, record_size))
    out += release_note + build_note + registered_notes
    out = _pad(out, 8) + data
    out = _pad(out + names, 8) + bytes(64)
    for section, name_offset in zip(sections, name_at, strict=True):
        _, kind, address, offset, size, align = section
        out += struct.pack("<2I4Q2I2Q", name_offset, kind, 0, address, offset, size, 0, 0, align, 0)
    return _commit(out)


def encode_contents(
    entries: Sequence[NewContentsEntry],
    *,
    nr_devices: int | None = None,
    on_overflow: int = 0,
    capacity_bytes: int = 0,
    used_bytes: int = 0,
    form: int = 0,
    nr_records: int | None = None,
    walk: int = 0,
) -> bytes:
    """Encode the data of a contents record; counts follow from the entries when None."""
    if nr_records is None:
        nr_records = sum(entry.index is not None for entry in entries)
    out = struct.pack(
        "<4I2Q3I20x",
        128,
        len(entries),
        len(entries) if nr_devices is None else nr_devices,
        on_overflow,
        capacity_bytes,
        used_bytes,
        form,
        nr_records,
        walk,
    )
    for entry in entries:
        out += struct.pack(
            "<3Ii2Q32s64s",
            entry.device_id,
            entry.outcome,
            0xFFFFFFFF if entry.index is None else entry.index,
            entry.error,
            entry.needed_bytes,
            entry.saved_bytes,
            _raw(entry.driver),
            _raw(entry.device),
        )
    return out


def encode_frames(records: Sequence[bytes], erased: Sequence[int] = ()) -> bytes:
    """Encode the frames of a panicdump zone; `erased` holds the ordinals of unlinked records."""
    out = bytearray()
    for ordinal, record in enumerate(records):
        head = struct.pack("<2I", 0x46444450, len(record))
        state = b"ERAS" if ordinal in erased else b"LIVE"
        crc = struct.pack("<I", zlib.crc32(head))
        out += _pad(head + state + crc + record, 8)
    return bytes(out)


def encode_zone(
    data: bytes,
    size_bytes: int,
    ecc_size_bytes: int = 0,
    *,
    signature: int = PANICDUMP_SIGNATURE,
    start: int = 0,
    size: int | None = None,
) -> bytes:
    """Encode a zone of `size_bytes` whose data area begins with `data`, the rest being 0.

    `size` is the header's count of valid bytes, len(data) when None.  Raises UsageError when there
    can be no such zone, ValueError when the data does not fit it.
    """
    layout = zone_layout(size_bytes, ecc_size_bytes)
    if len(data) > layout.data_bytes:
        raise ValueError(f"{len(data)} bytes of data, the zone holds {layout.data_bytes}")
    head = struct.pack("<3I", signature, start, len(data) if size is None else size)
    area = data.ljust(layout.data_bytes, b"\0")
    if not ecc_size_bytes:
        return head + area
    blocks = ecc.parity(area, ecc_size_bytes).ljust(layout.blocks * ecc_size_bytes, b"\0")
    return head + area + blocks + ecc.parity(head, ecc_size_bytes)
