"""The registry as it lies in memory, for a dump of all of it.

Source: Documentation/admin-guide/panicdump.rst, section 10.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import Damage, StructTable, printable
from farm.formats.record import UNKNOWN_PA, VERSION, RegionKind

__all__ = [
    "ENTRY_BYTES",
    "MAGIC",
    "MAX_ENTRIES",
    "TABLE_BYTES",
    "MemoryTable",
    "MemoryTableEntry",
    "decode_memory_entries",
    "decode_memory_table",
    "looks_like_entry",
]

MAGIC = b"PANICDUMP-TABLE\0"
# More than any board registers; it bounds what a damaged count can cost.
MAX_ENTRIES = 1 << 16

TABLE = StructTable(
    "panicdump table",
    64,
    (
        (0, "16s", "magic"),
        (16, "H", "version"),
        (18, "H", "header_size"),
        (20, "H", "entry_size"),
        (24, "I", "nr_entries"),
        (28, "I", "max_entries"),
        (32, "16s", "boot_id"),
        (48, "Q", "entries_va"),
        (56, "Q", "entries_pa"),
    ),
    magic=MAGIC,
)
ENTRY = StructTable(
    "panicdump table entry",
    192,
    (
        (0, "I", "device_id"),
        (4, "I", "region_index"),
        (8, "Q", "va"),
        (16, "Q", "pa"),
        (24, "Q", "size"),
        (32, "I", "kind"),
        (36, "I", "flags"),
        (40, "H", "width"),
        (42, "H", "stride"),
        (44, "I", "generation"),
        (48, "32s", "driver"),
        (80, "64s", "device"),
        (144, "32s", "region"),
    ),
)
TABLE_BYTES = TABLE.size_bytes
ENTRY_BYTES = ENTRY.size_bytes


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """The head of the table; `nr_entries` entries of `entry_size_bytes` begin at `entries_pa`."""

    boot_id: str
    nr_entries: int
    max_entries: int
    entry_size_bytes: int
    entries_va: int
    entries_pa: int


@dataclass(frozen=True, slots=True)
class MemoryTableEntry:
    """A region; `stable` is False when the kernel was just changing the entry.

    `pa` is None when the region's memory is not contiguous, or is none at all.
    """

    device_id: int
    region_index: int
    va: int
    pa: int | None
    size_bytes: int
    kind: RegionKind
    width_bytes: int
    stride_bytes: int
    stable: bool
    driver_raw: bytes
    device_raw: bytes
    region_raw: bytes

    @property
    def driver(self) -> str:
        """The driver's name, escaped."""
        return printable(self.driver_raw)

    @property
    def device(self) -> str:
        """The device's name, escaped."""
        return printable(self.device_raw)

    @property
    def region(self) -> str:
        """The region's name, escaped."""
        return printable(self.region_raw)


def decode_memory_table(data: bytes) -> MemoryTable:
    """Decode and check the head of the table.

    Raises FormatError, with the offset of the field, when it cannot be one that is in use.
    """
    values = TABLE.unpack(data)
    if values.raw("magic") != MAGIC:
        raise FormatError("not a panicdump table", offset=0)
    for field, wanted in (("version", VERSION), ("header_size", TABLE_BYTES)):
        if values.number(field) != wanted:
            raise FormatError(
                f"panicdump table: {field} is {values.number(field)}, expected {wanted}",
                offset=TABLE.offset_of(field),
            )
    if not ENTRY_BYTES <= values.number("entry_size") <= 4096:
        raise FormatError(
            f"panicdump table: entries of {values.number('entry_size')} bytes",
            offset=TABLE.offset_of("entry_size"),
        )
    count, room = values.number("nr_entries"), values.number("max_entries")
    if not count <= room <= MAX_ENTRIES:
        raise FormatError(
            f"panicdump table: {count} entries, room for {room}",
            offset=TABLE.offset_of("nr_entries"),
        )
    if count and not values.number("entries_pa"):
        raise FormatError(
            "panicdump table: no place of its entries", offset=TABLE.offset_of("entries_pa")
        )
    return MemoryTable(
        boot_id=str(uuid.UUID(bytes=values.raw("boot_id"))),
        nr_entries=count,
        max_entries=room,
        entry_size_bytes=values.number("entry_size"),
        entries_va=values.number("entries_va"),
        entries_pa=values.number("entries_pa"),
    )


def looks_like_entry(data: bytes) -> bool:
    """Whether the first entry of a table can stand here: for finding where memory begins."""
    if len(data) < ENTRY_BYTES:
        return False
    values = ENTRY.unpack(data)
    names = (values.raw("driver"), values.raw("device"), values.raw("region"))
    return (
        values.number("flags") == 0
        and RegionKind(values.number("kind")).known
        and 0 < values.number("device_id") <= MAX_ENTRIES
        and values.number("region_index") < MAX_ENTRIES
        and all(name[:1] != b"\0" and name.rstrip(b"\0").isascii() for name in names)
    )


def decode_memory_entries(
    data: bytes, table: MemoryTable
) -> tuple[tuple[MemoryTableEntry, ...], tuple[Damage, ...]]:
    """Decode the entries that are in use, and tell what is odd; offsets are from the first entry.

    Work and memory are linear in the input, which may be cut short.
    """
    entries: list[MemoryTableEntry] = []
    damages: list[Damage] = []
    seen: set[tuple[int, int]] = set()
    for number in range(table.nr_entries):
        at = number * table.entry_size_bytes
        if at + ENTRY_BYTES > len(data):
            what = f"entries {number} to {table.nr_entries - 1} are not in the dump"
            damages.append(Damage(at, None, what))
            break
        values = ENTRY.unpack(data, at)
        if not values.number("device_id"):
            continue
        kind = RegionKind(values.number("kind"))
        pa = values.number("pa")
        entry = MemoryTableEntry(
            device_id=values.number("device_id"),
            region_index=values.number("region_index"),
            va=values.number("va"),
            pa=None if pa == UNKNOWN_PA else pa,
            size_bytes=values.number("size"),
            kind=kind,
            width_bytes=values.number("width"),
            stride_bytes=values.number("stride"),
            stable=values.number("generation") % 2 == 0,
            driver_raw=values.raw("driver"),
            device_raw=values.raw("device"),
            region_raw=values.raw("region"),
        )
        if not kind.known:
            damages.append(Damage(at + ENTRY.offset_of("kind"), 4, f"kind {int(kind)} is unknown"))
        if not entry.stable:
            damages.append(Damage(at, ENTRY_BYTES, "the entry was being changed"))
        if (entry.device_id, entry.region_index) in seen:
            what = f"region {entry.region_index} of device {entry.device_id} occurs twice"
            damages.append(Damage(at, ENTRY_BYTES, what))
            continue
        seen.add((entry.device_id, entry.region_index))
        entries.append(entry)
    return tuple(entries), tuple(damages)
