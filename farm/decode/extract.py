"""The registered regions out of a dump of memory, by physical address or through page tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from farm.decode.kernel import FoundTable, Kernel
from farm.decode.memory import Memory
from farm.formats.memory_table import MemoryTableEntry
from farm.formats.page_table import Arm64Translation
from farm.formats.record import RegionKind

__all__ = ["ExtractedRegion", "extract_regions"]


@dataclass(frozen=True, slots=True)
class ExtractedRegion:
    """A region and its bytes; `missing` are (offset, size) that the dump does not hold, as zeros.

    `how` tells the way: "physical address", "page tables", or why there are no bytes.
    """

    entry: MemoryTableEntry
    data: bytes | None
    missing: tuple[tuple[int, int], ...]
    how: str


def extract_regions(memory: Memory, kernel: Kernel, found: FoundTable) -> Iterator[ExtractedRegion]:
    """Read each region that has memory, in the table's order.

    No more is read in all than the dump has bytes: what a damaged table claims beyond that is said.
    """
    translation = kernel.translation(memory)
    left_bytes = memory.size_bytes
    for entry in found.entries:
        why = _no_memory(entry, memory)
        if not why and entry.size_bytes > left_bytes:
            why = f"claims {entry.size_bytes:#x} bytes, more than the dump has left"
        if why:
            yield ExtractedRegion(entry, None, (), why)
            continue
        left_bytes -= entry.size_bytes
        if entry.pa is not None:
            yield _by_address(memory, entry, entry.pa)
        elif translation is None:
            why = "not contiguous, and nothing tells where the kernel's page tables are"
            yield ExtractedRegion(entry, None, (), why)
        else:
            yield _through_tables(memory, entry, translation)


def _no_memory(entry: MemoryTableEntry, memory: Memory) -> str:
    if entry.kind is RegionKind.BUFFER:
        return "" if entry.va or entry.pa is not None else "its place is told in the panic only"
    if entry.kind is RegionKind.REGISTERS:
        # Some are memory all the same: of test devices, or of what another processor shares.
        there = entry.pa is not None and memory.read(entry.pa, 1) is not None
        return "" if there else "registers: not in memory"
    if entry.kind in (RegionKind.CALLBACK, RegionKind.NOTE):
        return "made by a callback in the panic: not in memory"
    return f"kind {int(entry.kind)} is unknown"


def _by_address(memory: Memory, entry: MemoryTableEntry, paddr: int) -> ExtractedRegion:
    data = bytearray(entry.size_bytes)
    missing = []
    for start, size, segment in memory.spans(paddr, entry.size_bytes):
        if segment is None:
            missing.append((start - paddr, size))
        else:
            at = segment.offset + start - (segment.paddr or 0)
            segment.source.read_into(at, memoryview(data)[start - paddr :][:size])
    return ExtractedRegion(entry, bytes(data), tuple(missing), "physical address")


def _through_tables(
    memory: Memory, entry: MemoryTableEntry, translation: Arm64Translation
) -> ExtractedRegion:
    data = bytearray()
    missing: list[tuple[int, int]] = []
    while len(data) < entry.size_bytes:
        at = len(data)
        va = entry.va + at
        size = min(4096 - va % 4096, entry.size_bytes - at)
        paddr = translation.translate(va)
        piece = None if paddr is None else memory.read(paddr, size)
        if piece is None:
            if missing and sum(missing[-1]) == at:
                missing[-1] = (missing[-1][0], missing[-1][1] + size)
            else:
                missing.append((at, size))
        data += piece or bytes(size)
    return ExtractedRegion(entry, bytes(data), tuple(missing), "page tables")
