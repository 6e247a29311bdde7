"""The base source: Debian's ``linux-source`` package, unpacked once per version."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.build import cache, keys, process
from farm.errors import UsageError

_SOURCES = Path("/usr/src")
_BASE = re.compile(r"\d+\.\d+")
_CHECKPOINT_RECORDS = 2000
_RECORD_BYTES = 10240
_TREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Tarball:
    """A base source as the distribution delivers it."""

    base: str
    path: Path
    version: str
    size_bytes: int

    @property
    def folder(self) -> str:
        """The name of the unpacked tree's folder in the cache."""
        return f"{self.base}-{keys.sha256(f'{self.version} {self.size_bytes}'.encode())[:12]}"


def find(base: str, sources: Path = _SOURCES) -> Tarball:
    """Return the tarball of ``base`` ("6.12"); raise ``UsageError`` if it is not installed."""
    if _BASE.fullmatch(base) is None:
        raise UsageError(f"{base!r} is no base version", "for example: --base 6.12")
    path = sources / f"linux-source-{base}.tar.xz"
    if not path.is_file():
        raise UsageError(
            f"{path} does not exist: the package linux-source-{base} is not installed",
            f"`sudo apt-get install linux-source-{base}`; `make setup` installs that of 6.12, "
            "`make kernel-check` all that there is a series for",
        )
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", f"linux-source-{base}"],
        capture_output=True,
        text=True,
        check=False,
    )
    # A tarball that no package owns is known by its content.
    version = asked.stdout.strip() if asked.returncode == 0 else ""
    return Tarball(base, path, version or keys.sha256(path.read_bytes()), path.stat().st_size)


def unpack(tarball: Tarball, root: Path, log: Path, progress: Callable[[int, int], None]) -> Path:
    """Return the folder in ``root`` that holds the tree as ``linux``, unpacking if need be.

    ``progress`` is called with bytes done and bytes in all.
    """
    folder = root / "source" / tarball.folder
    if (folder / "linux" / "Makefile").is_file():
        return folder
    cache.require_space(root, _TREE_BYTES)
    total_bytes = _uncompressed_bytes(tarball.path)

    def on_line(line: str) -> None:
        if line.startswith("checkpoint "):
            progress(int(line.split()[1]) * _RECORD_BYTES, total_bytes)

    with cache.new_folder(folder) as partial:
        (partial / "linux").mkdir()
        process.run(
            [
                "tar",
                "--extract",
                f"--file={tarball.path}",
                "--use-compress-program=xz --threads=0",
                "--strip-components=1",
                "--no-same-owner",
                f"--checkpoint={_CHECKPOINT_RECORDS}",
                "--checkpoint-action=exec=echo checkpoint $TAR_CHECKPOINT",
                f"--directory={partial / 'linux'}",
            ],
            what=f"unpack {tarball.path.name}",
            log=log,
            on_line=on_line,
        )
    return folder


def _uncompressed_bytes(path: Path) -> int:
    listing = process.output(["xz", "--robot", "--list", str(path)], what=f"list {path.name}")
    for line in listing.decode().splitlines():
        fields = line.split("\t")
        if fields[0] == "totals":
            return int(fields[4])
    return 0
