"""The Reed-Solomon code of ramoops."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reedsolo import ReedSolomonError, RSCodec

from farm.errors import UsageError
from farm.formats.ecc import BLOCK_BYTES, correct, damaged_blocks, parity, solve

DATA = bytes(index * 7 % 256 for index in range(1000))
EXPONENTS = [1]
while len(EXPONENTS) < 255:
    EXPONENTS.append(EXPONENTS[-1] << 1 ^ (0x11D if EXPONENTS[-1] & 0x80 else 0))
LOGARITHMS = {value: power for power, value in enumerate(EXPONENTS)}


def syndromes(word: bytes, ecc_bytes: int) -> list[int]:
    """The word as a polynomial, at the roots alpha^0 ... alpha^(e-1): the code's definition."""
    found = []
    for root in range(ecc_bytes):
        value = 0
        for byte in word:
            value = (EXPONENTS[(LOGARITHMS[value] + root) % 255] if value else 0) ^ byte
        found.append(value)
    return found


@pytest.mark.parametrize("ecc_bytes", [1, 2, 15, 16, 32, 127])
def test_parity_makes_every_syndrome_zero(ecc_bytes: int) -> None:
    stored = parity(DATA, ecc_bytes)
    assert len(stored) == 8 * ecc_bytes
    for number in range(8):
        block = DATA[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
        word = block + stored[number * ecc_bytes : (number + 1) * ecc_bytes]
        assert syndromes(word, ecc_bytes) == [0] * ecc_bytes


@given(st.binary(max_size=700), st.sampled_from((2, 4, 16)), st.data())
@settings(max_examples=60, deadline=None)
def test_up_to_half_the_parity_is_corrected_and_counted(
    data: bytes, ecc_bytes: int, draw: st.DataObject
) -> None:
    stored = bytearray(parity(data, ecc_bytes))
    broken = bytearray(data)
    expected = 0
    for number in range(-(-len(data) // BLOCK_BYTES)):
        length = min(BLOCK_BYTES, len(data) - number * BLOCK_BYTES)
        places = draw.draw(st.sets(st.integers(0, length + ecc_bytes - 1), max_size=ecc_bytes // 2))
        for place in places:
            if place < length:
                broken[number * BLOCK_BYTES + place] ^= draw.draw(st.integers(1, 255))
            else:
                stored[number * ecc_bytes + place - length] ^= draw.draw(st.integers(1, 255))
        expected += len(places)
    fixed = correct(bytes(broken), bytes(stored), ecc_bytes)
    assert fixed.data == data
    assert fixed.symbols == expected
    assert fixed.uncorrectable == ()


def test_a_block_beyond_repair_is_named_and_left_alone() -> None:
    broken = bytearray(DATA)
    for at in range(256, 280):
        broken[at] ^= 0x55
    broken[5] ^= 1
    fixed = correct(bytes(broken), parity(DATA, 16), 16)
    assert fixed.uncorrectable == (256,)
    assert fixed.symbols == 1
    assert fixed.data[:256] == DATA[:256]
    assert fixed.data[256:280] == broken[256:280]
    assert damaged_blocks(bytes(broken), parity(DATA, 16), 16) == (0, 2)
    assert solve(bytes(broken), parity(DATA, 16), 16) == {0: (DATA[:128], 1), 2: None}


@pytest.mark.parametrize("ecc_bytes", [2, 8, 16, 32, 127])
def test_another_implementation_decides_the_same(ecc_bytes: int) -> None:
    """From no error to more than can be mended, in full and short blocks, parity included."""
    chance = random.Random(ecc_bytes)
    other = RSCodec(ecc_bytes, fcr=0, prim=0x11D, generator=2)
    data = bytearray(chance.randbytes(60 * BLOCK_BYTES + chance.randrange(1, BLOCK_BYTES)))
    stored = bytearray(parity(bytes(data), ecc_bytes))
    for number in range(61):
        length = min(BLOCK_BYTES, len(data) - number * BLOCK_BYTES)
        wanted = min(length + ecc_bytes, chance.randrange(ecc_bytes // 2 + 4))
        for place in chance.sample(range(length + ecc_bytes), wanted):
            if place < length:
                data[number * BLOCK_BYTES + place] ^= chance.randrange(1, 256)
            else:
                stored[number * ecc_bytes + place - length] ^= chance.randrange(1, 256)
    ours = solve(bytes(data), bytes(stored), ecc_bytes)
    refused = 0
    for number in range(61):
        word = bytes(data[number * BLOCK_BYTES :][:BLOCK_BYTES])
        word += bytes(stored[number * ecc_bytes :][:ecc_bytes])
        try:
            message, _, places = other.decode(word)
        except ReedSolomonError:
            refused += 1
            assert ours[number] is None
            continue
        assert ours.get(number) == ((bytes(message), len(places)) if places else None)
    assert refused


def test_nothing_is_in_order() -> None:
    assert parity(b"", 16) == b""
    assert correct(b"", b"", 16).data == b""


@pytest.mark.parametrize("ecc_bytes", [-1, 0, 128])
def test_codes_that_do_not_exist_are_refused(ecc_bytes: int) -> None:
    with pytest.raises(UsageError):
        parity(DATA, ecc_bytes)


def test_parity_of_the_wrong_length_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="bytes of parity"):
        damaged_blocks(DATA, bytes(16), 16)
