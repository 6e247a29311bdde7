"""The table inside the contents record: every registered device and what became of it.

Source: Documentation/admin-guide/panicdump.rst, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import Damage, OpenEnum, StructTable, printable

__all__ = [
    "Contents",
    "ContentsEntry",
    "OnOverflow",
    "Outcome",
    "RecordFormat",
    "Walk",
    "decode_contents",
]

NO_INDEX = 0xFFFF_FFFF

CONTENTS = StructTable(
    "contents table",
    64,
    (
        (0, "I", "entry_size"),
        (4, "I", "nr_entries"),
        (8, "I", "nr_devices"),
        (12, "I", "on_overflow"),
        (16, "Q", "capacity"),
        (24, "Q", "used"),
        (32, "I", "format"),
        (36, "I", "nr_records"),
        (40, "I", "walk"),
    ),
)
ENTRY = StructTable(
    "contents entry",
    128,
    (
        (0, "I", "device_id"),
        (4, "I", "outcome"),
        (8, "I", "index"),
        (12, "i", "error"),
        (16, "Q", "needed"),
        (24, "Q", "saved"),
        (32, "32s", "driver"),
        (64, "64s", "device"),
    ),
)


class Outcome(OpenEnum):
    """What became of a device in this panic."""

    SAVED = 0
    SAVED_IN_PART = 1
    OVERFLOW = 2
    NOT_REACHED = 3
    CALLBACK_FAILED = 4
    WRITE_FAILED = 5
    CALLBACK_NEVER_RETURNED = 6


class OnOverflow(OpenEnum):
    """What follows when a device does not fit."""

    STOP = 0
    SKIP = 1


class Walk(OpenEnum):
    """Whether the record was written when all devices had been seen to, or earlier."""

    COMPLETE = 0
    CUT_SHORT = 1


class RecordFormat(OpenEnum):
    """The form in which this panic's records were written."""

    ELF = 0
    RAW = 1


@dataclass(frozen=True, slots=True)
class ContentsEntry:
    """One device; `index` is the ordinal of its record, None if it has none."""

    device_id: int
    outcome: Outcome
    index: int | None
    error: int
    needed_bytes: int
    saved_bytes: int
    driver_raw: bytes
    device_raw: bytes

    @property
    def driver(self) -> str:
        """The driver's name, escaped."""
        return printable(self.driver_raw)

    @property
    def device(self) -> str:
        """The device's name, escaped."""
        return printable(self.device_raw)


@dataclass(frozen=True, slots=True)
class Contents:
    """The table; `entries` in walk order, fewer than `nr_devices` when the list was cut.

    `capacity_bytes` is what there was for records, `used_bytes` what all took, overhead included.
    With a `walk` that was cut short, the table is older than some of the records: a device that it
    calls not reached may have one.
    """

    nr_devices: int
    nr_records: int
    on_overflow: OnOverflow
    capacity_bytes: int
    used_bytes: int
    format: RecordFormat
    walk: Walk
    entries: tuple[ContentsEntry, ...]
    damages: tuple[Damage, ...]


def decode_contents(data: bytes) -> Contents:
    """Decode the data of a contents record's only region; offsets are from its start.

    Work and memory are linear in the input.  Raises FormatError when it is shorter than the table's
    head or its entries are shorter than version 1 has them.
    """
    head = CONTENTS.unpack(data)
    entry_size = head.number("entry_size")
    if entry_size < ENTRY.size_bytes:
        raise FormatError(
            f"contents entries of {entry_size} bytes, version 1 has {ENTRY.size_bytes}", offset=0
        )
    damages: list[Damage] = []
    count = head.number("nr_entries")
    # The last entry needs only the bytes that are known here.
    room = (len(data) - CONTENTS.size_bytes + entry_size - ENTRY.size_bytes) // entry_size
    if count > room:
        damages.append(Damage(4, 4, f"{count} entries, there is room for {max(0, room)}"))
        count = max(0, room)
    if head.number("nr_entries") > head.number("nr_devices"):
        damages.append(Damage(4, 8, "more entries than devices"))
    for field, kind, at in (
        ("on_overflow", OnOverflow, 12),
        ("format", RecordFormat, 32),
        ("walk", Walk, 40),
    ):
        if not kind(head.number(field)).known:
            damages.append(Damage(at, 4, f"{field} {head.number(field)} is unknown"))

    entries = []
    for number in range(count):
        at = CONTENTS.size_bytes + number * entry_size
        entry = ENTRY.unpack(data, at)
        outcome = Outcome(entry.number("outcome"))
        if not outcome.known:
            damages.append(Damage(at + 4, 4, f"outcome {int(outcome)} is unknown"))
        index = entry.number("index")
        entries.append(
            ContentsEntry(
                device_id=entry.number("device_id"),
                outcome=outcome,
                index=None if index == NO_INDEX else index,
                error=entry.number("error"),
                needed_bytes=entry.number("needed"),
                saved_bytes=entry.number("saved"),
                driver_raw=entry.raw("driver"),
                device_raw=entry.raw("device"),
            )
        )
    return Contents(
        nr_devices=head.number("nr_devices"),
        nr_records=head.number("nr_records"),
        on_overflow=OnOverflow(head.number("on_overflow")),
        capacity_bytes=head.number("capacity"),
        used_bytes=head.number("used"),
        format=RecordFormat(head.number("format")),
        walk=Walk(head.number("walk")),
        entries=tuple(entries),
        damages=tuple(damages),
    )
