"""Translation of a kernel's virtual addresses by its page tables, arm64.

Source: Arm Architecture Reference Manual, D8 (VMSAv8-64 address translation, descriptor formats);
Documentation/arch/arm64/memory.rst of Linux 6.12.
Left out: user addresses, tables whose descriptors are big-endian, 128-bit descriptors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Arm64Tables", "Arm64Translation"]

_VALID, _TABLE = 1, 2
_ALL = 64


@dataclass(frozen=True, slots=True)
class Arm64Tables:
    """Where a kernel's tables begin, and their geometry; `va_bits` is what the processor uses."""

    root_pa: int
    page_size: int
    va_bits: int


class Arm64Translation:
    """Translates by tables in memory; `read_word` gives the 64 bits at a physical address, or None.

    Work per address is bounded by the number of levels: a table that points to itself ends too.
    """

    def __init__(self, tables: Arm64Tables, read_word: Callable[[int], int | None]) -> None:
        self._tables = tables
        self._read_word = read_word
        self._page_bits = tables.page_size.bit_length() - 1
        self._level_bits = self._page_bits - 3
        # 52 bits of physical address: with pages of 64 KiB in the low bits of the descriptor, with
        # smaller ones only if virtual addresses have more than 48 bits, and then elsewhere.
        self._wide = tables.va_bits > 48 and tables.page_size < 65536

    def translate(self, va: int) -> int | None:
        """Physical address of a virtual one; None where nothing is mapped or a table is missing."""
        bits = self._tables.va_bits
        if va >> bits != (1 << _ALL - bits) - 1:
            return None
        offset_bits = bits
        levels = -(-(bits - self._page_bits) // self._level_bits)
        table = self._tables.root_pa
        for level in range(levels - 1, -1, -1):
            low = self._page_bits + level * self._level_bits
            index = (va & (1 << offset_bits) - 1) >> low
            descriptor = self._read_word(table + 8 * index)
            if descriptor is None or not descriptor & _VALID:
                return None
            address = self._address(descriptor)
            # At the last level both bits are set for a page; above, a block lacks the second.
            if level == 0:
                is_page = bool(descriptor & _TABLE)
                return address | va & self._tables.page_size - 1 if is_page else None
            if not descriptor & _TABLE:
                return address & -(1 << low) | va & (1 << low) - 1
            table = address
            offset_bits = low
        return None

    def _address(self, descriptor: int) -> int:
        top = 50 if self._wide else 48
        address = descriptor & (1 << top) - 1 & -self._tables.page_size
        if self._wide:
            address |= (descriptor >> 8 & 3) << 50
        elif self._tables.page_size == 65536:
            address |= (descriptor >> 12 & 0xF) << 48
        return address
