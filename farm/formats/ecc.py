"""The Reed-Solomon code that ramoops puts over a zone, by blocks of 128 bytes.

Source: persistent_ram_init_ecc() and persistent_ram_ecc_old() in fs/pstore/ram_core.c of Linux
6.12 with lib/reed_solomon: GF(256), polynomial 0x11d, first consecutive root 0, primitive element
1, as many roots as parity bytes.  A shorter last block is a shortened code word.
Left out: the block-size, symbol size and polynomial that platform data (not the device tree) can
set.

All blocks are checked at once by computing their parity again with numpy: a code word has a
syndrome other than zero exactly when its parity differs.  Only blocks that fail go to reedsolo.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from reedsolo import ReedSolomonError, RSCodec

from farm.errors import UsageError

__all__ = ["BLOCK_BYTES", "Corrected", "correct", "correct_block", "damaged_blocks", "parity"]

BLOCK_BYTES = 128
POLYNOMIAL = 0x11D
MAX_ECC_BYTES = 255 - BLOCK_BYTES

Bytes2D = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Corrected:
    """`data` as corrected; `uncorrectable` holds the offsets, in data, of blocks beyond repair.

    `symbols` counts corrected bytes, those of the parity included, as the kernel does.
    """

    data: bytes
    symbols: int
    uncorrectable: tuple[int, ...]


@functools.cache
def _codec(ecc_bytes: int) -> RSCodec:
    if not 1 <= ecc_bytes <= MAX_ECC_BYTES:
        raise UsageError(f"ECC of {ecc_bytes} bytes: possible are 1 to {MAX_ECC_BYTES}")
    return RSCodec(ecc_bytes, fcr=0, prim=POLYNOMIAL, generator=2)


@functools.cache
def _feedback(ecc_bytes: int) -> Bytes2D:
    """Row b: what the shift register takes in when b is fed back; shape (256, ecc_bytes)."""
    codec = _codec(ecc_bytes)
    # A message of the one byte b has just that as its parity.
    rows = [bytes(codec.encode(bytes((b,))))[1:] for b in range(256)]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(256, ecc_bytes)


def _parity_of_blocks(blocks: Bytes2D, ecc_bytes: int) -> Bytes2D:
    feedback = _feedback(ecc_bytes)
    register = np.zeros((len(blocks), ecc_bytes), dtype=np.uint8)
    for column in blocks.T:
        taken = feedback[register[:, 0] ^ column]
        register[:, :-1] = register[:, 1:]
        register[:, -1] = 0
        register ^= taken
    return register


def parity(data: bytes, ecc_bytes: int) -> bytes:
    """Parity of every block of `data`, one after another: ceil(len / 128) * ecc_bytes bytes.

    Raises UsageError when the code does not exist for so many bytes.
    """
    full = len(data) // BLOCK_BYTES * BLOCK_BYTES
    blocks = np.frombuffer(data[:full], dtype=np.uint8).reshape(-1, BLOCK_BYTES)
    done = _parity_of_blocks(blocks, ecc_bytes).tobytes()
    if full == len(data):
        return done
    last = np.frombuffer(data[full:], dtype=np.uint8).reshape(1, -1)
    return done + _parity_of_blocks(last, ecc_bytes).tobytes()


def damaged_blocks(data: bytes, stored_parity: bytes, ecc_bytes: int) -> tuple[int, ...]:
    """Numbers of the blocks whose parity differs from `stored_parity`, ascending."""
    again = np.frombuffer(parity(data, ecc_bytes), dtype=np.uint8).reshape(-1, ecc_bytes)
    stored = np.frombuffer(stored_parity, dtype=np.uint8).reshape(-1, ecc_bytes)
    if stored.shape != again.shape:
        raise ValueError(f"{len(stored_parity)} bytes of parity for {len(data)} of data")
    return tuple(int(number) for number in np.flatnonzero((again != stored).any(axis=1)))


def correct_block(block: bytes, block_parity: bytes) -> tuple[bytes, int] | None:
    """Correct one block; returns it with the number of bytes corrected, None if beyond repair."""
    try:
        message, _, places = _codec(len(block_parity)).decode(block + block_parity)
    except ReedSolomonError:
        return None
    return bytes(message), len(places)


def correct(data: bytes, stored_parity: bytes, ecc_bytes: int) -> Corrected:
    """Check all blocks and correct those that need it; what is beyond repair stays as it is."""
    fixed = bytearray(data)
    symbols = 0
    uncorrectable = []
    for number in damaged_blocks(data, stored_parity, ecc_bytes):
        at = number * BLOCK_BYTES
        found = correct_block(
            data[at : at + BLOCK_BYTES],
            stored_parity[number * ecc_bytes : (number + 1) * ecc_bytes],
        )
        if found is None:
            uncorrectable.append(at)
        else:
            block, count = found
            fixed[at : at + len(block)] = block
            symbols += count
    return Corrected(bytes(fixed), symbols, tuple(uncorrectable))
