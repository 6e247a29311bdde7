"""The Reed-Solomon code that ramoops puts over a zone, by blocks of 128 bytes.

Source: persistent_ram_init_ecc() and persistent_ram_ecc_old() in fs/pstore/ram_core.c of Linux
6.12 with lib/reed_solomon: GF(256), polynomial 0x11d, first consecutive root 0, primitive element
1, as many roots as parity bytes.  A shorter last block is a shortened code word.
Left out: the block-size, symbol size and polynomial that platform data (not the device tree) can
set; erasures, which ramoops has none of.

What is corrected, what is refused and what is counted is as with decode_rs() there: a block is
refused when its error locator has not all its roots inside the block, or when the errors found do
not explain the syndrome; parity bytes that were wrong are counted, errors of value zero are not.
All blocks are worked on at once: a zone that is damaged everywhere takes no more than tens of
milliseconds for a mebibyte.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.errors import UsageError

__all__ = [
    "BLOCK_BYTES",
    "MAX_ECC_BYTES",
    "Corrected",
    "correct",
    "damaged_blocks",
    "parity",
    "parity_of_one",
    "solve",
]

BLOCK_BYTES = 128
POLYNOMIAL = 0x11D
ORDER = 255
MAX_ECC_BYTES = ORDER - BLOCK_BYTES
# Blocks worked on at a time: the tables of one step then stay in the processor's cache.
_BLOCKS_AT_ONCE = 512
_SOLVED_AT_ONCE = 2048

Bytes2D = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Corrected:
    """`data` as corrected; offsets are from its start, both tuples in ascending order.

    `corrected` holds (offset, symbols) of each block with errors that were mended; symbols are
    bytes, those of the parity included, as the kernel counts them.  `uncorrectable` holds the
    offsets of blocks beyond repair, which stay as they are.
    """

    data: bytes
    corrected: tuple[tuple[int, int], ...]
    uncorrectable: tuple[int, ...]

    @property
    def symbols(self) -> int:
        """The sum over all blocks."""
        return sum(count for _, count in self.corrected)


@functools.cache
def _field() -> tuple[Bytes2D, npt.NDArray[np.intp], Bytes2D]:
    """512 powers of the element 2, the logarithms (255 for 0), and the product table."""
    power = np.zeros(512, dtype=np.uint8)
    log = np.full(256, ORDER, dtype=np.intp)
    value = 1
    for exponent in range(ORDER):
        power[exponent] = power[exponent + ORDER] = value
        log[value] = exponent
        value = (value << 1) ^ (POLYNOMIAL if value & 0x80 else 0)
    product = power[np.minimum(log[:, None] + log[None, :], 511)]
    product[0] = product[:, 0] = 0
    return power, log, product


@dataclass(frozen=True, slots=True)
class _Code:
    """Tables of the code with `ecc_bytes` of parity.

    `lanes[j]` tells bytes 8j to 8j+7 of the parity that a byte of value v at place i of a full
    block adds, at index 256*i + v; `vandermonde[i, j]` is what byte i of the remainder adds to
    syndrome j, per unit.
    """

    ecc_bytes: int
    lanes: tuple[npt.NDArray[np.uint64], ...]
    vandermonde: Bytes2D


@functools.cache
def _feedback(ecc_bytes: int) -> Bytes2D:
    """Row b: what the shift register of the encoder takes in when b is fed back."""
    if not 1 <= ecc_bytes <= MAX_ECC_BYTES:
        raise UsageError(f"ECC of {ecc_bytes} bytes: possible are 1 to {MAX_ECC_BYTES}")
    power, _, product = _field()
    generator = np.ones(1, dtype=np.uint8)
    for root in range(ecc_bytes):
        longer = np.zeros(len(generator) + 1, dtype=np.uint8)
        longer[:-1] = generator
        longer[1:] ^= product[power[root], generator]
        generator = longer
    return product[:, generator[1:]]


def parity_of_one(block: bytes, ecc_bytes: int) -> bytes:
    """Parity of one block of at most 128 bytes, without the tables that many blocks are worth."""
    feedback = _feedback(ecc_bytes)
    register = np.zeros(ecc_bytes, dtype=np.uint8)
    for byte in block:
        taken = feedback[register[0] ^ byte]
        register[:-1] = register[1:]
        register[-1] = 0
        register = register ^ taken
    return register.tobytes()


@functools.cache
def _code(ecc_bytes: int) -> _Code:
    power, _, _ = _field()
    feedback = _feedback(ecc_bytes)
    padded = -(-ecc_bytes // 8) * 8
    table = np.zeros((BLOCK_BYTES, 256, padded), dtype=np.uint8)
    step = feedback.copy()
    for place in range(BLOCK_BYTES - 1, -1, -1):
        table[place, :, :ecc_bytes] = step
        taken = feedback[step[:, 0]]
        step[:, :-1] = step[:, 1:]
        step[:, -1] = 0
        step ^= taken
    lanes = table.reshape(-1, padded).view(np.uint64)
    exponents = np.outer(np.arange(ecc_bytes - 1, -1, -1), np.arange(ecc_bytes))
    return _Code(
        ecc_bytes,
        tuple(np.ascontiguousarray(lanes[:, lane]) for lane in range(padded // 8)),
        power[exponents % ORDER],
    )


_PLACES = 256 * np.arange(BLOCK_BYTES, dtype=np.intp)


def _parity_of_blocks(blocks: Bytes2D, code: _Code) -> Bytes2D:
    out = np.zeros((len(blocks), len(code.lanes)), dtype=np.uint64)
    for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
        some = slice(first, first + _BLOCKS_AT_ONCE)
        index = blocks[some] + _PLACES
        for number, lane in enumerate(code.lanes):
            np.bitwise_xor.reduce(lane.take(index), axis=1, out=out[some, number])
    return out.view(np.uint8)[:, : code.ecc_bytes]


def _as_blocks(data: bytes) -> Bytes2D:
    """The blocks as rows; a shorter last one is preceded by the zeros that it is short of."""
    flat = np.frombuffer(data, dtype=np.uint8)
    full = len(flat) // BLOCK_BYTES * BLOCK_BYTES
    blocks = flat[:full].reshape(-1, BLOCK_BYTES)
    if full == len(flat):
        return blocks
    last = np.zeros((1, BLOCK_BYTES), dtype=np.uint8)
    last[0, full - len(flat) :] = flat[full:]
    return np.concatenate([blocks, last])


def parity(data: bytes, ecc_bytes: int) -> bytes:
    """Parity of every block of `data`, one after another: ceil(len / 128) * ecc_bytes bytes.

    Raises UsageError when the code does not exist for so many bytes.
    """
    return _parity_of_blocks(_as_blocks(data), _code(ecc_bytes)).tobytes()


def _remainders(data: bytes, stored_parity: bytes, ecc_bytes: int) -> Bytes2D:
    """Stored parity minus computed, a row for each block: zero for a code word."""
    again = _parity_of_blocks(_as_blocks(data), _code(ecc_bytes))
    stored = np.frombuffer(stored_parity, dtype=np.uint8)
    if stored.size != again.size:
        raise ValueError(f"{len(stored_parity)} bytes of parity for {len(data)} of data")
    return again ^ stored.reshape(again.shape)


def damaged_blocks(data: bytes, stored_parity: bytes, ecc_bytes: int) -> tuple[int, ...]:
    """Numbers of the blocks whose parity differs from `stored_parity`, ascending."""
    wrong = _remainders(data, stored_parity, ecc_bytes).any(axis=1)
    return tuple(int(number) for number in np.flatnonzero(wrong))


def solve(data: bytes, stored_parity: bytes, ecc_bytes: int) -> dict[int, tuple[bytes, int] | None]:
    """What decoding makes of each block that is no code word, by the block's number.

    The value is the corrected block with the number of symbols, or None for one beyond repair.
    """
    code = _code(ecc_bytes)
    rest = _remainders(data, stored_parity, ecc_bytes)
    wrong = np.flatnonzero(rest.any(axis=1))
    found: dict[int, tuple[bytes, int] | None] = dict.fromkeys((int(n) for n in wrong), None)
    blocks = _as_blocks(data)
    short = len(blocks) * BLOCK_BYTES - len(data)
    last = len(blocks) - 1 if short else -1
    whole = wrong[wrong != last]
    for first in range(0, len(whole), _SOLVED_AT_ONCE):
        some = whole[first : first + _SOLVED_AT_ONCE]
        _solve_rows(code, blocks, some, rest, 0, found)
    if last in found:
        _solve_rows(code, blocks, np.array([last]), rest, short, found)
    return found


def _solve_rows(
    code: _Code,
    blocks: Bytes2D,
    numbers: Indices,
    rest: Bytes2D,
    short: int,
    found: dict[int, tuple[bytes, int] | None],
) -> None:
    """Enter into `found` the blocks of these numbers that can be corrected.

    `short` is how many bytes each of them lacks at its beginning.
    """
    _, _, product = _field()
    remainder = rest[numbers]
    syndrome = np.zeros_like(remainder)
    for place in range(code.ecc_bytes):
        syndrome ^= product[remainder[:, place, None], code.vandermonde[place]]
    locator, degree = _locators(syndrome)
    rows, places, values, good = _errors(syndrome, locator, degree, short)
    counts = np.bincount(rows, minlength=len(numbers))
    fixed = blocks[numbers]
    in_data = places < BLOCK_BYTES
    fixed[rows[in_data], places[in_data]] ^= values[in_data]
    for row in np.flatnonzero(good):
        found[int(numbers[row])] = (fixed[row, short:].tobytes(), int(counts[row]))


def _locators(syndrome: Bytes2D) -> tuple[Bytes2D, Indices]:
    """Error locators by Berlekamp-Massey, lowest coefficient first, and their degrees.

    Source: any text on BCH codes, for instance Blahut, Algebraic Codes for Data Transmission, 7.5;
    truncated to as many coefficients as there are syndromes and one, as in decode_rs().
    """
    power, log, product = _field()
    count, roots = syndrome.shape
    locator = np.zeros((count, roots + 1), dtype=np.uint8)
    locator[:, 0] = 1
    shifted = np.zeros_like(locator)
    shifted[:, 1] = 1
    length = np.zeros(count, dtype=np.intp)
    for step in range(1, roots + 1):
        terms = product[locator[:, :step], syndrome[:, step - 1 :: -1][:, :step]]
        discrepancy = np.bitwise_xor.reduce(terms, axis=1)
        longer = (discrepancy != 0) & (2 * length < step)
        inverse = power[(ORDER - log[discrepancy]) % ORDER]
        kept = np.where(longer[:, None], product[inverse[:, None], locator], shifted)
        locator = locator ^ product[discrepancy[:, None], shifted]
        length = np.where(longer, step - length, length)
        shifted = np.zeros_like(kept)
        shifted[:, 1:] = kept[:, :-1]
    degree = roots - np.argmax(locator[:, ::-1] != 0, axis=1)
    return locator, degree


def _errors(
    syndrome: Bytes2D, locator: Bytes2D, degree: Indices, short: int
) -> tuple[Indices, Indices, Bytes2D, npt.NDArray[np.bool_]]:
    """Row, place and value of each error of the rows that can be corrected, and which these are.

    Places count from the start of a full block, parity behind it.
    """
    power, log, product = _field()
    roots = syndrome.shape[1]
    places = np.arange(short, BLOCK_BYTES + roots)
    # A block with its parity ends with the power 0; the root for power p is the element's -p-th.
    exponents = (places - (BLOCK_BYTES + roots - 1)) % ORDER
    value = np.ones((len(syndrome), len(places)), dtype=np.uint8)
    for term in range(1, int(degree.max(initial=0)) + 1):
        value ^= product[locator[:, term, None], power[exponents * term % ORDER]]
    good = (degree > 0) & ((value == 0).sum(axis=1) == degree)
    rows, columns = np.nonzero((value == 0) & good[:, None])
    root = exponents[columns]

    evaluator = np.zeros(len(rows), dtype=np.uint8)
    slope = np.zeros(len(rows), dtype=np.uint8)
    for term in range(int(degree[good].max(initial=0))):
        terms = product[locator[:, : term + 1], syndrome[:, term::-1][:, : term + 1]]
        omega = np.bitwise_xor.reduce(terms, axis=1)
        omega[term >= degree] = 0
        evaluator ^= product[omega[rows], power[root * term % ORDER]]
        if term % 2 == 0:
            slope ^= product[locator[rows, term + 1], power[root * term % ORDER]]
    error = product[
        product[evaluator, power[(ORDER - root) % ORDER]], power[(ORDER - log[slope]) % ORDER]
    ]

    explained = np.zeros_like(syndrome)
    powers = (ORDER - root)[:, None] * np.arange(roots) % ORDER
    added = product[error[:, None], power[powers]]
    if len(rows):
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        explained[rows[starts]] = np.bitwise_xor.reduceat(added, starts, axis=0)
    good &= (explained == syndrome).all(axis=1)
    kept = good[rows] & (error != 0)
    return rows[kept], places[columns[kept]], error[kept], good


def correct(data: bytes, stored_parity: bytes, ecc_bytes: int) -> Corrected:
    """Check all blocks and correct those that need it; what is beyond repair stays as it is.

    Raises UsageError when the code does not exist for so many bytes of parity.
    """
    fixed = bytearray(data)
    corrected, uncorrectable = [], []
    for number, found in solve(data, stored_parity, ecc_bytes).items():
        at = number * BLOCK_BYTES
        if found is None:
            uncorrectable.append(at)
        else:
            block, symbols = found
            fixed[at : at + len(block)] = block
            corrected.append((at, symbols))
    return Corrected(bytes(fixed), tuple(corrected), tuple(uncorrectable))
