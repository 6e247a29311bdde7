"""The sample devices' content, against the stream computed word by word."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from farm.formats.pattern import expected_bytes

MASK = 2**64 - 1


def word(seed: int, number: int) -> int:
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def test_the_first_words_are_those_of_splitmix64() -> None:
    """Seed 1234567 is the example of the published C program's users."""
    words = struct.unpack("<5Q", expected_bytes(1234567, 0, 0, 40))
    assert words == (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    )


@given(st.integers(0, MASK), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 300))
def test_words_devices_regions_and_cuts(nonce: int, device: int, region: int, size: int) -> None:
    seed = nonce ^ (device << 32 | region)
    whole = b"".join(struct.pack("<Q", word(seed, number)) for number in range(size // 8 + 1))
    assert expected_bytes(nonce, device, region, size) == whole[:size]


def test_the_largest_region() -> None:
    assert len(expected_bytes(MASK, 7, 2, 65536)) == 65536
