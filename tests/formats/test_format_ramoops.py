"""Zones of a ramoops region, frames of the panicdump zone, and what damage leaves of them."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import FormatError, UsageError
from farm.formats.dmesg import decode_dmesg
from farm.formats.encode import encode_frames, encode_record, encode_zone
from farm.formats.ramoops import (
    PANICDUMP_SIGNATURE,
    FrameState,
    RamoopsSizes,
    ZoneKind,
    decode_panicdump_zone,
    decode_zone,
    place_zones,
    signature_of,
    zone_layout,
)
from farm.formats.record import RecordState, decode_record
from tests.formats.format_samples import contents_record, device_record, flipped

RECORDS = [
    encode_record(contents_record(), "elf"),
    encode_record(device_record(), "raw"),
    encode_record(device_record(), "elf"),
]
FRAMES = encode_frames(RECORDS)
SIZE = 16384


def test_zone_geometry_is_the_kernels() -> None:
    """Computed by hand from persistent_ram_init_ecc()."""
    layout = zone_layout(4096, 16)
    assert layout.data_bytes == 3604
    assert layout.parity_offset == 0xE20
    assert layout.blocks == 29
    assert layout.header_parity_offset == 0xFF0
    assert zone_layout(4096, 0).data_bytes == 4084


@pytest.mark.parametrize(("size", "ecc"), [(12, 0), (0, 0), (4096, -1), (4096, 128), (40, 16)])
def test_zones_that_cannot_be_are_refused(size: int, ecc: int) -> None:
    with pytest.raises(UsageError):
        zone_layout(size, ecc)


@given(st.integers(13, 70000), st.integers(0, 127))
def test_a_zones_parts_never_overlap(size: int, ecc: int) -> None:
    try:
        layout = zone_layout(size, ecc)
    except UsageError:
        return
    assert layout.data_offset + layout.data_bytes == layout.parity_offset
    assert layout.parity_offset + layout.blocks * ecc == layout.header_parity_offset
    assert layout.header_parity_offset + ecc == size
    if ecc:
        assert layout.blocks * 128 >= layout.data_bytes


def test_zones_lie_in_the_kernels_order() -> None:
    places = place_zones(
        RamoopsSizes(
            mem_size_bytes=1 << 20,
            record_size_bytes=0x2000,
            panicdump_size_bytes=0x80000,
            console_size_bytes=0x20000,
            pmsg_size_bytes=0x20000,
            ftrace_size_bytes=0x4000,
            ftrace_zones=3,
        )
    )
    dmesg = [place for place in places if place.kind is ZoneKind.DMESG]
    # 0x3c000 bytes are left for dmesg: 30 records
    assert [place.offset for place in dmesg] == [0x2000 * number for number in range(30)]
    rest = [(p.kind.value, p.index, p.offset, p.size_bytes) for p in places[30:]]
    assert rest == [
        ("panicdump", 0, 0x3C000, 0x80000),
        ("console", 0, 0xBC000, 0x20000),
        ("pmsg", 0, 0xDC000, 0x20000),
        ("ftrace", 0, 0xFC000, 0x1554),
        ("ftrace", 1, 0xFD554, 0x1554),
        ("ftrace", 2, 0xFEAA8, 0x1554),
    ]


def test_sizes_are_rounded_and_a_rest_is_shared_as_the_kernel_does() -> None:
    places = place_zones(
        RamoopsSizes(mem_size_bytes=10007, record_size_bytes=3000, console_size_bytes=5000)
    )
    # record 2048, console 4096; 5911 bytes for two records of 2955 rounded down to even
    assert [(p.kind.value, p.offset, p.size_bytes) for p in places] == [
        ("dmesg", 0, 2954),
        ("dmesg", 2954, 2954),
        ("console", 5908, 4096),
    ]
    only = place_zones(RamoopsSizes(mem_size_bytes=8192, panicdump_size_bytes=4096))
    assert [(p.kind.value, p.offset) for p in only] == [("panicdump", 0)]


@pytest.mark.parametrize(
    "sizes",
    [
        RamoopsSizes(mem_size_bytes=4096, panicdump_size_bytes=8192),
        RamoopsSizes(mem_size_bytes=0),
        RamoopsSizes(mem_size_bytes=4096, record_size_bytes=-1),
        RamoopsSizes(mem_size_bytes=4096, record_size_bytes=8192),
        RamoopsSizes(mem_size_bytes=4096, panicdump_size_bytes=12),
    ],
)
def test_sizes_that_ramoops_refuses_are_refused(sizes: RamoopsSizes) -> None:
    with pytest.raises(UsageError):
        place_zones(sizes)


def test_signatures() -> None:
    assert signature_of(ZoneKind.CONSOLE) == 0x43474244
    assert signature_of(ZoneKind.PANICDUMP) == 0x43474244 ^ 0x504D4450
    assert signature_of(ZoneKind.FTRACE, linux_version_code=0x060C5A) == 0x43474244 ^ 0x060C5A
    assert struct.pack("<I", 0x43474244 ^ 0x43474244 ^ 0x504D4450) == b"PDMP"


@pytest.mark.parametrize("ecc", [0, 16])
def test_frames_come_back_with_their_ordinals(ecc: int) -> None:
    found = decode_panicdump_zone(encode_zone(encode_frames(RECORDS, erased=[1]), SIZE, ecc), ecc)
    assert found.damages == ()
    assert found.zone.valid
    assert [frame.ordinal for frame in found.frames] == [0, 1, 2]
    assert [frame.data for frame in found.frames] == RECORDS
    assert [frame.state for frame in found.frames] == [
        FrameState.LIVE,
        FrameState.ERASED,
        FrameState.LIVE,
    ]
    assert found.frames[0].offset == 12
    assert found.frames[0].data_offset == 28
    for frame in found.frames:
        assert (frame.offset - 12) % 8 == 0
        assert frame.within
        assert frame.header_intact
        assert decode_record(frame.data).state is RecordState.INTACT


@pytest.mark.parametrize("ecc", [0, 16])
def test_an_empty_zone_holds_nothing_and_is_not_damaged(ecc: int) -> None:
    found = decode_panicdump_zone(encode_zone(b"", 4096, ecc), ecc)
    assert found.zone.valid
    assert (found.frames, found.damages, found.zone.contents) == ((), (), b"")


def test_memory_that_never_was_a_zone_is_not_damaged() -> None:
    noise = random.Random(1).randbytes(8192)
    for ecc in (0, 16):
        found = decode_panicdump_zone(noise, ecc)
        assert not found.zone.written
        assert found.zone.contents is None
        assert (found.frames, found.damages, found.zone.bad_blocks) == ((), (), ())


@pytest.mark.parametrize("ecc", [0, 16])
@pytest.mark.parametrize("header", [b"\x55" * 12, b"\xff" * 12])
def test_a_lost_zone_header_does_not_hide_the_frames(ecc: int, header: bytes) -> None:
    zone = header + encode_zone(FRAMES, SIZE, ecc)[12:]
    found = decode_panicdump_zone(zone, ecc)
    assert not found.zone.valid
    assert [frame.data for frame in found.frames] == RECORDS
    assert [(frame.ordinal, frame.within) for frame in found.frames] == [(None, False)] * 3
    assert "header lost" in found.damages[0].what


def test_ecc_brings_a_zeroed_header_back() -> None:
    """Few of its twelve bytes are other than zero."""
    found = decode_panicdump_zone(bytes(12) + encode_zone(FRAMES, SIZE, 16)[12:], 16)
    assert found.zone.valid
    assert [frame.ordinal for frame in found.frames] == [0, 1, 2]


def test_an_impossible_size_is_told_and_the_frames_found() -> None:
    zone = bytearray(encode_zone(FRAMES, SIZE))
    struct.pack_into("<I", zone, 8, SIZE)
    found = decode_panicdump_zone(bytes(zone), 0)
    assert found.zone.written
    assert not found.zone.valid
    assert len(found.frames) == 3


def test_remains_of_an_older_panic_are_marked() -> None:
    new = encode_frames(RECORDS[:1])
    area = new + FRAMES[len(new) :]
    found = decode_panicdump_zone(encode_zone(area, SIZE, size=len(new)), 0)
    assert [(frame.ordinal, frame.within) for frame in found.frames] == [
        (0, True),
        (None, False),
        (None, False),
    ]
    assert found.damages == ()


def test_a_damaged_frame_header_costs_no_record() -> None:
    second = len(encode_frames(RECORDS[:1]))
    for damage in (0, 4, 12):
        zone = bytearray(encode_zone(FRAMES, SIZE))
        zone[12 + second + damage] ^= 0x10
        found = decode_panicdump_zone(bytes(zone), 0)
        assert [frame.header_intact for frame in found.frames] == [True, False, True]
        assert [frame.ordinal for frame in found.frames] == [0, None, 1]
        assert [decode_record(frame.data).state for frame in found.frames] == [
            RecordState.INTACT
        ] * 3
        assert [d.offset for d in found.damages] == [12 + second]


def test_two_damaged_frame_headers_in_a_row() -> None:
    zone = bytearray(encode_zone(FRAMES, SIZE))
    for ordinal in (0, 1):
        zone[12 + len(encode_frames(RECORDS[:ordinal]))] ^= 0xFF
    found = decode_panicdump_zone(bytes(zone), 0)
    assert [frame.data for frame in found.frames] == RECORDS


def test_a_frame_and_its_record_overwritten_leave_the_next_one() -> None:
    second = len(encode_frames(RECORDS[:1]))
    zone = bytearray(encode_zone(FRAMES, SIZE))
    zone[12 + second : 12 + second + 100] = b"\xaa" * 100
    found = decode_panicdump_zone(bytes(zone), 0)
    assert [frame.data for frame in found.frames] == [RECORDS[0], RECORDS[2]]
    (damage,) = found.damages
    assert damage.offset == 12 + second
    assert damage.length == len(encode_frames(RECORDS[1:2]))


def test_a_frame_that_lies_about_its_size_with_a_good_crc() -> None:
    zone = bytearray(encode_zone(FRAMES, SIZE))
    head = struct.pack("<2I", 0x46444450, 0xFFFFFF00)
    zone[12:20] = head
    struct.pack_into("<I", zone, 24, zlib.crc32(head))
    found = decode_panicdump_zone(bytes(zone), 0)
    assert [frame.data for frame in found.frames] == RECORDS


def test_ecc_is_counted_as_the_kernel_counts_it() -> None:
    zone = bytearray(encode_zone(FRAMES, SIZE, 16))
    layout = zone_layout(SIZE, 16)
    for at in (5, 12 + 3, 12 + 200, layout.parity_offset + 1, layout.header_parity_offset):
        zone[at] ^= 0x40
    # behind the valid bytes: the kernel does not look there
    zone[layout.parity_offset - 1] ^= 0xFF
    found = decode_panicdump_zone(bytes(zone), 16)
    assert found.zone.corrected_symbols == 5
    assert found.damages == ()
    assert [frame.data for frame in found.frames] == RECORDS


def test_a_block_beyond_repair_is_placed() -> None:
    zone = bytearray(encode_zone(FRAMES, SIZE, 16))
    at = 12 + 128 * 3
    zone[at : at + 20] = bytes(byte ^ 0xA5 for byte in zone[at : at + 20])
    found = decode_panicdump_zone(bytes(zone), 16)
    assert found.zone.bad_blocks == (at,)
    assert [frame.bad_blocks for frame in found.frames] == [(at,), (), ()]
    assert [d.offset for d in found.damages] == [at]
    states = [decode_record(frame.data).state for frame in found.frames]
    assert states == [RecordState.CORRUPT, RecordState.INTACT, RecordState.INTACT]


@given(st.integers(0, SIZE * 8 - 1))
@settings(max_examples=60, deadline=None)
def test_with_ecc_no_single_flipped_bit_matters(bit: int) -> None:
    found = decode_panicdump_zone(flipped(encode_zone(FRAMES, SIZE, 16), bit), 16)
    assert [frame.data for frame in found.frames] == RECORDS
    assert found.damages == ()


@given(st.integers(0, (12 + len(FRAMES)) * 8 - 1))
@settings(max_examples=300)
def test_without_ecc_no_single_flipped_bit_goes_unseen(bit: int) -> None:
    found = decode_panicdump_zone(flipped(encode_zone(FRAMES, SIZE), bit), 0)
    padded = sum(-len(record) % 8 for record in RECORDS)
    assert padded == 0, "padding between frames would be nobody's"
    states = [decode_record(frame.data).state for frame in found.frames]
    live = all(frame.state is FrameState.LIVE for frame in found.frames)
    assert found.damages or not live or states != [RecordState.INTACT] * 3


@given(st.binary(max_size=3000), st.sampled_from((0, 2, 16)), st.integers(0, 4000))
@settings(deadline=None)
def test_random_zones_never_crash(noise: bytes, ecc: int, size: int) -> None:
    head = struct.pack("<3I", PANICDUMP_SIGNATURE, 0, size)
    found = decode_panicdump_zone(head + noise + b"PDDF" + bytes(300), ecc)
    assert sum(len(frame.data) for frame in found.frames) <= len(noise) + 400


@given(st.lists(st.integers(0, 40), max_size=30), st.binary(max_size=64), st.data())
def test_random_frames_never_overlap(sizes: list[int], noise: bytes, data: st.DataObject) -> None:
    area = bytearray(encode_frames([bytes(size) for size in sizes]) + noise)
    for _ in range(data.draw(st.integers(0, 5))):
        if area:
            area[data.draw(st.integers(0, len(area) - 1))] ^= data.draw(st.integers(1, 255))
    valid = data.draw(st.integers(0, len(area)))
    found = decode_panicdump_zone(encode_zone(bytes(area), 4096, size=valid), 0)
    at = 12
    for frame in found.frames:
        assert frame.offset >= at
        at = frame.data_offset + len(frame.data)
    assert at <= 4096


def test_a_circular_zone_is_put_in_order() -> None:
    zone = encode_zone(b"second first ", 64, signature=0x43474244, start=7)
    assert decode_zone(zone, 0, 0x43474244).contents == b"first second "


def test_a_kernel_log_zone() -> None:
    body = b"Panic#1 Part1\n<6>[    1.0] hello\n" * 20
    plain = decode_dmesg(b"====1700000000.000123-D\n" + body)
    assert plain is not None
    assert (plain.time_s, plain.time_us, plain.compressed, plain.text) == (
        1700000000,
        123,
        False,
        body,
    )
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(body) + packer.flush()
    unpacked = decode_dmesg(b"====1.000000-C\n" + packed)
    assert unpacked is not None
    assert (unpacked.complete, unpacked.text) == (True, body)
    cut = decode_dmesg(b"====1.000000-C\n" + packed[:-8])
    assert cut is not None
    assert not cut.complete
    assert decode_dmesg(b"no header\n" + body) is None


def test_a_compressed_log_cannot_fill_memory() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush()
    unpacked = decode_dmesg(b"====1.000000-C\n" + bomb)
    assert unpacked is not None
    assert not unpacked.complete
    assert len(unpacked.text) == 4 << 20


@given(st.binary(max_size=500))
def test_random_compressed_logs_never_crash(noise: bytes) -> None:
    assert decode_dmesg(b"====1.000000-C\n" + noise) is not None


def test_frames_hold_records_or_not() -> None:
    found = decode_panicdump_zone(encode_zone(encode_frames([b"no record"]), 4096), 0)
    with pytest.raises(FormatError):
        decode_record(found.frames[0].data)
