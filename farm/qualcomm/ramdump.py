"""Reading a board's memory in crash mode: just the wanted addresses, or every region to disk.

A full dump is resumable: what is on disk is kept, samples of it are read again and compared before
going on, for a board that was reset since has another memory. Zeros take no room on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from farm.errors import BenchError
from farm.qualcomm.regions import (
    TABLE_LIMIT_BYTES,
    MemoryRegion,
    parse_table,
    region_holding,
)
from farm.qualcomm.sahara import CHUNK_BYTES, MemoryTable, Sahara
from farm.qualcomm.transport import RefusedError, ViolationError

ACCOUNT = "ramdump.json"
_CHECK_BYTES = 1 << 16
SAMPLE_BYTES = 1 << 12
_SAMPLES = 64

Progress = Callable[[int, int], None]


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
    if not 0 < table.length <= TABLE_LIMIT_BYTES:
        raise ViolationError(
            sahara.pipe.name, "reading the region table", f"it has {table.length} bytes"
        )
    return parse_table(sahara.read(table.address, table.length), wide=table.wide)


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

    def piece(self, at: int, size_bytes: int) -> bytes:
        return os.pread(self._file, size_bytes, at)

    def append(self, data: memoryview) -> None:
        if data != bytes(len(data)):
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


class RamDump:
    """A dump of every region into ``folder``, begun or gone on with."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.folder = folder
        self._progress = progress
        self._done_bytes = 0
        self._total_bytes = 0

    def read(
        self, sahara: Sahara, regions: tuple[MemoryRegion, ...], *, chunk_bytes: int = CHUNK_BYTES
    ) -> tuple[RegionFile, ...]:
        """Read what is missing of ``regions``; returns the files, also told in ``ramdump.json``.

        Raises BenchError (usb: called again it goes on from there; disk).
        """
        self._total_bytes = sum(region.length_bytes for region in regions)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            done = self._earlier(regions)
            files = []
            for region in regions:
                files.append(self._region(sahara, region, done, chunk_bytes))
                self._account(regions, files)
        except OSError as error:
            raise BenchError(
                f"cannot write in {self.folder}: {error.strerror or error}",
                part="disk",
                next_step="Make room, or choose another folder; what was read so far is kept.",
            ) from error
        return tuple(files)

    def _earlier(self, regions: tuple[MemoryRegion, ...]) -> dict[str, RegionFile]:
        """The finished files of an earlier try on the same table."""
        try:
            said = json.loads((self.folder / ACCOUNT).read_text())
            if said["regions"] == [asdict(region) for region in regions]:
                return {one["file"]: RegionFile(**one) for one in said["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        for part in self.folder.glob("*.part"):
            part.unlink()
        self._account(regions, [])
        return {}

    def _account(self, regions: tuple[MemoryRegion, ...], files: list[RegionFile]) -> None:
        new = self.folder / f".{ACCOUNT}.new"
        said = {
            "regions": [asdict(region) for region in regions],
            "files": [asdict(one) for one in files],
        }
        new.write_text(json.dumps(said, indent=1) + "\n")
        new.replace(self.folder / ACCOUNT)

    def _region(
        self, sahara: Sahara, region: MemoryRegion, done: dict[str, RegionFile], chunk_bytes: int
    ) -> RegionFile:
        target = self.folder / f"{region.file_name}.bin"
        known = done.get(target.name)
        if known is not None and target.is_file() and target.stat().st_size == known.length_bytes:
            self._done_bytes += region.length_bytes
            self._tell(0)
            return known
        part = target.with_name(f"{target.name}.part")
        have = part.stat().st_size if part.exists() else 0
        # A hole at the end is not in the size: whole chunks are all that counts.
        file = _SparseFile(part, min(have, region.length_bytes) // _CHECK_BYTES * _CHECK_BYTES)
        try:
            if file.done_bytes and not self._unchanged(sahara, region, file):
                file.close()
                file = _SparseFile(part, 0)

            def append(data: memoryview) -> None:
                file.append(data)
                self._tell(file.done_bytes)

            at = file.done_bytes
            sahara.read_into(
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

    def _unchanged(self, sahara: Sahara, region: MemoryRegion, file: _SparseFile) -> bool:
        """Whether the board's memory is still what was read: its last piece and samples."""
        size = min(_CHECK_BYTES, file.done_bytes)
        if sahara.read(region.base + file.done_bytes - size, size) != file.piece(
            file.done_bytes - size, size
        ):
            return False
        step = max(SAMPLE_BYTES, file.done_bytes // _SAMPLES // SAMPLE_BYTES * SAMPLE_BYTES)
        return all(
            sahara.read(region.base + at, SAMPLE_BYTES) == file.piece(at, SAMPLE_BYTES)
            for at in range(0, file.done_bytes, step)
        )

    def _tell(self, in_region_bytes: int) -> None:
        if self._progress is not None:
            self._progress(self._done_bytes + in_region_bytes, self._total_bytes)
