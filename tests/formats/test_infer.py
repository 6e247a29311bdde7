"""The layout of a region, told from what lies in it."""

from __future__ import annotations

import random

import pytest

from farm.errors import FormatError
from farm.formats.encode import encode_frames, encode_zone
from farm.formats.infer import infer_sizes
from farm.formats.ramoops import (
    PANICDUMP_SIGNATURE,
    SIGNATURE,
    RamoopsSizes,
    ZoneKind,
    place_zones,
)
from farm.formats.region import decode_region, pstore_files, salvage

KIB = 1024
LINUX_6_12_90 = 0x060C5A


def region(sizes: RamoopsSizes, lost: frozenset[str] = frozenset()) -> bytes:
    """A region that a kernel has used; `lost` are zones, as "dmesg 1", without their header."""
    chance = random.Random(5)
    out = bytearray(sizes.mem_size_bytes)
    for place in place_zones(sizes):
        room = place.size_bytes // 2
        data = {
            ZoneKind.DMESG: b"====1700000000.000123-D\n" + b"Panic#1 Part1\n" * (room // 20),
            ZoneKind.PANICDUMP: encode_frames([b"x" * 100]),
            ZoneKind.CONSOLE: b"[    1.000000] a line\n" * (room // 30),
            ZoneKind.PMSG: b"\1\2" + chance.randbytes(room // 2),
            ZoneKind.FTRACE: bytes(range(24)) * (room // 30),
        }[place.kind]
        if place.kind is ZoneKind.DMESG and place.index % 3 == 2:
            data = b""
        signature = {
            ZoneKind.PANICDUMP: PANICDUMP_SIGNATURE,
            ZoneKind.FTRACE: SIGNATURE ^ LINUX_6_12_90,
        }.get(place.kind, SIGNATURE)
        zone = bytearray(
            encode_zone(data, place.size_bytes, sizes.ecc_size_bytes, signature=signature)
        )
        if f"{place.kind.value} {place.index}" in lost:
            zone[:12] = b"\xff" * 12
        out[place.offset : place.offset + len(zone)] = zone
    return bytes(out)


def sizes_of(mem: int, **sizes: int) -> RamoopsSizes:
    named = {f"{name}_size_bytes": value for name, value in sizes.items() if name != "zones"}
    order = bool(named.pop("trace_first_size_bytes", 0))
    return RamoopsSizes(
        mem_size_bytes=mem * KIB,
        ftrace_zones=sizes.get("zones", 1),
        ftrace_before_pmsg=order,
        **named,
    )


@pytest.mark.parametrize("ecc", [0, 5, 8, 16, 32])
@pytest.mark.parametrize(
    "sizes",
    [
        {"mem": 2048, "record": 131072, "panicdump": 524288, "console": 131072, "pmsg": 131072},
        {"mem": 1024, "record": 65536, "console": 65536, "pmsg": 65536},
        {"mem": 1024, "record": 4096, "console": 131072},
        {"mem": 1024, "console": 524288, "pmsg": 524288},
        {"mem": 1024, "record": 32768, "console": 262144, "ftrace": 65536, "zones": 2},
        {"mem": 1024, "record": 16384, "pmsg": 131072, "ftrace": 65536, "zones": 2},
        {
            "mem": 1024,
            "record": 32768,
            "console": 262144,
            "pmsg": 131072,
            "ftrace": 65536,
            "zones": 2,
            "trace_first": 1,
        },
        {"mem": 512, "pmsg": 131072, "ftrace": 131072, "panicdump": 262144, "trace_first": 1},
        {"mem": 384, "record": 131072},
        {"mem": 1000, "record": 16384, "console": 65536, "pmsg": 65536},
        {"mem": 512, "panicdump": 262144, "console": 262144},
    ],
    ids=str,
)
def test_the_layout_is_told_from_the_zones(sizes: dict[str, int], ecc: int) -> None:
    wanted = sizes_of(**sizes, ecc=ecc)
    found = infer_sizes(region(wanted))
    assert found.sizes == wanted
    assert found.explained == found.seen == found.predicted


def test_lost_headers_are_no_obstacle_and_their_payload_is_recovered() -> None:
    sizes = sizes_of(1024, record=65536, panicdump=262144, console=65536, pmsg=65536, ecc=16)
    lost = frozenset(("dmesg 1", "panicdump 0", "dmesg 4", "console 0"))
    data = region(sizes, lost)
    found = infer_sizes(data)
    assert found.sizes == sizes
    assert found.explained < found.predicted
    decoded = decode_region(data, sizes)
    names = {file.name for file in pstore_files(decoded)}
    assert "dmesg-ramoops-1" not in names
    left = {one.zone.label: one.data for one in salvage(data, decoded)}
    assert left["dmesg 1"].startswith(b"Panic#1 Part1\n")
    assert left["dmesg 1"] == left["dmesg 4"]
    assert left["console 0"].startswith(b"[    1.000000] a line\n")
    (panicdump,) = [zone for zone in decoded.zones if zone.place.kind is ZoneKind.PANICDUMP]
    assert [frame.data for frame in panicdump.frames] == [b"x" * 100]


@pytest.mark.parametrize("word", [0x4312_3456, SIGNATURE ^ 0x1D0C5A, SIGNATURE ^ 0x06300A])
def test_parity_that_looks_nearly_like_a_trace_is_none(word: int) -> None:
    """The last word of a parity, with nothing behind it, where a zone of 1 KiB may begin."""
    sizes = sizes_of(2048, record=4096, console=65536, pmsg=16384, ecc=32)
    data = bytearray(region(sizes))
    data[-2000:-1000] = word.to_bytes(4, "little") + bytes(996)
    assert infer_sizes(bytes(data)).sizes == sizes


def test_a_trace_tells_the_kernel_s_version() -> None:
    sizes = sizes_of(512, record=32768, ftrace=131072, zones=2)
    assert decode_region(region(sizes), sizes).linux_version == (6, 12, 90)


def test_a_record_of_nothing_hides_what_comes_behind_it() -> None:
    sizes = sizes_of(64, record=16384, console=16384)
    out = bytearray(region(sizes))
    out[:16384] = encode_zone(b"====1.000002-D\n", 16384, signature=SIGNATURE)
    files = pstore_files(decode_region(bytes(out), sizes))
    assert {file.name: file.hidden for file in files} == {
        "dmesg-ramoops-1": True,
        "console-ramoops-0": True,
    }


@pytest.mark.parametrize("data", [b"", bytes(65536), b"DBGC" * 3, bytes(range(256)) * 64])
def test_what_has_no_zone_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        infer_sizes(data)
