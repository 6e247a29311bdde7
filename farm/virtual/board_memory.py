"""What the chip can read of its own memory while no kernel runs."""

from __future__ import annotations

import os
from pathlib import Path

from farm.virtual.devicetree import RAM_BASE_PADDR

SRAM_BASE_PADDR = 0x0146_0000
SRAM_SIZE_BYTES = 0x8000


class BoardMemory:
    """The DRAM file by physical address, plus a small SRAM; holes are read without filling them."""

    def __init__(self, dram: Path, size_bytes: int) -> None:
        self._size = size_bytes
        self._file = os.open(dram, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def spans(self) -> list[tuple[int, int, str, str]]:
        """What crash mode offers: the DRAM in rank-sized pieces, and the SRAM."""
        spans = []
        rank = 2 << 30
        for number, at in enumerate(range(0, self._size, rank)):
            length = min(rank, self._size - at)
            spans.append(
                (RAM_BASE_PADDR + at, length, f"DDR CS{number} part 1", f"DDRCS{number}_0.BIN")
            )
        spans.append((SRAM_BASE_PADDR, SRAM_SIZE_BYTES, "OCIMEM", "OCIMEM.BIN"))
        return spans

    def read(self, address: int, length: int) -> bytes | None:
        """So many bytes, None where nothing is."""
        offset = address - RAM_BASE_PADDR
        if offset >= 0 and offset + length <= self._size:
            data = os.pread(self._file, length, offset)
            return data.ljust(length, b"\0")
        offset = address - SRAM_BASE_PADDR
        if offset >= 0 and offset + length <= SRAM_SIZE_BYTES:
            return bytes((at * 7 + 3) & 0xFF for at in range(offset, offset + length))
        return None
