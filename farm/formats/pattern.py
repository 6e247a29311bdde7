"""What the sample devices hold under a nonce: a splitmix64 stream per region.

Source: Documentation/admin-guide/panicdump.rst, section 11; the mixer is that of Steele, Lea and
Flood, "Fast splittable pseudorandom number generators" (2014), as in Vigna's splitmix64.c.
"""

from __future__ import annotations

import numpy as np

__all__ = ["expected_bytes"]

GOLDEN_GAMMA = 0x9E37_79B9_7F4A_7C15
MASK = 0xFFFF_FFFF_FFFF_FFFF


def expected_bytes(nonce: int, device_number: int, region_index: int, size_bytes: int) -> bytes:
    """Content of region `region_index` of device "panicdump-sample.<device_number>"."""
    seed = (nonce ^ (device_number << 32 | region_index)) & MASK
    count = (size_bytes + 7) // 8
    # Unsigned arrays wrap modulo 2^64, which is what the stream wants.
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    z ^= z >> np.uint64(31)
    return z.astype("<u8").tobytes()[:size_bytes]
