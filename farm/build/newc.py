"""Writes a cpio archive in the "newc" form, the one an initramfs is made of.

Source: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``. Left out: the
checksummed form (070702), hard links and reading. The bytes follow from the entries alone, so
device nodes need no root and two machines make the same archive.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGN_BYTES = 4
_BLOCK_BYTES = 512
_FIELD_MAX = 0xFFFF_FFFF


@dataclass(frozen=True)
class Entry:
    """One archive member; ``mode`` holds the file type too, as in ``st_mode``."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuse what a kernel would unpack to somewhere unexpected."""
        if not self.name or self.name.startswith("/") or ".." in self.name.split("/"):
            raise ValueError(f"archive member name {self.name!r} is not relative to the root")
        if stat.S_IFMT(self.mode) == 0:
            raise ValueError(f"mode {self.mode:o} of {self.name!r} names no file type")


def directory(name: str, permissions: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(name, stat.S_IFDIR | permissions)


def regular(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(name, stat.S_IFREG | permissions, data)


def symlink(name: str, target: str) -> Entry:
    """Return a symbolic link that points to ``target``."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return a character device node."""
    return Entry(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries`` in their order, with trailer, padded to 512 bytes.

    Raises ``ValueError`` for a name given twice: the kernel would let the later one win.
    """
    out = bytearray()
    seen: set[str] = set()
    for inode, entry in enumerate(entries, start=1):
        if entry.name in seen:
            raise ValueError(f"archive member {entry.name!r} is there twice")
        seen.add(entry.name)
        _append(out, entry.name, inode, entry.mode, entry.data, entry.device)
    _append(out, _TRAILER, 0, 0, b"", (0, 0))
    out += bytes(-len(out) % _BLOCK_BYTES)
    return bytes(out)


def _append(
    out: bytearray, name: str, inode: int, mode: int, data: bytes, device: tuple[int, int]
) -> None:
    encoded = name.encode() + b"\0"
    link_count = 0 if name == _TRAILER else 2 if stat.S_ISDIR(mode) else 1
    fields = (
        inode,
        mode,
        0,  # uid
        0,  # gid
        link_count,
        0,  # mtime: fixed, so that equal content gives an equal archive
        len(data),
        0,  # major and minor of the file system the entry came from
        0,
        *device,
        len(encoded),
        0,  # checksum, unused in this form
    )
    if max(fields) > _FIELD_MAX:
        raise ValueError(f"archive member {name!r} is too large for the newc form")
    out += _MAGIC + b"".join(b"%08X" % field for field in fields) + encoded
    out += bytes(-len(out) % _ALIGN_BYTES)
    out += data
    out += bytes(-len(out) % _ALIGN_BYTES)
