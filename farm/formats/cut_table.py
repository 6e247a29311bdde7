"""panicdump's table of regions, cut out of a dump of memory by its magic alone.

Source: Documentation/admin-guide/panicdump.rst, section 10. Finding it by its symbol or by
VMCOREINFO, and dumps that do not tell where memory begins, are farm.decode's business.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.memory_table import (
    ENTRY_BYTES,
    MAGIC,
    TABLE_BYTES,
    MemoryTable,
    MemoryTableEntry,
    decode_memory_entries,
    decode_memory_table,
)

__all__ = ["CutTable", "WholeTable", "cut_table", "decode_cut_table"]


@dataclass(frozen=True, slots=True)
class CutTable:
    """Head and entries, cut out of a dump one behind the other; ``paddr`` is the head's."""

    paddr: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WholeTable:
    """The whole table; ``torn`` counts entries that were being changed."""

    boot_id: str
    entries: tuple[MemoryTableEntry, ...]
    torn: int


def _head(data: bytes) -> MemoryTable:
    head = decode_memory_table(data)
    if head.entry_size_bytes != ENTRY_BYTES:
        raise FormatError(
            f"panicdump table: entries of {head.entry_size_bytes} bytes, expected {ENTRY_BYTES}",
            offset=20,
        )
    return head


def cut_table(file: int, base_paddr: int) -> CutTable | None:
    """Find the table in a dump of memory from ``base_paddr`` on, an open file's descriptor.

    A string of the same bytes, as in the kernel's code, is no table; None when there is none.
    """
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as memory:
        at = -1
        while (at := memory.find(MAGIC, at + 1)) >= 0:
            try:
                head = _head(memory[at : at + TABLE_BYTES])
            except FormatError:
                continue
            begin = head.entries_pa - base_paddr
            size = head.nr_entries * ENTRY_BYTES
            if 0 <= begin <= len(memory) - size:
                data = memory[at : at + TABLE_BYTES] + memory[begin : begin + size]
                return CutTable(base_paddr + at, data)
    return None


def decode_cut_table(data: bytes) -> WholeTable:
    """Decode what `cut_table` gave; raises FormatError with the offset."""
    head = _head(data)
    if len(data) != TABLE_BYTES + head.nr_entries * ENTRY_BYTES:
        raise FormatError(f"{head.nr_entries} entries do not fit into {len(data)} bytes", offset=24)
    entries, _ = decode_memory_entries(data[TABLE_BYTES:], head)
    stable = tuple(entry for entry in entries if entry.stable)
    return WholeTable(head.boot_id, stable, len(entries) - len(stable))
