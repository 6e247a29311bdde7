"""The board's storage: a sparse disk file with a GPT, and the A/B slots kept in its attributes.

Source: UEFI 2.10, 5.3 (GPT); the attribute bits that Qualcomm's bootloaders keep per slot:
48-49 priority, 50 active, 51-53 retries left, 54 successful, 55 unbootable.
Left out: several logical units; a protective MBR's content is not looked at.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

SECTOR_BYTES = 4096
DISK_BYTES = 256 << 20
BOOT_BYTES = 64 << 20

_HEADER = struct.Struct("<8s4I4Q16sQ3I")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_REVISION = 0x0001_0000
_ENTRIES = 128
_TYPE_BOOT = uuid.UUID("20117F86-E985-4357-B9EE-374BC1D8487D")
_TYPE_DATA = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")

_ACTIVE = 1 << 50
_PRIORITY = 3 << 48
_RETRY_SHIFT = 51
_RETRY = 7 << _RETRY_SHIFT
_SUCCESSFUL = 1 << 54
_UNBOOTABLE = 1 << 55
RETRIES = 7
SLOTS = ("a", "b")


@dataclass(frozen=True)
class Partition:
    """One partition; ``first`` and ``last`` are sectors."""

    name: str
    kind: bytes
    identity: bytes
    first: int
    last: int
    attributes: int

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return (self.last - self.first + 1) * SECTOR_BYTES

    @property
    def active(self) -> bool:
        """Whether its slot is the one to boot."""
        return bool(self.attributes & _ACTIVE)

    @property
    def retries(self) -> int:
        """How often its slot may still be tried."""
        return (self.attributes & _RETRY) >> _RETRY_SHIFT

    @property
    def unbootable(self) -> bool:
        """Whether its slot was given up."""
        return bool(self.attributes & _UNBOOTABLE)

    @property
    def successful(self) -> bool:
        """Whether its slot was found good."""
        return bool(self.attributes & _SUCCESSFUL)


class NoTableError(Exception):
    """The disk holds no GPT that can be used."""


class Disk:
    """The disk file; ``writes`` counts changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.writes = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @property
    def sectors(self) -> int:
        """How many there are."""
        return DISK_BYTES // SECTOR_BYTES

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of the disk; what was never written is zero."""
        return os.pread(self._file, size_bytes, offset).ljust(size_bytes, b"\0")

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Change bytes of the disk."""
        self.writes += 1
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def erase(self, offset: int, size_bytes: int) -> None:
        """Turn bytes into zeros."""
        piece = bytes(1 << 20)
        for at in range(offset, offset + size_bytes, len(piece)):
            self.write(at, piece[: min(len(piece), offset + size_bytes - at)])

    # -- the table

    def create(self) -> None:
        """A factory's disk: two slots and the rest."""
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, DISK_BYTES)
        names = [("boot_a", BOOT_BYTES), ("boot_b", BOOT_BYTES), ("misc", 1 << 20)]
        first = 64
        partitions = []
        for name, size in names:
            last = first + size // SECTOR_BYTES - 1
            kind = _TYPE_BOOT if name.startswith("boot") else _TYPE_DATA
            partitions.append(Partition(name, kind.bytes_le, os.urandom(16), first, last, 0))
            first = last + 1
        last = self.sectors - 64
        partitions.append(
            Partition("userdata", _TYPE_DATA.bytes_le, os.urandom(16), first, last, 0)
        )
        self.save(partitions)
        self.set_active("a")

    def save(self, partitions: list[Partition]) -> None:
        """Write both copies of the table."""
        table = b"".join(
            _ENTRY.pack(
                one.kind,
                one.identity,
                one.first,
                one.last,
                one.attributes,
                one.name.encode("utf-16-le"),
            )
            for one in partitions
        ).ljust(_ENTRIES * _ENTRY.size, b"\0")
        table_sectors = len(table) // SECTOR_BYTES
        last = self.sectors - 1
        for mine, other, at in ((1, last, 2), (last, 1, last - table_sectors)):
            head = self._header(mine, other, at, zlib.crc32(table))
            self.write(at * SECTOR_BYTES, table)
            self.write(mine * SECTOR_BYTES, head.ljust(SECTOR_BYTES, b"\0"))

    def _header(self, mine: int, other: int, table_at: int, table_sum: int) -> bytes:
        usable = (34, self.sectors - 34)
        fields = (mine, other, *usable, b"\x11" * 16, table_at, _ENTRIES, _ENTRY.size, table_sum)
        raw = _HEADER.pack(_SIGNATURE, _REVISION, _HEADER.size, 0, 0, *fields)
        return _HEADER.pack(_SIGNATURE, _REVISION, _HEADER.size, zlib.crc32(raw), 0, *fields)

    def partitions(self) -> list[Partition]:
        """The partitions by the first sound copy of the table; raises NoTableError."""
        for sector in (1, self.sectors - 1):
            found = self._table_at(sector)
            if found is not None:
                return found
        raise NoTableError

    def _table_at(self, sector: int) -> list[Partition] | None:
        raw = self.read(sector * SECTOR_BYTES, _HEADER.size)
        values = _HEADER.unpack(raw)
        signature, _, size, checksum = values[:4]
        table_at, count, entry_bytes, table_sum = values[-4:]
        if signature != _SIGNATURE or size != _HEADER.size or entry_bytes != _ENTRY.size:
            return None
        if zlib.crc32(raw[:16] + bytes(4) + raw[20:]) != checksum or count > 1024:
            return None
        table = self.read(table_at * SECTOR_BYTES, count * entry_bytes)
        if zlib.crc32(table) != table_sum:
            return None
        found = []
        for kind, identity, first, last, attributes, name in _ENTRY.iter_unpack(table):
            if kind != bytes(16) and first <= last < self.sectors:
                text = name.decode("utf-16-le", "replace").split("\0", 1)[0]
                found.append(Partition(text, kind, identity, first, last, attributes))
        return found

    def partition(self, name: str) -> Partition | None:
        """The partition called ``name``; without a suffix, that of the active slot."""
        try:
            found = {one.name: one for one in self.partitions()}
        except NoTableError:
            return None
        if name in found:
            return found[name]
        slot = self.active_slot()
        return found.get(f"{name}_{slot}") if slot else None

    # -- slots

    def active_slot(self) -> str | None:
        """The slot that is to be booted; None without any."""
        try:
            boots = [one for one in self.partitions() if one.name in ("boot_a", "boot_b")]
        except NoTableError:
            return None
        for one in boots:
            if one.active:
                return one.name[-1]
        return boots[0].name[-1] if boots else None

    def set_active(self, slot: str) -> None:
        """Make ``slot`` the one to boot, with all its retries; raises NoTableError."""
        changed = []
        for one in self.partitions():
            bits = one.attributes
            if one.name in ("boot_a", "boot_b"):
                if one.name.endswith(f"_{slot}"):
                    bits &= ~(_UNBOOTABLE | _SUCCESSFUL | _RETRY)
                    bits |= _ACTIVE | _PRIORITY | RETRIES << _RETRY_SHIFT
                else:
                    bits &= ~(_ACTIVE | _PRIORITY)
                    bits |= 1 << 48
            changed.append(replace(one, attributes=bits))
        self.save(changed)

    def give_up(self, slot: str) -> None:
        """Mark ``slot`` as one that does not boot; raises NoTableError."""
        self.save(
            [
                replace(one, attributes=(one.attributes | _UNBOOTABLE) & ~_RETRY)
                if one.name == f"boot_{slot}"
                else one
                for one in self.partitions()
            ]
        )
