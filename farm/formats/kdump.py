"""Dumps in the format of kdump-compressed, and the flattened form in which they are sent.

Source: diskdump_mod.h and README of makedumpfile 1.7.2, docs/ of QEMU 7.2 (dump-guest-memory).
Left out: dumps that were split over several files; headers before version 4, which have no notes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.errors import FormatError
from farm.formats.layout import StructTable

__all__ = [
    "FLATTENED_MAGIC",
    "KDUMP_MAGIC",
    "KdumpFile",
    "flattened_pieces",
    "open_kdump",
]

KDUMP_MAGIC = b"KDUMP   "
FLATTENED_MAGIC = b"makedumpfile\0\0\0\0"
FLATTENED_HEADER_BYTES = 4096
_MAX_HEADER_BYTES = 1 << 24
_MAX_PAGES = 1 << 32

HEADER = StructTable(
    "kdump header",
    464,
    (
        (0, "8s", "magic"),
        (8, "i", "version"),
        (428, "i", "block_size"),
        (432, "i", "sub_header_blocks"),
        (436, "I", "bitmap_blocks"),
        (440, "I", "max_mapnr"),
        (460, "i", "nr_cpus"),
    ),
    magic=KDUMP_MAGIC,
)
SUB_HEADER = StructTable(
    "kdump sub header",
    104,
    (
        (0, "Q", "phys_base"),
        (12, "i", "split"),
        (32, "Q", "vmcoreinfo_at"),
        (40, "Q", "vmcoreinfo_bytes"),
        (48, "Q", "notes_at"),
        (56, "Q", "notes_bytes"),
        (96, "Q", "max_mapnr"),
    ),
)
PAGE = struct.Struct("<QIIQ")


# Bits in the flags of a page's descriptor.
_ZLIB, _LZO, _SNAPPY, _ZSTD = 1, 2, 4, 0x20


def _unpack(flags: int, data: bytes, page_size: int) -> bytes:
    """The bytes of a page; raises whatever the library raises for what it cannot unpack."""
    if flags & _ZLIB:
        return zlib.decompressobj().decompress(data, page_size + 1)
    # Loaded when a page needs them: every command begins with the imports of all formats.
    if flags & _LZO:
        from lzallright import LZOCompressor

        # What is made to become more than a page does so, up to 255 times its size.
        return LZOCompressor().decompress(data, page_size)
    if flags & (_SNAPPY | _ZSTD):
        from cramjam import snappy, zstd

        page = bytearray(page_size)
        into = snappy.decompress_raw_into if flags & _SNAPPY else zstd.decompress_into
        return bytes(page[: into(data, page)])
    return data


Read = Callable[[int, int], bytes]
"""Reads (offset, size) of the file; fewer bytes where it ends."""


@dataclass(frozen=True)
class KdumpFile:
    """A dump by pages: `runs` are (first page, number of pages) that it holds.

    `page_numbers` are those of the pages in the dump, ascending, in the order of their descriptors.
    """

    read: Read
    page_size: int
    page_numbers: npt.NDArray[np.int64]
    descriptors_at: int
    vmcoreinfo: bytes
    notes: bytes

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Pages that follow one another."""
        if not len(self.page_numbers):
            return ()
        breaks = np.flatnonzero(np.diff(self.page_numbers) != 1) + 1
        starts = np.concatenate([[0], breaks])
        ends = np.concatenate([breaks, [len(self.page_numbers)]])
        return tuple(
            (int(self.page_numbers[start]), int(end - start))
            for start, end in zip(starts, ends, strict=True)
        )

    def page(self, number: int) -> bytes | None:
        """A page by its number; None if the dump leaves it out.

        Raises FormatError, with the offset of the descriptor, for one that cannot be unpacked.
        """
        index = int(np.searchsorted(self.page_numbers, number))
        if index >= len(self.page_numbers) or self.page_numbers[index] != number:
            return None
        at = self.descriptors_at + index * PAGE.size
        raw = self.read(at, PAGE.size)
        if len(raw) < PAGE.size:
            raise FormatError(f"kdump: no descriptor of page {number:#x}", offset=at)
        offset, size, flags, _ = PAGE.unpack(raw)
        if size > self.page_size:
            raise FormatError(f"kdump: page {number:#x} takes {size} bytes", offset=at)
        data = self.read(offset, size)
        try:
            data = _unpack(flags, data, self.page_size)
        except Exception as error:  # each library has one of its own
            raise FormatError(f"kdump: page {number:#x}: {error}", offset=at) from None
        if len(data) != self.page_size:
            raise FormatError(f"kdump: page {number:#x} has {len(data)} bytes", offset=at)
        return data


def open_kdump(read: Read, size_bytes: int) -> KdumpFile:
    """Read the headers and the bitmap of a dump whose file has so many bytes.

    Memory is bounded by the size of the file.  Raises FormatError for what is no such dump.
    """
    head = HEADER.unpack(read(0, HEADER.size_bytes))
    if head.raw("magic") != KDUMP_MAGIC:
        raise FormatError("not a kdump-compressed dump", offset=0)
    block = head.number("block_size")
    if block not in (4096, 16384, 65536):
        raise FormatError(f"kdump: blocks of {block} bytes", offset=HEADER.offset_of("block_size"))
    version = head.number("version")
    if version < 4:
        raise FormatError(f"kdump: header version {version}, expected 4 or later", offset=8)
    sub_blocks, bitmap_blocks = head.number("sub_header_blocks"), head.number("bitmap_blocks")
    if not 1 <= sub_blocks <= _MAX_HEADER_BYTES // block:
        raise FormatError(f"kdump: a sub header of {sub_blocks} blocks", offset=432)
    sub = SUB_HEADER.unpack(read(block, SUB_HEADER.size_bytes))
    if sub.number("split"):
        raise FormatError(
            "kdump: the dump was split over several files",
            offset=block + SUB_HEADER.offset_of("split"),
            next_step="Put it together with `makedumpfile --reassemble`.",
        )
    bitmaps_at = (1 + sub_blocks) * block
    bitmap_bytes = bitmap_blocks // 2 * block
    if bitmaps_at + 2 * bitmap_bytes > size_bytes:
        raise FormatError("kdump: the bitmaps pass the end of the file", offset=436)
    max_page = head.number("max_mapnr") if version < 6 else sub.number("max_mapnr")
    if not 0 < max_page <= min(_MAX_PAGES, 8 * bitmap_bytes):
        raise FormatError(
            f"kdump: {max_page:#x} pages, the bitmap has {8 * bitmap_bytes:#x}", offset=440
        )
    bitmap = np.frombuffer(read(bitmaps_at + bitmap_bytes, bitmap_bytes), dtype=np.uint8)
    filled = np.flatnonzero(bitmap)
    bits = np.unpackbits(bitmap[filled, None], axis=1, bitorder="little")
    rows, columns = np.nonzero(bits)
    numbers = (filled[rows] * 8 + columns).astype(np.int64)
    descriptors_at = bitmaps_at + 2 * bitmap_bytes
    room = (size_bytes - descriptors_at) // PAGE.size
    numbers = numbers[numbers < max_page][: max(0, room)]

    def part(name: str) -> bytes:
        size = min(sub.number(f"{name}_bytes"), _MAX_HEADER_BYTES)
        return read(sub.number(f"{name}_at"), size) if size else b""

    return KdumpFile(read, block, numbers, descriptors_at, part("vmcoreinfo"), part("notes"))


def flattened_pieces(read: Read, size_bytes: int) -> list[tuple[int, int, int]]:
    """The pieces of a flattened file: (offset in the dump, size, offset in the file), ascending.

    Raises FormatError when a piece passes the end of the file.
    """
    pieces = []
    at = FLATTENED_HEADER_BYTES
    while at + 16 <= size_bytes:
        offset, size = struct.unpack(">qq", read(at, 16))
        if offset == -1:
            break
        at += 16
        if offset < 0 or size <= 0 or at + size > size_bytes:
            raise FormatError(f"flattened dump: a piece of {size} bytes", offset=at - 16)
        pieces.append((offset, size, at))
        at += size
    pieces.sort()
    return pieces
