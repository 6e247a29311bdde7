"""The registry as the live board shows it: /sys/kernel/debug/panicdump/table.

Source: Documentation/admin-guide/panicdump.rst, section 8; escapes: seq_escape() with
ESCAPE_OCTAL, lib/string_helpers.c.
Left out: the registry in memory (section 10).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import printable

__all__ = ["Table", "TableDevice", "TableRegion", "parse_table"]

FIRST_LINE = "panicdump 1"
U64_MAX = 0xFFFF_FFFF_FFFF_FFFF

STATE_KEYS = (
    "boot_id",
    "sequence",
    "enabled",
    "format",
    "on_overflow",
    "area",
    "capacity",
    "needed",
    "devices",
    "dumpers",
)
DEVICE_KEYS = ("id", "priority", "regions", "needed", "driver", "name")
REGION_KEYS = ("device", "index", "kind", "va", "pa", "size", "width", "stride", "name")
KINDS = ("buffer", "registers", "callback", "note")


@dataclass(frozen=True, slots=True)
class TableRegion:
    """A registered region; `kind` is one of KINDS, `pa` None when unknown.

    `va` is 0 for a callback, for a note, and for a buffer that is located in the panic only.
    """

    index: int
    kind: str
    va: int
    pa: int | None
    size_bytes: int
    width_bytes: int
    stride_bytes: int
    name_raw: bytes

    @property
    def name(self) -> str:
        """The name, escaped as that of a record's region is."""
        return printable(self.name_raw)


@dataclass(frozen=True, slots=True)
class TableDevice:
    """A registered device; `needed_bytes` is its worst-case record, overhead included."""

    id: int
    priority: int
    needed_bytes: int
    driver_raw: bytes
    name_raw: bytes
    regions: tuple[TableRegion, ...]

    @property
    def driver(self) -> str:
        """The driver's name, escaped as that in a record is."""
        return printable(self.driver_raw)

    @property
    def name(self) -> str:
        """The device's name, escaped as that in a record is."""
        return printable(self.name_raw)


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table.

    `boot_id` is UUID text, `format` elf or raw, `on_overflow` stop or skip.
    """

    boot_id: str
    sequence: int
    enabled: bool
    format: str
    on_overflow: str
    area_bytes: int
    capacity_bytes: int
    needed_bytes: int
    dumpers: tuple[str, ...]
    devices: tuple[TableDevice, ...]


class _Line:
    """One line's keys and values, with errors that name the line (counted from 1)."""

    def __init__(self, number: int, text: str, word: str, keys: tuple[str, ...]) -> None:
        self.number = number
        found, *pairs = text.split(" ")
        if found != word:
            raise self.error(f"begins with {printable(found.encode())!r}, expected {word!r}")
        self._values: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or key in self._values:
                raise self.error(f"{printable(pair.encode())!r} is not a key=value of its own")
            self._values[key] = value
        # `name` is promised to come last, the order of the others is not used.
        ordered = tuple(self._values)
        if set(ordered) != set(keys) or ("name" in keys and ordered[-1] != "name"):
            got = printable(" ".join(ordered).encode())
            raise self.error(f"the keys are {got!r}, expected {' '.join(keys)!r}")

    def error(self, what: str) -> FormatError:
        return FormatError(f"line {self.number}: {what}", offset=self.number)

    def number_of(self, key: str) -> int:
        if not re.fullmatch(r"[0-9]{1,20}", self._values[key]):
            raise self.bad(key)
        return self._checked(key, int(self._values[key]))

    def signed(self, key: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,11}", self._values[key]):
            raise self.bad(key)
        return int(self._values[key])

    def address(self, key: str) -> int:
        if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", self._values[key]):
            raise self.bad(key)
        return int(self._values[key], 16)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        if self._values[key] not in choices:
            raise self.bad(key)
        return self._values[key]

    def plain(self, key: str, pattern: str) -> str:
        if not re.fullmatch(pattern, self._values[key]):
            raise self.bad(key)
        return self._values[key]

    def text(self, key: str) -> bytes:
        value = self._values[key]
        if not re.fullmatch(r"(?:[!-<>-\[\]-~]|\\[0-3][0-7]{2})*", value):
            raise self.bad(key)
        return re.sub(
            rb"\\([0-7]{3})", lambda match: bytes((int(match[1], 8),)), value.encode("ascii")
        )

    def bad(self, key: str) -> FormatError:
        value = printable(self._values[key][:80].encode())
        return self.error(f"{key}={value} is not a value for it")

    def _checked(self, key: str, value: int) -> int:
        if value > U64_MAX:
            raise self.bad(key)
        return value


def parse_table(text: str) -> Table:
    """Parse the text of the debugfs file.

    Raises FormatError, its offset the number of the line counted from 1, on anything that is
    malformed, does not add up, or is incomplete: the last line proves completeness.
    """
    if not text.endswith("\n"):
        raise FormatError("the table's last line is cut", offset=text.count("\n") + 1)
    numbered = enumerate(text[:-1].split("\n"), start=1)
    total = text.count("\n")

    def following() -> tuple[int, str]:
        for item in numbered:
            return item
        raise FormatError(f"the table ends after line {total}, without its end", offset=total + 1)

    number, first = following()
    if first != FIRST_LINE:
        raise FormatError(f"not a panicdump table: no {FIRST_LINE!r}", offset=number)
    state = _Line(*following(), "state", STATE_KEYS)
    try:
        boot_id = str(uuid.UUID(state.plain("boot_id", r"[0-9a-fA-F-]{36}")))
    except ValueError:
        raise state.bad("boot_id") from None
    dumpers = state.plain("dumpers", r"-|[A-Za-z0-9_.,\-]{1,256}")

    devices: list[TableDevice] = []
    number, line = following()
    while not line.startswith("end"):
        devices.append(_device(_Line(number, line, "device", DEVICE_KEYS), following))
        number, line = following()
    end = _Line(number, line, "end", ("devices",))
    if len({device.id for device in devices}) != len(devices):
        raise end.error("a device id occurs twice")
    if not end.number_of("devices") == state.number_of("devices") == len(devices):
        raise end.error(
            f"{len(devices)} devices listed, the end says {end.number_of('devices')}, "
            f"the state {state.number_of('devices')}"
        )
    for number, _ in numbered:
        raise FormatError(f"line {number}: text after the end", offset=number)
    return Table(
        boot_id=boot_id,
        sequence=state.number_of("sequence"),
        enabled=state.choice("enabled", ("0", "1")) == "1",
        format=state.choice("format", ("elf", "raw")),
        on_overflow=state.choice("on_overflow", ("stop", "skip")),
        area_bytes=state.number_of("area"),
        capacity_bytes=state.number_of("capacity"),
        needed_bytes=state.number_of("needed"),
        dumpers=() if dumpers == "-" else tuple(dumpers.split(",")),
        devices=tuple(devices),
    )


def _device(head: _Line, following: Callable[[], tuple[int, str]]) -> TableDevice:
    device_id = head.number_of("id")
    regions = []
    for index in range(head.number_of("regions")):
        line = _Line(*following(), "region", REGION_KEYS)
        if (line.number_of("device"), line.number_of("index")) != (device_id, index):
            raise line.error(f"expected region {index} of device {device_id}")
        pa = line.address("pa")
        regions.append(
            TableRegion(
                index=index,
                kind=line.choice("kind", KINDS),
                va=line.address("va"),
                pa=None if pa == U64_MAX else pa,
                size_bytes=line.number_of("size"),
                width_bytes=line.number_of("width"),
                stride_bytes=line.number_of("stride"),
                name_raw=line.text("name"),
            )
        )
    return TableDevice(
        id=device_id,
        priority=head.signed("priority"),
        needed_bytes=head.number_of("needed"),
        driver_raw=head.text("driver"),
        name_raw=head.text("name"),
        regions=tuple(regions),
    )
