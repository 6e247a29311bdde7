"""panicdump's table of regions as it lies in memory, found in a dump by its magic.

Source: Documentation/admin-guide/panicdump.rst, section 10. Left out: finding it by its symbol or
by VMCOREINFO, which a dump of all of the memory does not need.
"""

from __future__ import annotations

import mmap
import struct
import uuid
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import printable

__all__ = ["CutTable", "MemoryRegion", "MemoryTable", "cut_table", "decode_memory_table"]

MAGIC = b"PANICDUMP-TABLE\0"
_HEADER = struct.Struct("<16sHHHHII16sQQ")
_ENTRY = struct.Struct("<IIQQQIIHHI32s64s32s16x")
_MOST_ENTRIES = 1 << 16
_KINDS = {1: "buffer", 2: "registers", 3: "callback", 4: "note"}


@dataclass(frozen=True, slots=True)
class CutTable:
    """Header and entries, cut out of a dump one behind the other; ``paddr`` is the header's."""

    paddr: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """One region that was registered when the memory was read; ``pa`` None where unknown."""

    device_id: int
    index: int
    driver: str
    device: str
    name: str
    kind: str
    va: int
    pa: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """The whole table; ``torn`` counts entries that were being changed."""

    boot_id: str
    regions: tuple[MemoryRegion, ...]
    torn: int


def _text(raw: bytes) -> str:
    return printable(raw.split(b"\0", 1)[0])


def _check(header: tuple[int, ...], offset: int) -> None:
    _, version, header_size, entry_size, _, nr_entries, max_entries = header[:7]
    if (version, header_size, entry_size) != (1, _HEADER.size, _ENTRY.size):
        raise FormatError(
            f"a panicdump table of version {version}, with {header_size} bytes of header "
            f"and {entry_size} of an entry",
            offset=offset,
        )
    if nr_entries > max_entries or max_entries > _MOST_ENTRIES:
        raise FormatError(f"a panicdump table with {nr_entries} entries", offset=offset)


def cut_table(file: int, base_paddr: int) -> CutTable | None:
    """Find the table in a dump of memory from ``base_paddr`` on, an open file's descriptor.

    A string of the same bytes, as in the kernel's code, is no table; None when there is none.
    """
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as memory:
        at = -1
        while (at := memory.find(MAGIC, at + 1)) >= 0:
            if at + _HEADER.size > len(memory):
                break
            header = _HEADER.unpack_from(memory, at)
            try:
                _check(header, at)
            except FormatError:
                continue
            begin = header[9] - base_paddr
            size = header[5] * _ENTRY.size
            if 0 <= begin <= len(memory) - size:
                data = memory[at : at + _HEADER.size] + memory[begin : begin + size]
                return CutTable(base_paddr + at, data)
    return None


def decode_memory_table(data: bytes) -> MemoryTable:
    """Decode what `cut_table` gave; raises FormatError with the offset."""
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise FormatError("no panicdump table: its magic is not there", offset=0)
    header = _HEADER.unpack_from(data)
    _check(header, 0)
    if len(data) != _HEADER.size + header[5] * _ENTRY.size:
        raise FormatError(f"{header[5]} entries do not fit into {len(data)} bytes", offset=24)
    regions, torn = [], 0
    for offset in range(_HEADER.size, len(data), _ENTRY.size):
        entry = _ENTRY.unpack_from(data, offset)
        if entry[9] % 2:
            torn += 1
        elif entry[0]:
            regions.append(
                MemoryRegion(
                    device_id=entry[0],
                    index=entry[1],
                    driver=_text(entry[10]),
                    device=_text(entry[11]),
                    name=_text(entry[12]),
                    kind=_KINDS.get(entry[5], hex(entry[5])),
                    va=entry[2],
                    pa=None if entry[3] == (1 << 64) - 1 else entry[3],
                    size_bytes=entry[4],
                )
            )
    return MemoryTable(str(uuid.UUID(bytes=header[7])), tuple(regions), torn)
