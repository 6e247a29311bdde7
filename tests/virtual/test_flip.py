from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from farm.errors import UsageError
from farm.virtual.devicetree import RAM_BASE_PADDR, RamoopsArea, Zone
from farm.virtual.flip import BitPlace, FlippedBit, FlipRequest, apply_flip, check_flip, parse_at
from farm.virtual.options import checked

SIZE = 1 << 16
BASE = RAM_BASE_PADDR + 0x4000
AREA = RamoopsArea(
    BASE, 0x3000, (Zone("dmesg-0", BASE, 0x1000, 16), Zone("panicdump", BASE + 0x1000, 0x2000, 16))
)
PANICDUMP = AREA.zones[1]


@pytest.fixture
def dram(tmp_path: Path) -> Path:
    file = tmp_path / "dram"
    file.write_bytes(bytes(range(256)) * (SIZE // 256))
    return file


def changed(before: bytes, after: bytes) -> set[FlippedBit]:
    return {
        FlippedBit(paddr=RAM_BASE_PADDR + offset, bit=bit)
        for offset, (old, new) in enumerate(zip(before, after, strict=True))
        for bit in range(8)
        if (old ^ new) >> bit & 1
    }


def test_it_flips_what_it_says_and_nothing_else(dram: Path) -> None:
    before = dram.read_bytes()
    flipped = apply_flip(dram, AREA, FlipRequest(bits=40, seed=1))
    assert len(flipped) == 40
    assert changed(before, dram.read_bytes()) == set(flipped)
    assert all(PANICDUMP.paddr <= bit.paddr < PANICDUMP.paddr + 0x2000 for bit in flipped)


def test_the_seed_decides(dram: Path) -> None:
    before = dram.read_bytes()
    first = apply_flip(dram, AREA, FlipRequest(bits=8, seed=5, region="ramoops"))
    second = apply_flip(dram, AREA, FlipRequest(bits=8, seed=5, region="ramoops"))
    assert first == second
    assert dram.read_bytes() == before
    assert apply_flip(dram, AREA, FlipRequest(bits=8, seed=6, region="ramoops")) != first


@pytest.mark.parametrize("bits", [1, 100, 1000])
def test_no_ecc_block_is_hit_more_often_than_asked(dram: Path, bits: int) -> None:
    flipped = apply_flip(dram, AREA, FlipRequest(bits=bits, seed=3, max_per_block=3))
    assert len(flipped) == bits
    block_of = {
        address: number
        for number, block in enumerate(PANICDUMP.ecc_blocks())
        for span in block
        for address in span
    }
    hits = Counter(block_of[paddr] for paddr in {bit.paddr for bit in flipped})
    assert max(hits.values()) <= 3


def test_used_only_spares_header_parity_and_what_is_free(dram: Path) -> None:
    with dram.open("r+b") as file:
        file.seek(PANICDUMP.paddr + 8 - RAM_BASE_PADDR)
        file.write((300).to_bytes(4, "little"))
    flipped = apply_flip(dram, AREA, FlipRequest(bits=300 * 8, seed=3, used_only=True))
    assert {bit.paddr for bit in flipped} == set(
        range(PANICDUMP.data_paddr, PANICDUMP.data_paddr + 300)
    )
    before = dram.read_bytes()
    with pytest.raises(UsageError, match="room for 2400 bits"):
        apply_flip(dram, AREA, FlipRequest(bits=2401, used_only=True))
    assert dram.read_bytes() == before


def test_places_may_be_addresses_or_offsets(dram: Path) -> None:
    request = FlipRequest(at=(parse_at(f"0x{RAM_BASE_PADDR:x}:7"), parse_at("+0x10:0")))
    assert apply_flip(dram, AREA, request) == [
        FlippedBit(paddr=RAM_BASE_PADDR, bit=7),
        FlippedBit(paddr=PANICDUMP.paddr + 0x10, bit=0),
    ]


def test_a_range_needs_no_ramoops(dram: Path) -> None:
    request = FlipRequest(bits=16, region=f"0x{RAM_BASE_PADDR:x}+2")
    check_flip(None, request, SIZE)
    assert len(apply_flip(dram, None, request)) == 16


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (FlipRequest(bits=1, region="attic"), "no such zone, only dmesg-0, panicdump"),
        (FlipRequest(bits=1, region="0x0+4"), "not in the board's DRAM"),
        (FlipRequest(bits=1, region="0x40000000+0"), "not panicdump, ramoops or PADDR"),
        (FlipRequest(bits=1, region=f"0x{RAM_BASE_PADDR:x}+0x10001"), "not in the board's DRAM"),
        (FlipRequest(at=(BitPlace(byte=3, bit=3),)), "not in the board's DRAM"),
    ],
)
def test_what_can_never_be_is_refused_when_armed(request_: FlipRequest, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_flip(AREA, request_, SIZE)


@pytest.mark.parametrize("text", ["", "12", "0x10:8", "x:1", "1:2:3", "-1:0"])
def test_a_place_is_a_byte_and_a_bit(text: str) -> None:
    with pytest.raises(UsageError, match="not BYTE:BIT"):
        parse_at(text)


def test_a_flip_of_nothing_is_an_error_of_the_user() -> None:
    with pytest.raises(UsageError, match="--bits N or --at"):
        checked(FlipRequest)
    with pytest.raises(UsageError, match="--max-per-block 0"):
        checked(FlipRequest, bits=1, max_per_block=0)
