"""The table of the contents record."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import FormatError
from farm.formats.contents import OnOverflow, Outcome, RecordFormat, Walk, decode_contents
from farm.formats.encode import NewContentsEntry, encode_contents, encode_record
from farm.formats.record import RecordKind, decode_record
from tests.formats.format_samples import contents_record, names

DATA = contents_record().regions[0].data


def test_every_field_comes_back() -> None:
    record = decode_record(encode_record(contents_record()))
    assert record.kind is RecordKind.CONTENTS
    contents = decode_contents(record.regions[0].data)
    assert contents.damages == ()
    assert (contents.nr_devices, contents.nr_records) == (4, 2)
    assert contents.on_overflow is OnOverflow.SKIP
    assert contents.format is RecordFormat.ELF
    assert contents.walk is Walk.COMPLETE
    assert (contents.capacity_bytes, contents.used_bytes) == (65536, 2048)
    first, second, third = contents.entries
    assert (first.device_id, first.driver, first.device) == (
        1,
        "panicdump-sample",
        "panicdump-sample.0",
    )
    assert (first.outcome, first.index, first.needed_bytes, first.saved_bytes) == (
        Outcome.SAVED,
        1,
        600,
        584,
    )
    assert (second.outcome, second.index, second.needed_bytes) == (Outcome.OVERFLOW, None, 1 << 20)
    assert (third.outcome, third.index, third.error) == (Outcome.CALLBACK_FAILED, 2, -5)


def test_offsets_are_those_of_the_specification() -> None:
    assert struct.unpack_from("<4I2Q2I", DATA) == (128, 3, 4, 1, 65536, 2048, 0, 2)
    assert struct.unpack_from("<3Ii2Q", DATA, 64 + 128) == (4, 2, 0xFFFFFFFF, 0, 1 << 20, 0)
    assert DATA[64 + 128 + 32 :][:4] == b"uart"
    assert DATA[64 + 128 + 64 :][:8] == b"9000000."


def test_a_table_written_before_the_end_says_so() -> None:
    early = encode_contents([], walk=1)
    assert struct.unpack_from("<I", early, 40) == (1,)
    assert decode_contents(early).walk is Walk.CUT_SHORT
    assert [one.offset for one in decode_contents(encode_contents([], walk=7)).damages] == [40]


def test_a_longer_entry_of_a_later_kernel_is_read() -> None:
    longer = bytearray(DATA[:64])
    struct.pack_into("<I", longer, 0, 136)
    for at in range(64, len(DATA), 128):
        longer += DATA[at : at + 128] + b"newfield"
    assert decode_contents(bytes(longer)).entries == decode_contents(DATA).entries


def test_a_lying_count_is_cut_and_told() -> None:
    lying = bytearray(DATA)
    struct.pack_into("<I", lying, 4, 0xFFFFFFFF)
    contents = decode_contents(bytes(lying))
    assert len(contents.entries) == 3
    assert [damage.offset for damage in contents.damages] == [4, 4]


def test_values_without_a_meaning_are_named_in_hex() -> None:
    contents = decode_contents(
        encode_contents(
            [NewContentsEntry(device_id=1, driver="d", device="e", outcome=77)],
            on_overflow=9,
            form=8,
        )
    )
    assert contents.entries[0].outcome.name == "UNKNOWN_0x4d"
    assert [damage.offset for damage in contents.damages] == [12, 32, 68]


@pytest.mark.parametrize("data", [b"", DATA[:63], bytes(64), struct.pack("<I60x", 127)])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        decode_contents(data)
    assert caught.value.offset == 0


@given(st.binary(max_size=600), st.integers(128, 200))
def test_random_bytes_never_crash(noise: bytes, entry_size: int) -> None:
    contents = decode_contents(struct.pack("<I", entry_size) + noise + bytes(64))
    assert len(contents.entries) * 128 <= len(noise) + 68


@given(
    st.lists(
        st.builds(
            NewContentsEntry,
            device_id=st.integers(0, 2**32 - 1),
            driver=names,
            device=names,
            outcome=st.integers(0, 6),
            index=st.none() | st.integers(0, 2**32 - 2),
            error=st.integers(-4095, 0),
            needed_bytes=st.integers(0, 2**64 - 1),
        ),
        max_size=8,
    )
)
def test_what_is_encoded_is_decoded(entries: list[NewContentsEntry]) -> None:
    contents = decode_contents(encode_contents(entries))
    assert contents.damages == ()
    assert [
        (e.device_id, e.outcome, e.index, e.error, e.needed_bytes) for e in contents.entries
    ] == [(n.device_id, n.outcome, n.index, n.error, n.needed_bytes) for n in entries]
