"""The table of memory regions that crash mode offers.

Source: the entries that linux-msm/qdl and the ramdump tools read. 32-bit: u32 save_pref, base,
length, char description[20], file name[20]; 64-bit: u64 three times, same strings. Names come from
the board: they are shown, escaped, and a file's own name is made here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from farm.errors import FormatError

_NARROW = struct.Struct("<3I20s20s")
_WIDE = struct.Struct("<3Q20s20s")
TABLE_LIMIT_BYTES = 64 << 10
# No board has as much; a file could not hold what a 64-bit length can claim.
REGION_LIMIT_BYTES = 1 << 42
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class MemoryRegion:
    """One region: physical ``base`` and ``length_bytes``; names are escaped for showing."""

    index: int
    base: int
    length_bytes: int
    save: int
    description: str
    board_name: str

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.length_bytes

    @property
    def file_name(self) -> str:
        """A name for a file of ours: what is harmless of the board's name, behind a number."""
        harmless = _UNSAFE.sub("_", self.board_name).strip("._-")[:20]
        return f"{self.index:02d}-{harmless or 'region'}"


def _text(raw: bytes) -> str:
    return repr(raw.split(b"\0", 1)[0])[2:-1]


def parse_table(data: bytes, *, wide: bool) -> tuple[MemoryRegion, ...]:
    """The regions of a table, empty ones left out; raises FormatError with the offset."""
    entry = _WIDE if wide else _NARROW
    if len(data) % entry.size:
        raise FormatError(
            f"a region table of {len(data)} bytes has no whole number of {entry.size}-byte entries",
            offset=len(data) - len(data) % entry.size,
        )
    limit = 1 << (64 if wide else 32)
    regions = []
    for index, at in enumerate(range(0, len(data), entry.size)):
        save, base, length, description, name = entry.unpack_from(data, at)
        if base + length > limit:
            raise FormatError(
                f"region {index} reaches from {base:#x} over {length:#x} bytes past the end",
                offset=at,
            )
        if length > REGION_LIMIT_BYTES:
            raise FormatError(f"region {index} claims to have {length:#x} bytes", offset=at)
        if length:
            regions.append(MemoryRegion(index, base, length, save, _text(description), _text(name)))
    return tuple(regions)


def region_holding(
    regions: tuple[MemoryRegion, ...], address: int, length: int
) -> MemoryRegion | None:
    """The region that holds all of [address, address + length); None if none does."""
    for region in regions:
        if region.base <= address and address + length <= region.end:
            return region
    return None
