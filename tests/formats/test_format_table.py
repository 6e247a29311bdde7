"""The registry's text table: read whole, or refused with the line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import FormatError
from farm.formats.table import parse_table

STATE = (
    "state boot_id=0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff sequence=0 enabled=1 format=elf "
    "on_overflow=stop area=262144 capacity=261000 needed=2000 devices={} dumpers=pstore,netdump"
)
TEXT = "\n".join(
    [
        "panicdump 1",
        STATE.format(2),
        "device id=1 priority=-10 regions=2 needed=900 driver=panicdump-sample "
        "name=panicdump-sample.0",
        "region device=1 index=0 kind=buffer va=0xffff000001234560 pa=0x41234560 size=16 width=0 "
        "stride=0 name=buf0",
        "region device=1 index=1 kind=registers va=0xffff800008000000 pa=0xffffffffffffffff "
        "size=64 width=4 stride=4 name=reg\\0401",
        "device id=7 priority=5 regions=0 needed=300 driver=a\\075b\\134 name=\\303\\251\\012x",
        "end devices=2",
        "",
    ]
)


def test_every_field_comes_back() -> None:
    table = parse_table(TEXT)
    assert table.boot_id == "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff"
    assert (table.sequence, table.enabled) == (0, True)
    assert (table.format, table.on_overflow) == ("elf", "stop")
    assert (table.area_bytes, table.capacity_bytes, table.needed_bytes) == (262144, 261000, 2000)
    assert table.dumpers == ("pstore", "netdump")
    first, second = table.devices
    assert (first.id, first.priority, first.needed_bytes) == (1, -10, 900)
    assert (first.driver, first.name) == ("panicdump-sample", "panicdump-sample.0")
    buffer, registers = first.regions
    assert (buffer.index, buffer.kind, buffer.name) == (0, "buffer", "buf0")
    assert (buffer.va, buffer.pa, buffer.size_bytes) == (0xFFFF000001234560, 0x41234560, 16)
    assert (registers.pa, registers.width_bytes, registers.stride_bytes) == (None, 4, 4)
    assert registers.name == "reg 1"
    assert (second.driver_raw, second.name_raw) == (b"a=b\\", b"\xc3\xa9\nx")
    assert second.name == "\\xc3\\xa9\\x0ax"


def test_no_devices_and_no_dumpers() -> None:
    text = "\n".join(["panicdump 1", STATE.format(0), "end devices=0", ""])
    table = parse_table(text.replace("pstore,netdump", "-"))
    assert (table.devices, table.dumpers) == ((), ())


def test_every_cut_is_refused() -> None:
    for length in range(len(TEXT)):
        with pytest.raises(FormatError):
            parse_table(TEXT[:length])


def test_every_lost_line_is_refused() -> None:
    lines = TEXT.splitlines(keepends=True)
    for index in range(len(lines)):
        with pytest.raises(FormatError):
            parse_table("".join(lines[:index] + lines[index + 1 :]))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("panicdump 1", "panicdump 2", 1),
        ("enabled=1", "enabled=2", 2),
        ("boot_id=0f1e2d3c-", "boot_id=0f1e2d3c", 2),
        ("boot_id=0f1e2d3c-", "boot_id=0f1e2d3c0", 2),
        ("format=elf", "format=core", 2),
        ("area=262144", "area=99999999999999999999", 2),
        ("area=262144", "area=-1", 2),
        ("needed=2000 ", "", 2),
        ("needed=2000 ", "needed=2000 more=1 ", 2),
        ("needed=2000 ", "needed=2000  ", 2),
        ("priority=-10", "priority=--10", 3),
        ("id=1 ", "id=1 id=1 ", 3),
        ("regions=2", "regions=18446744073709551615", 6),
        ("regions=2", "regions=1", 5),
        ("driver=panicdump-sample name", "name", 3),
        ("index=1", "index=2", 5),
        ("kind=buffer", "kind=bufer", 4),
        ("va=0xffff000001234560", "va=ffff000001234560", 4),
        ("va=0xffff000001234560", "va=0x1ffff000001234560", 4),
        ("device=1 index=1", "device=2 index=1", 5),
        ("reg\\0401", "reg\\401", 5),
        ("reg\\0401", "reg\\x", 5),
        ("reg\\0401", "reg 1", 5),
        ("reg\\0401", "regé", 5),
        ("device id=7", "device id=1", 7),
        ("end devices=2", "end devices=3", 7),
        ("end devices=2\n", "end devices=2\n\n", 8),
        ("device id=7", "\x1b[31m id=7", 6),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(old: str, new: str, line: int) -> None:
    assert old in TEXT
    with pytest.raises(FormatError) as caught:
        parse_table(TEXT.replace(old, new))
    assert caught.value.offset == line
    assert caught.value.message.isprintable()


@given(st.text(max_size=300), st.integers(0, len(TEXT)))
def test_text_put_anywhere_never_crashes(text: str, at: int) -> None:
    for candidate in (text, TEXT[:at] + text + TEXT[at:]):
        with contextlib.suppress(FormatError):
            parse_table(candidate)
