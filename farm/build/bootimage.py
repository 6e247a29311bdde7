"""An Android boot image, version 2: kernel, ramdisk and device tree for a bootloader.

Source: AOSP, system/tools/mkbootimg/include/bootimg/bootimg.h, and what Debian's mkbootimg 29 does.
Left out: second stage, recovery DTBO, signatures.
"""

from __future__ import annotations

import hashlib
import struct

PAGE_BYTES = 4096
_BASE = 0x4000_0000
_KERNEL_OFFSET = 0x0008_0000
_RAMDISK_OFFSET = 0x0400_0000
_TAGS_OFFSET = 0x0000_0100
_DTB_OFFSET = 0x0600_0000
_HEADER = struct.Struct("<8s10I16s512s32s1024sIQIIQ")
_CMDLINE_BYTES = 512


def pack(kernel: bytes, ramdisk: bytes, dtb: bytes, cmdline: str = "") -> bytes:
    """Return the image; ``cmdline`` of at most 511 bytes goes before what the tree says."""
    words = cmdline.encode()
    if len(words) >= _CMDLINE_BYTES:
        raise ValueError(f"a command line of {len(words)} bytes does not fit")
    digest = hashlib.sha1(usedforsecurity=False)
    for part in (kernel, ramdisk, b"", b"", dtb):
        digest.update(part)
        digest.update(struct.pack("<I", len(part)))
    header = _HEADER.pack(
        b"ANDROID!",
        *(len(kernel), _BASE + _KERNEL_OFFSET, len(ramdisk), _BASE + _RAMDISK_OFFSET),
        *(0, 0, _BASE + _TAGS_OFFSET, PAGE_BYTES, 2, 0),
        b"panicfarm",
        words,
        digest.digest(),
        b"",
        *(0, 0, _HEADER.size, len(dtb), _BASE + _DTB_OFFSET),
    )
    return b"".join(
        part.ljust(-(-len(part) // PAGE_BYTES) * PAGE_BYTES, b"\0")
        for part in (header, kernel, ramdisk, dtb)
    )
