"""A record decodes to what went in; damage never passes for a good record."""

from __future__ import annotations

import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import FormatError
from farm.formats.elf import check_elf
from farm.formats.encode import NewRecord, NewRegion, encode_record
from farm.formats.record import (
    EccNotice,
    Form,
    RecordFlags,
    RecordKind,
    RecordState,
    RegionFlags,
    RegionKind,
    decode_record,
)
from tests.formats.format_samples import (
    BOOT_ID,
    contents_record,
    device_record,
    flipped,
    new_records,
)

FORMS = ("elf", "raw")
GOOD = {form: encode_record(device_record(), form) for form in FORMS}


def recommitted(data: bytes) -> bytes:
    """The same record with a commit mark that agrees with it."""
    body = data[:-16]
    return body + struct.pack("<2IQ", 0x4D434450, zlib.crc32(body), len(data))


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("form", FORMS)
def test_every_field_comes_back(form: str) -> None:
    record = decode_record(GOOD[form])
    assert record.damages == ()
    assert record.state is RecordState.INTACT
    assert record.form is Form(form)
    assert record.kind is RecordKind.DEVICE
    assert record.flags == RecordFlags.TRUNCATED
    assert record.boot_id == str(BOOT_ID)
    assert (record.sequence, record.device_id, record.index) == (7, 4, 2)
    assert (record.time_ns, record.uptime_ns) == (1_700_000_000_123_456_789, 12_345_678_901)
    assert (record.error, record.priority) == (-14, -5)
    assert (record.driver, record.device) == ("panicdump-sample", "panicdump-sample.3")
    assert record.data_size_bytes == 100 + 64 + 8 + 33 + 0 + 17
    assert record.record_size_bytes == len(GOOD[form])
    assert (record.trailing, record.notice) == (b"", None)
    assert [region.name for region in record.regions] == [
        "buf0",
        "reg1",
        "spread regs",
        "cb3",
        "empty",
        "cut",
    ]
    for region, new in zip(record.regions, device_record().regions, strict=True):
        assert region.data == new.data
        assert region.crc_ok
        assert (region.va, region.pa, region.error) == (new.va, new.pa, new.error)
        assert (region.width_bytes, region.stride_bytes) == (new.width_bytes, new.stride_bytes)
    kinds = [int(region.kind) for region in record.regions]
    assert kinds == [1, 2, 2, 3, 1, 1]
    assert record.regions[3].kind is RegionKind.CALLBACK
    assert record.regions[5].flags == RegionFlags.TRUNCATED
    assert record.regions[5].size_bytes == 4096


def test_the_elf_form_names_release_build_and_machine() -> None:
    record = decode_record(GOOD["elf"])
    assert record.release == "6.12.90"
    assert record.build_id == bytes(range(20)).hex()
    assert record.machine == 183
    without = decode_record(encode_record(device_record(), build_id=None))
    assert (without.state, without.build_id) == (RecordState.INTACT, None)


def test_header_offsets_are_those_of_the_specification() -> None:
    raw = GOOD["raw"]
    assert raw[:8] == b"PANICDMP"
    assert struct.unpack_from("<4H", raw, 8) == (1, 192, 96, 6)
    assert raw[24:40] == BOOT_ID.bytes
    assert raw[80:96] == b"panicdump-sample"
    assert struct.unpack_from("<Q", raw, 184) == (len(raw),)
    assert raw[192:196] == b"buf0"
    assert raw[-16:-12] == b"PDCM"
    elf = GOOD["elf"]
    # four segments: the notes, buf0, reg1, and the two further buffers
    assert elf[64 + 5 * 56 :][12:21] == b"PANICDUMP"
    assert elf[64 + 5 * 56 :][24:32] == b"PANICDMP"


@pytest.mark.parametrize("build_id", [None, bytes(20)])
@pytest.mark.parametrize(
    "record", [device_record(), contents_record(), NewRecord(driver="", device="")]
)
def test_readelf_and_pyelftools_have_no_complaint(
    record: NewRecord, build_id: bytes | None, tmp_path: Path
) -> None:
    data = encode_record(record, build_id=build_id)
    assert decode_record(data).damages == ()
    assert check_elf(data) == []
    path = tmp_path / "record.elf"
    path.write_bytes(data)
    done = subprocess.run(
        ["readelf", "-a", "-W", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for word in ("warning", "error", "corrupt", "unable"):
        assert word not in done.stdout.lower().replace("unknown note", "")
    assert ".note.panicdump" in done.stdout
    assert "CORE (Core file)" in done.stdout
    for region in record.regions:
        assert str(region.name) in done.stdout


PRSTATUS = NewRegion(name="CORE", data=bytes(range(99)), kind=4, note_type=1, size_bytes=392)
MIXED = NewRecord(
    driver="cpu",
    device="cpu",
    regions=(
        NewRegion(name="stack", data=b"s" * 12, va=0xFFFF_8000_0123_0000, pa=0x4123_0000),
        PRSTATUS,
        NewRegion(name="LINUX", data=b"sve", kind=4, note_type=0x405),
        NewRegion(name="cb3", data=b"c" * 5, kind=3),
    ),
)


@pytest.mark.parametrize("form", FORMS)
def test_notes_between_other_regions_come_back(form: str) -> None:
    record = decode_record(encode_record(MIXED, form))
    assert record.damages == ()
    assert record.state is RecordState.INTACT
    assert [one.data for one in record.regions] == [one.data for one in MIXED.regions]
    assert [one.kind.name for one in record.regions] == ["BUFFER", "NOTE", "NOTE", "CALLBACK"]
    assert [one.note_type for one in record.regions] == [0, 1, 0x405, 0]
    assert [one.offset % 8 for one in record.regions if one.kind.name != "NOTE"] == [0, 0]


def test_other_readers_find_the_notes(tmp_path: Path) -> None:
    data = encode_record(MIXED)
    assert check_elf(data) == []
    path = tmp_path / "record.elf"
    path.write_bytes(data)
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        (segment,) = [one for one in elf.iter_segments() if isinstance(one, NoteSegment)]
        notes = [(one["n_name"], one["n_descsz"]) for one in segment.iter_notes()]
        names = [one.name for one in elf.iter_sections()]
    assert notes[3:] == [("CORE", 99), ("LINUX", 3)]
    assert names[3:] == ["stack", ".note.CORE", ".note.LINUX", "cb3", ".shstrtab"]


def test_a_note_s_section_that_is_elsewhere_is_corrupt() -> None:
    elf = bytearray(encode_record(MIXED))
    headers = struct.unpack_from("<Q", elf, 40)[0]
    # Section 0 is null, the notes' own and the build id follow, then one for each region.
    struct.pack_into("<Q", elf, headers + 64 * 4 + 24, 0x40)
    record = decode_record(recommitted(bytes(elf)))
    assert record.state is RecordState.CORRUPT
    assert [one.what for one in record.damages] == ["the section differs from region 'CORE'"]


@given(new_records(), st.sampled_from(FORMS))
def test_what_is_encoded_is_decoded(new: NewRecord, form: str) -> None:
    record = decode_record(encode_record(new, form))
    assert record.damages == ()
    assert record.state is RecordState.INTACT
    assert record.boot_id == str(new.boot_id)
    assert [r.data for r in record.regions] == [r.data for r in new.regions]
    assert [r.name_raw for r in record.regions] == [
        bytes(r.name[:32]).ljust(32, b"\0") for r in new.regions if isinstance(r.name, bytes)
    ]
    assert record.driver.isprintable()
    assert all(region.name.isprintable() for region in record.regions)


@pytest.mark.parametrize("form", FORMS)
def test_no_single_flipped_bit_passes_as_intact(form: str) -> None:
    small = encode_record(
        replace(device_record(), regions=device_record().regions[:2]), form, release="6.12"
    )
    for bit in range(len(small) * 8):
        try:
            record = decode_record(flipped(small, bit))
        except FormatError:
            continue
        assert record.state is not RecordState.INTACT, f"bit {bit}"
        assert record.damages, f"bit {bit}"


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_costs_no_more_than_its_own_region(form: str) -> None:
    """Whatever one bit does outside a region, the others' data is still there and proven."""
    good = decode_record(GOOD[form])
    starts = [region.offset for region in good.regions]
    for bit in range(starts[0] * 8, (len(GOOD[form]) - 16) * 8, 3):
        record = decode_record(flipped(GOOD[form], bit))
        assert record.state is RecordState.CORRUPT
        for before, after in zip(good.regions, record.regions, strict=True):
            hit = before.offset <= bit // 8 < before.offset + before.saved_bytes
            assert after.crc_ok is not hit
            if hit:
                assert any(d.offset == before.offset for d in record.damages)


@given(st.sampled_from(FORMS), st.data())
@settings(max_examples=300)
def test_a_cut_record_is_torn(form: str, data: st.DataObject) -> None:
    whole = GOOD[form]
    length = data.draw(st.integers(0, len(whole) - 1))
    header = decode_record(whole).header_offset
    if length < header + 192:
        with pytest.raises(FormatError):
            decode_record(whole[:length])
        return
    record = decode_record(whole[:length])
    assert record.state is RecordState.TORN
    assert record.damages
    for region, new in zip(record.regions, device_record().regions, strict=False):
        assert new.data.startswith(region.data)


@given(st.binary(max_size=2000), st.sampled_from((b"", b"PANICDMP", b"\x7fELF\x02\x01\x01")))
def test_random_bytes_end_in_an_answer_or_a_format_error(noise: bytes, magic: bytes) -> None:
    try:
        record = decode_record(magic + noise)
    except FormatError:
        return
    assert record.state is not RecordState.INTACT


@given(
    st.sampled_from(FORMS),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=8)), max_size=6),
)
@settings(max_examples=300)
def test_committed_lies_never_crash_and_never_allocate(
    form: str, lies: list[tuple[int, bytes]]
) -> None:
    data = GOOD[form]
    for at, lie in lies:
        data = with_bytes(data, at % (len(data) - 16), lie)[: len(GOOD[form])]
    try:
        record = decode_record(recommitted(data))
    except FormatError:
        return
    assert sum(len(region.data) for region in record.regions) <= len(data)


def test_many_regions_over_the_same_bytes_do_not_multiply_the_work() -> None:
    count = 60_000
    blob = bytes(1 << 20)
    begin = 192 + 96 * count
    one = struct.pack(
        "<32s5Q2I2Hi2I", b"x", 0, 0, 1 << 20, begin, len(blob), 1, 0, 0, 0, 0, zlib.crc32(blob), 0
    )
    head = bytearray(encode_record(NewRecord(driver="d", device="d"), "raw")[:192])
    struct.pack_into("<H", head, 14, count)
    struct.pack_into("<Q", head, 184, begin + len(blob) + 16)
    record = decode_record(recommitted(bytes(head) + one * count + blob + bytes(16)))
    assert record.state is RecordState.CORRUPT
    assert sum(len(region.data) for region in record.regions) <= begin + len(blob)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("text", "notice"),
    [
        (b"\nECC: No errors detected\n", EccNotice(0, 0)),
        (b"\nECC: 12 Corrected bytes, 3 unrecoverable blocks\n", EccNotice(12, 3)),
        (b"something else", None),
    ],
)
def test_what_follows_the_record_is_told_apart(
    form: str, text: bytes, notice: EccNotice | None
) -> None:
    record = decode_record(GOOD[form] + text)
    assert record.state is RecordState.INTACT
    assert (record.notice, record.trailing) == (notice, text)
    assert record.record_size_bytes == len(GOOD[form])


def test_a_torn_record_keeps_its_notice() -> None:
    record = decode_record(
        GOOD["raw"][:-40] + b"\nECC: 1 Corrected bytes, 0 unrecoverable blocks\n"
    )
    assert record.state is RecordState.TORN
    assert record.notice == EccNotice(1, 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_record_without_its_mark_is_torn(form: str) -> None:
    unmarked = GOOD[form][:-16] + bytes(16)
    record = decode_record(unmarked)
    assert record.state is RecordState.TORN
    assert all(region.crc_ok for region in record.regions)


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_size_in_header_or_mark(form: str) -> None:
    at = decode_record(GOOD[form]).header_offset + 184
    lied = with_bytes(GOOD[form], at, struct.pack("<Q", len(GOOD[form]) + 8))
    # the mark still stands at its own place: complete, but not as it was written
    assert decode_record(lied).state is RecordState.CORRUPT
    marked = with_bytes(GOOD[form], len(GOOD[form]) - 8, struct.pack("<Q", 99))
    assert decode_record(marked).state is RecordState.TORN


def test_another_version_is_refused_when_complete() -> None:
    for form in FORMS:
        at = decode_record(GOOD[form]).header_offset + 8
        other = recommitted(with_bytes(GOOD[form], at, b"\2\0"))
        with pytest.raises(FormatError) as caught:
            decode_record(other)
        assert caught.value.offset == at


def test_appended_header_and_descriptor_fields_are_ignored() -> None:
    raw = GOOD["raw"]
    count = 6
    body = bytearray(raw[:192]) + b"NEWFIELD"
    shift = 8 + 8 * count
    for index in range(count):
        descriptor = bytearray(raw[192 + 96 * index : 288 + 96 * index])
        (offset,) = struct.unpack_from("<Q", descriptor, 56)
        struct.pack_into("<Q", descriptor, 56, offset + shift)
        body += descriptor + b"newfield"
    body += raw[192 + 96 * count :]
    struct.pack_into("<2H", body, 10, 200, 104)
    struct.pack_into("<Q", body, 184, len(body))
    record = decode_record(recommitted(bytes(body)))
    assert record.state is RecordState.INTACT
    assert [r.data for r in record.regions] == [r.data for r in device_record().regions]


def test_a_region_crc_that_differs_under_a_good_mark_is_corrupt() -> None:
    new = NewRecord(driver="d", device="e", regions=(NewRegion(name="r", data=b"abc", crc=1),))
    for form in FORMS:
        record = decode_record(encode_record(new, form))
        assert record.state is RecordState.CORRUPT
        assert not record.regions[0].crc_ok
        assert [d.what for d in record.damages] == ["region 'r': CRC differs"]


def test_an_elf_wrapping_that_contradicts_the_descriptors_is_corrupt() -> None:
    elf = GOOD["elf"]
    first_load = 64 + 56
    wrong = recommitted(with_bytes(elf, first_load + 16, struct.pack("<Q", 0x1000)))
    record = decode_record(wrong)
    assert record.state is RecordState.CORRUPT
    assert [d.offset for d in record.damages] == [first_load]


@pytest.mark.parametrize("at", [0, 3, 4, 16, 40, 56])
def test_a_smashed_elf_header_does_not_hide_the_record(at: int) -> None:
    record = decode_record(with_bytes(GOOD["elf"], at, b"\xff" * 4))
    assert record.form is Form.ELF
    assert record.state is RecordState.CORRUPT
    assert all(region.crc_ok for region in record.regions)


@pytest.mark.parametrize(
    "data", [b"", b"PANICDMP", b"\x7fELF", b"Panic#1 Part1\n" * 30, bytes(5000)]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        decode_record(data)
    assert caught.value.offset == 0


def test_names_are_escaped() -> None:
    new = NewRecord(
        driver=b"\x1b[31m\\", device="[red]x\n", regions=(NewRegion(name="é", data=b""),)
    )
    for form in FORMS:
        record = decode_record(encode_record(new, form))
        assert record.state is RecordState.INTACT
        assert record.driver == "\\x1b[31m\\x5c"
        assert record.device == "[red]x\\x0a"
        assert record.regions[0].name == "\\xc3\\xa9"
