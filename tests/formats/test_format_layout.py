"""Structures as tables of offsets, open enums, flags and safe text."""

from __future__ import annotations

import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import FormatError
from farm.formats.layout import OpenEnum, StructTable, flag_names, printable


class Colour(OpenEnum):
    RED = 1


class Bits(enum.IntFlag, boundary=enum.KEEP):
    LOW = 1
    HIGH = 4


def test_fields_lie_at_their_offsets() -> None:
    table = StructTable("thing", 12, ((1, "B", "one"), (4, "I", "four"), (8, "2s", "text")))
    values = table.unpack(b"\xff\x01\xff\xff\x04\x03\x02\x01ab\xff\xff")
    assert (values.number("one"), values.number("four")) == (1, 0x01020304)
    assert values.raw("text") == b"ab"
    assert table.offset_of("text") == 8
    assert table.fields == ("one", "four", "text")
    with pytest.raises(TypeError):
        values.number("text")
    with pytest.raises(TypeError):
        values.raw("one")


@pytest.mark.parametrize("offset", [-1, 1, 100])
def test_an_input_that_ends_inside_is_refused_with_the_offset(offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        StructTable("thing", 4, ((0, "I", "value"),)).unpack(b"four", offset)
    assert caught.value.offset == offset


def test_a_table_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="overlaps"):
        StructTable("thing", 8, ((0, "I", "a"), (2, "I", "b")))
    with pytest.raises(ValueError, match="need 8"):
        StructTable("thing", 7, ((0, "Q", "a"),))


def test_unknown_values_are_named_in_hex_and_do_not_grow_the_enum() -> None:
    assert Colour(1).known
    assert not Colour(99).known
    assert Colour(99).name == "UNKNOWN_0x63"
    assert list(Colour) == [Colour.RED]


def test_flags_are_named_bit_by_bit() -> None:
    assert flag_names(Bits(0)) == ()
    assert flag_names(Bits(7)) == ("LOW", "UNKNOWN_0x2", "HIGH")


@given(st.binary(max_size=100))
def test_text_is_printable_ascii_and_tells_the_bytes_apart(raw: bytes) -> None:
    shown = printable(raw)
    assert shown.isascii()
    assert shown == "" or shown.isprintable()
    assert shown.encode().decode("unicode_escape").encode("latin-1") == raw.split(b"\0", 1)[0]
