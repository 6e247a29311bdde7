"""Reading a board's memory in crash mode: just the wanted addresses, or every region to disk.

A full dump is resumable: pages of what is on disk are read again and compared before going on, for
a board that was reset since has another memory; what was read of that is set aside, never lost.
Zeros take no room on disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from farm.errors import BenchError, FormatError
from farm.qualcomm.regions import (
    TABLE_LIMIT_BYTES,
    MemoryRegion,
    parse_table,
    region_holding,
)
from farm.qualcomm.sahara import CHUNK_BYTES, MemoryTable, Sahara
from farm.qualcomm.transport import RefusedError, ViolationError

ACCOUNT = "ramdump.json"
PAGE_BYTES = 1 << 12
# So many pages, of those that hold anything, tell one panic's memory from another's.
_SAMPLES = 512
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Progress = Callable[[int, int], None]


class MemoryReader(Protocol):
    """What a dump reads from: Sahara, here or behind an agent."""

    def read(self, address: int, length: int) -> bytes:
        """Memory at ``address``; raises BenchError."""

    def read_into(
        self, address: int, length: int, sink: Callable[[memoryview], object], *, chunk_bytes: int
    ) -> None:
        """Memory in pieces, each handed to ``sink``; raises BenchError."""


@dataclass(frozen=True)
class RegionFile:
    """A region on disk; ``file`` is below the dump's folder, ``board_name`` only for showing."""

    file: str
    base: int
    length_bytes: int
    board_name: str
    description: str
    sha256: str


def read_table(sahara: Sahara, table: MemoryTable) -> tuple[MemoryRegion, ...]:
    """The regions that the board offers; raises ViolationError for an impossible table."""
    step = "reading the region table"
    if not 0 < table.length <= TABLE_LIMIT_BYTES:
        raise ViolationError(sahara.pipe.name, step, f"it has {table.length} bytes")
    try:
        return parse_table(sahara.read(table.address, table.length), wide=table.wide)
    except FormatError as error:
        raise ViolationError(sahara.pipe.name, step, error.message, offset=error.offset) from error


def read_range(
    sahara: Sahara,
    regions: tuple[MemoryRegion, ...],
    address: int,
    length: int,
    sink: Callable[[memoryview], object],
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Read just these addresses; raises RefusedError when no region holds them all."""
    if region_holding(regions, address, length) is None:
        offered = ", ".join(f"{one.base:#x}+{one.length_bytes:#x}" for one in regions)
        raise RefusedError(
            sahara.pipe.name,
            f"reading {length} bytes at {address:#x}",
            f"the board offers {offered or 'no memory'}",
        )
    sahara.read_into(address, length, sink, chunk_bytes=chunk_bytes)


class _SparseFile:
    """A file that is written in order, where zeros become holes; its sum runs along."""

    def __init__(self, path: Path, done_bytes: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.done_bytes = done_bytes
        self._sum = hashlib.sha256()
        at = 0
        while at < done_bytes:
            piece = os.pread(self._file, min(CHUNK_BYTES, done_bytes - at), at)
            self._sum.update(piece)
            at += len(piece)
        os.ftruncate(self._file, done_bytes)

    def append(self, data: memoryview) -> None:
        if data == bytes(len(data)):
            # A hole; the size tells a later try that it was read.
            os.ftruncate(self._file, self.done_bytes + len(data))
        else:
            view = data
            at = self.done_bytes
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        self._sum.update(data)
        self.done_bytes += len(data)

    def finish(self) -> str:
        os.ftruncate(self._file, self.done_bytes)
        os.fsync(self._file)
        return self._sum.hexdigest()

    def close(self) -> None:
        os.close(self._file)


def _pages_with_data(file: int, upto: int) -> Iterator[tuple[int, int]]:
    """(start, end) in ``file`` of what is no hole, in whole pages below ``upto``."""
    at = 0
    while at < upto:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            at = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        start -= start % PAGE_BYTES
        end = min(at, upto) // PAGE_BYTES * PAGE_BYTES
        if start < end:
            yield start, end


def _same(reader: MemoryReader, base: int, path: Path, done_bytes: int, samples: int) -> bool:
    """Whether the board's memory at ``base`` is still what ``path`` holds, by its pages."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans = list(_pages_with_data(file, done_bytes))
        pages = sum(end - start for start, end in spans) // PAGE_BYTES
        step = max(1, -(-pages // samples))
        wanted = [at for start, end in spans for at in range(start, end, PAGE_BYTES)][::step]
        last = done_bytes - PAGE_BYTES
        if last >= 0:
            # What was written last is what a killed program may not have written whole.
            wanted.append(last)
        return all(
            reader.read(base + at, PAGE_BYTES) == os.pread(file, PAGE_BYTES, at) for at in wanted
        )
    finally:
        os.close(file)


def _host_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class RamDump:
    """A dump of every region into ``folder``, begun or gone on with."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.folder = folder
        self._progress = progress
        self._done_bytes = 0
        self._total_bytes = 0

    def read(
        self,
        reader: MemoryReader,
        regions: tuple[MemoryRegion, ...],
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> tuple[RegionFile, ...]:
        """Read what is missing of ``regions``; returns the files, also told in ``ramdump.json``.

        Raises BenchError (usb: called again it goes on from there; disk).
        """
        self._total_bytes = sum(region.length_bytes for region in regions)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            done = self._earlier(reader, regions)
            files = []
            for region in regions:
                files.append(self._region(reader, region, done, chunk_bytes))
                self._account(regions, files)
        except OSError as error:
            raise BenchError(
                f"cannot write in {self.folder}: {error.strerror or error}",
                part="disk",
                next_step="Make room, or choose another folder; what was read so far is kept.",
            ) from error
        return tuple(files)

    # -- what an earlier try has left

    def _said(self) -> dict[str, Any] | None:
        """The account of an earlier try; None if there is none that can be used."""
        try:
            said = json.loads((self.folder / ACCOUNT).read_text())
            files = [RegionFile(**one) for one in said["files"]]
            # A host that went down may have lost what looks written.
            unsafe = said["host_boot_id"] != _host_boot_id() and not said["finished"]
            return None if unsafe else {"regions": said["regions"], "files": files}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _earlier(
        self, reader: MemoryReader, regions: tuple[MemoryRegion, ...]
    ) -> dict[str, RegionFile]:
        """The finished files of an earlier try on this memory; others are set aside."""
        said = self._said()
        if said is not None and said["regions"] == [asdict(region) for region in regions]:
            done = {one.file: one for one in said["files"] if self._is_whole(one)}
            if self._unchanged(reader, regions, done):
                return done
        self._set_aside()
        self._account(regions, [])
        return {}

    def _is_whole(self, one: RegionFile) -> bool:
        """Whether a finished file is still what was read."""
        path = self.folder / one.file
        if not path.is_file() or path.stat().st_size != one.length_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256

    def _part(self, region: MemoryRegion) -> Path:
        return self.folder / f"{region.file_name}.bin.part"

    def _have_bytes(self, region: MemoryRegion) -> int:
        """How much of a region is on disk, in whole pages."""
        part = self._part(region)
        have = part.stat().st_size if part.exists() else 0
        return min(have, region.length_bytes) // PAGE_BYTES * PAGE_BYTES

    def _unchanged(
        self,
        reader: MemoryReader,
        regions: tuple[MemoryRegion, ...],
        done: dict[str, RegionFile],
    ) -> bool:
        """Whether all that is on disk is of the memory that the board has now."""
        known = [
            (region.base, self.folder / name, done[name].length_bytes)
            for region in regions
            if (name := f"{region.file_name}.bin") in done
        ]
        known += [
            (region.base, self._part(region), have)
            for region in regions
            if (have := self._have_bytes(region))
        ]
        return all(_same(reader, *one, samples=_SAMPLES // len(known) + 1) for one in known)

    def _set_aside(self) -> None:
        """Move what is there of another memory into a folder of its own."""
        old = [one for end in ("bin", "bin.part") for one in self.folder.glob(f"[0-9]*-*.{end}")]
        if not old:
            return
        number = 1 + sum(1 for _ in self.folder.glob("earlier-*"))
        aside = self.folder / f"earlier-{number}"
        aside.mkdir()
        for file in [*old, self.folder / ACCOUNT]:
            if file.exists():
                file.rename(aside / file.name)

    def _account(self, regions: tuple[MemoryRegion, ...], files: list[RegionFile]) -> None:
        new = self.folder / f".{ACCOUNT}.new"
        said = {
            "host_boot_id": _host_boot_id(),
            "finished": len(files) == len(regions),
            "regions": [asdict(region) for region in regions],
            "files": [asdict(one) for one in files],
        }
        new.write_text(json.dumps(said, indent=1) + "\n")
        new.replace(self.folder / ACCOUNT)

    # -- reading

    def _region(
        self,
        reader: MemoryReader,
        region: MemoryRegion,
        done: dict[str, RegionFile],
        chunk_bytes: int,
    ) -> RegionFile:
        target = self.folder / f"{region.file_name}.bin"
        known = done.get(target.name)
        if known is not None:
            self._done_bytes += region.length_bytes
            self._tell(0)
            return known
        part = self._part(region)
        file = _SparseFile(part, self._have_bytes(region))
        try:

            def append(data: memoryview) -> None:
                file.append(data)
                self._tell(file.done_bytes)

            at = file.done_bytes
            self._tell(at)
            reader.read_into(
                region.base + at, region.length_bytes - at, append, chunk_bytes=chunk_bytes
            )
            digest = file.finish()
        finally:
            file.close()
        part.replace(target)
        self._done_bytes += region.length_bytes
        return RegionFile(
            target.name,
            region.base,
            region.length_bytes,
            region.board_name,
            region.description,
            digest,
        )

    def _tell(self, in_region_bytes: int) -> None:
        if self._progress is not None:
            self._progress(self._done_bytes + in_region_bytes, self._total_bytes)
