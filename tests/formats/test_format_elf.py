"""Reading ELF64 from hostile input, and pyelftools as the second reader."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import FormatError
from farm.formats.elf import SectionType, SegmentType, check_elf, parse_elf
from farm.formats.encode import encode_record
from tests.formats.format_samples import device_record

GOOD = encode_record(device_record())


def patched(at: int, code: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into("<" + code, data, at, value)
    return bytes(data)


def test_what_a_record_holds() -> None:
    image = parse_elf(GOOD)
    assert image.damages == ()
    assert (image.type, image.machine, image.end) == (4, 183, len(GOOD) - 16)
    assert [segment.type for segment in image.segments] == [SegmentType.NOTE] + [
        SegmentType.LOAD
    ] * 4
    assert [section.name for section in image.sections] == [
        "",
        ".note.panicdump",
        ".note.gnu.build-id",
        "buf0",
        "reg1",
        "spread regs",
        "cb3",
        "empty",
        "cut",
        ".shstrtab",
    ]
    assert image.sections[3].type is SectionType.PROGBITS
    assert [(note.name_raw, note.type) for note in image.notes] == [
        (b"PANICDUMP", 1),
        (b"PANICDUMP", 2),
        (b"GNU", 3),
    ]
    assert image.notes[1].desc == b"6.12.90\0"
    assert image.notes[0].end == image.notes[1].at
    assert check_elf(GOOD) == []


@pytest.mark.parametrize(
    ("at", "code", "value", "damage_at"),
    [
        (5, "B", 2, 5),
        (16, "H", 2, 16),
        (32, "Q", 2**63, 56),
        (40, "Q", 2**64 - 1, 60),
        (56, "H", 0xFFFF, 56),
        (60, "H", 0xFFFF, 60),
        (62, "H", 99, 62),
        (64, "I", 1, 32),
        (64 + 32, "Q", 2**40, 64 + 5 * 56),
        (64 + 5 * 56 + 4, "I", 0xFFFFFFFF, 64 + 5 * 56),
    ],
)
def test_damage_is_placed_and_the_rest_is_read(
    at: int, code: str, value: int, damage_at: int
) -> None:
    image = parse_elf(patched(at, code, value))
    assert damage_at in [damage.offset for damage in image.damages]


@pytest.mark.parametrize("length", [0, 4, 63])
def test_less_than_a_header_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        parse_elf(GOOD[:length])


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 8), st.integers(0, 2**64 - 1)), max_size=4),
    st.integers(64, len(GOOD)),
)
@settings(max_examples=200, deadline=None)
def test_hostile_headers_never_crash(lies: list[tuple[int, int]], length: int) -> None:
    data = bytearray(GOOD)
    for at, value in lies:
        struct.pack_into("<Q", data, at, value)
    image = parse_elf(bytes(data[:length]))
    assert len(image.segments) * 56 <= length
    assert len(image.sections) * 64 <= length


@pytest.mark.parametrize(
    ("at", "code", "value", "complaint"),
    [
        (16, "H", 2, "e_type is ET_EXEC"),
        (64 + 56 + 40, "Q", 1, "p_filesz > p_memsz"),
        (64 + 56 + 8, "Q", 1 << 40, "passes the end of the file"),
        (64, "I", 1, "0 note segments"),
    ],
)
def test_the_second_reader_complains(at: int, code: str, value: int, complaint: str) -> None:
    assert any(complaint in line for line in check_elf(patched(at, code, value)))


@pytest.mark.parametrize("data", [b"", b"not ELF", GOOD[:40]])
def test_the_second_reader_refuses_what_is_no_elf(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_elf(data)
