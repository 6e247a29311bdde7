"""Android boot images, as a bootloader reads them: versions 0 to 4.

Source: AOSP, system/tools/mkbootimg/include/bootimg/bootimg.h. Versions 3 and 4 have pages of 4096
bytes and no device tree of their own. With version 0 a device tree may follow the kernel.
Left out: second stages, recovery's DTBO, signatures, bootconfig.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"ANDROID!"
_FDT_MAGIC = b"\xd0\x0d\xfe\xed"
_PAGE_OF_V3 = 4096
_PAGE_BYTES = 4096


class BadImageError(ValueError):
    """What a bootloader cannot boot."""


@dataclass(frozen=True)
class BootImage:
    """What is booted; ``dtb`` is empty when the firmware's own is to be used."""

    version: int
    kernel: bytes
    ramdisk: bytes
    dtb: bytes
    cmdline: str


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _sections(data: bytes, page: int, sizes: list[int]) -> list[bytes]:
    at = page
    found = []
    for size in sizes:
        if at + size > len(data):
            raise BadImageError(f"a section of {size} bytes at {at} leads out of the image")
        found.append(data[at : at + size])
        at += -(-size // page) * page
    return found


def parse_boot_image(data: bytes) -> BootImage:
    """What ``data`` holds; raises BadImageError for what cannot be booted."""
    if len(data) < 4096 or not data.startswith(MAGIC):
        raise BadImageError("no boot image: the magic is missing")
    version = struct.unpack_from("<I", data, 40)[0]
    if version in (3, 4):
        kernel_size, ramdisk_size = struct.unpack_from("<2I", data, 8)
        kernel, ramdisk = _sections(data, _PAGE_OF_V3, [kernel_size, ramdisk_size])
        return BootImage(version, _kernel(kernel), ramdisk, b"", _text(data[44 : 44 + 1536]))
    if version > 2:
        raise BadImageError(f"a boot image of version {version}")
    kernel_size, _, ramdisk_size, _, second_size, _, _, page = struct.unpack_from("<8I", data, 8)
    if page not in (2048, 4096, 8192, 16384):
        raise BadImageError(f"a page size of {page}")
    sizes = [kernel_size, ramdisk_size, second_size]
    if version >= 1:
        sizes.append(struct.unpack_from("<I", data, 1632)[0])
    if version == 2:
        sizes.append(struct.unpack_from("<I", data, 1648)[0])
    parts = _sections(data, page, sizes)
    dtb = parts[4] if version == 2 else b""
    kernel = parts[0]
    if not dtb:
        kernel, dtb = _split_appended(kernel)
    cmdline = _text(data[64 : 64 + 512]) + _text(data[608 : 608 + 1024])
    return BootImage(version, _kernel(kernel), parts[1], dtb, cmdline)


def _kernel(kernel: bytes) -> bytes:
    if kernel[56:60] != b"ARM\x64":
        raise BadImageError("the kernel is no arm64 Image")
    return kernel


def _split_appended(kernel: bytes) -> tuple[bytes, bytes]:
    """A device tree that stands behind the kernel."""
    at = kernel.rfind(_FDT_MAGIC)
    if at > 0 and len(kernel) - at >= 40:
        size = struct.unpack_from(">I", kernel, at + 4)[0]
        if at + size <= len(kernel) <= at + size + 4096:
            return kernel[:at], kernel[at : at + size]
    return kernel, b""


def factory_image(kernel: bytes, ramdisk: bytes, dtb: bytes) -> bytes:
    """The boot image that a new board comes with: version 2, without addresses."""
    page = _PAGE_BYTES
    head = bytearray(page)
    head[:8] = MAGIC
    struct.pack_into("<8I", head, 8, len(kernel), 0, len(ramdisk), 0, 0, 0, 0, page)
    struct.pack_into("<I", head, 40, 2)
    struct.pack_into("<I", head, 1644, 1660)
    struct.pack_into("<IQ", head, 1648, len(dtb), 0)
    body = b"".join(part.ljust(-(-len(part) // page) * page, b"\0") for part in (kernel, ramdisk))
    return bytes(head) + body + dtb
