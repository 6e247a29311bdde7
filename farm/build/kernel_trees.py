"""Device tree blobs of boards out of the kernel's source: cpp and dtc, no kernel build.

What kbuild does for a DTB (scripts/Makefile.lib of Linux 6.12), without its checks: the include
paths, and `-@`, so that overlays find labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from farm.build import cache, devicetree, source
from farm.errors import UsageError

_FOLDERS = ("arch/arm64/boot/dts/qcom", "arch/arm/boot/dts/qcom")

Progress = Callable[[int, int], None]


def unpacked(base: str, progress: Progress = lambda done, total: None) -> Path:
    """The kernel's source tree, unpacked into the cache if it is not yet; UsageError, BuildError.

    ``progress`` is called with bytes done and bytes in all.
    """
    tarball = source.find(base)
    root = cache.root()
    folder = root / "source" / tarball.folder
    if not (folder / "linux" / "Makefile").is_file():
        with cache.locked(root, f"unpacking {tarball.path.name}", lambda _: None):
            source.unpack(tarball, root, root / "logs" / f"unpack-{base}.log", progress)
    return folder / "linux"


def sources(linux: Path) -> tuple[Path, ...]:
    """The source of every Qualcomm board, 64-bit ones first."""
    return tuple(file for one in _FOLDERS for file in sorted((linux / one).glob("*.dts")))


def blob_of(linux: Path, stem: str) -> bytes:
    """The blob of a board by its DTB's name; raises UsageError for one that is not there."""
    for one in _FOLDERS:
        file = linux / one / f"{stem}.dts"
        if file.is_file():
            return _compiled(linux, file)
    raise UsageError(
        f"the kernel's source has no Qualcomm board {stem!r}: no {stem}.dts in "
        + " or ".join(_FOLDERS),
        "Give the path of a DTB file instead.",
    )


def _compiled(linux: Path, file: Path) -> bytes:
    prefixes = linux / "scripts" / "dtc" / "include-prefixes"
    return devicetree.compile_blob(file, include=(linux / "include", prefixes))


def all_blobs(linux: Path) -> Iterator[tuple[Path, bytes]]:
    """Each source and its blob, as they are compiled, on all processors."""
    files = sources(linux)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from zip(files, pool.map(lambda file: _compiled(linux, file), files), strict=True)
