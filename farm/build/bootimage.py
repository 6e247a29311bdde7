"""An Android boot image, version 0 or 2: kernel, ramdisk and device tree for a bootloader.

Source: AOSP, system/tools/mkbootimg/include/bootimg/bootimg.h, and what Debian's mkbootimg 29 does.
Left out: second stage, recovery DTBO, signatures.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import dataclass
from typing import Literal

PAGE_BYTES = 4096
_HEADER = struct.Struct("<8s10I16s512s32s1024sIQIIQ")
_CMDLINE_BYTES = 512


@dataclass(frozen=True)
class BootLayout:
    """What a bootloader expects of a boot image; offsets are from ``base``, the load address.

    ``dtb``: behind the kernel, as old bootloaders have it, or at its own place in header version 2.
    ``compress``: the kernel is gzipped, as a boot partition is small.
    """

    header_version: Literal[0, 2] = 2
    page_size: int = PAGE_BYTES
    base: int = 0x4000_0000
    kernel_offset: int = 0x0008_0000
    ramdisk_offset: int = 0x0400_0000
    tags_offset: int = 0x0000_0100
    dtb_offset: int = 0x0600_0000
    dtb: Literal["in header", "appended"] = "in header"
    compress: bool = False


def pack(
    kernel: bytes,
    ramdisk: bytes,
    dtb: bytes,
    cmdline: str = "",
    layout: BootLayout = BootLayout(),  # it is frozen
) -> bytes:
    """Return the image; ``cmdline`` of at most 511 bytes goes before what the tree says."""
    words = cmdline.encode()
    if len(words) >= _CMDLINE_BYTES:
        raise ValueError(f"a command line of {len(words)} bytes does not fit")
    if layout.compress:
        kernel = gzip.compress(kernel, compresslevel=9, mtime=0)
    if layout.dtb == "appended":
        kernel, dtb = kernel + dtb, b""
    elif layout.header_version < 2:
        raise ValueError(f"header version {layout.header_version} has no place for a DTB")
    second = layout.header_version == 2
    digest = hashlib.sha1(usedforsecurity=False)
    # Version 0 sums up kernel, ramdisk and second stage only.
    for part in (kernel, ramdisk, b"", b"", dtb) if second else (kernel, ramdisk, b""):
        digest.update(part)
        digest.update(struct.pack("<I", len(part)))
    base = layout.base
    header = _HEADER.pack(
        b"ANDROID!",
        *(len(kernel), base + layout.kernel_offset, len(ramdisk), base + layout.ramdisk_offset),
        *(0, 0, base + layout.tags_offset, layout.page_size, layout.header_version, 0),
        b"panicfarm",
        words,
        digest.digest(),
        b"",
        *((0, 0, _HEADER.size, len(dtb), base + layout.dtb_offset) if second else (0,) * 5),
    )
    page = layout.page_size
    return b"".join(
        part.ljust(-(-len(part) // page) * page, b"\0") for part in (header, kernel, ramdisk, dtb)
    )
