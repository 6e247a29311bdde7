"""Finding a partition on a board's storage: the GPT, as read over Firehose.

Source: UEFI 2.10, 5.3. Left out: writing, hybrid MBRs, more than 1024 entries.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from farm.errors import FormatError, UsageError

_SIGNATURE = b"EFI PART"
_MOST_ENTRIES = 1024

ReadSectors = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Place:
    """Where a partition lies, in sectors; ``attributes`` as the GPT holds them."""

    name: str
    first: int
    sectors: int
    attributes: int


def read_partitions(read: ReadSectors, sector_bytes: int) -> tuple[Place, ...]:
    """All partitions of the primary table; raises FormatError with the offset on the disk."""
    head = read(1, 1)
    if head[:8] != _SIGNATURE:
        raise FormatError("there is no GPT in sector 1", offset=sector_bytes)
    size, checksum = struct.unpack_from("<2I", head, 12)
    if not 92 <= size <= sector_bytes:
        raise FormatError(f"the GPT's header has {size} bytes", offset=sector_bytes + 12)
    if zlib.crc32(head[:16] + bytes(4) + head[20:size]) != checksum:
        raise FormatError("the GPT's header fails its checksum", offset=sector_bytes + 16)
    at = struct.unpack_from("<Q", head, 72)[0]
    count, entry_bytes, table_sum = struct.unpack_from("<3I", head, 80)
    if count > _MOST_ENTRIES or entry_bytes < 128 or entry_bytes > 4096:
        raise FormatError(f"{count} entries of {entry_bytes} bytes", offset=sector_bytes + 80)
    table = read(at, -(-count * entry_bytes // sector_bytes))[: count * entry_bytes]
    if zlib.crc32(table) != table_sum:
        raise FormatError("the GPT's table fails its checksum", offset=at * sector_bytes)
    found = []
    for number in range(count):
        entry = table[number * entry_bytes :][:128]
        if entry[:16] == bytes(16):
            continue
        first, last, attributes = struct.unpack_from("<3Q", entry, 32)
        name = entry[56:128].decode("utf-16-le", "replace").split("\0", 1)[0]
        if last < first:
            raise FormatError(
                f"partition {name!r} ends before it begins",
                offset=at * sector_bytes + number * entry_bytes,
            )
        found.append(Place(name, first, last - first + 1, attributes))
    return tuple(found)


def find_partition(read: ReadSectors, sector_bytes: int, name: str) -> Place:
    """The partition called ``name``; raises UsageError that lists the names there are."""
    places = read_partitions(read, sector_bytes)
    for place in places:
        if place.name == name:
            return place
    names = ", ".join(ascii(place.name)[1:-1] for place in places)
    raise UsageError(f"there is no partition {name!r} on the board", f"There are: {names}.")
