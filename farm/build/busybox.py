"""Fetches the board's busybox: Debian's static build for arm64, through apt.

apt gets a state of its own in the cache, with arm64 as its only architecture. The system's
sources and trusted keys are used as they are; its package database, its lists and its set of
architectures stay untouched, and no root is needed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from farm.build import process
from farm.build.cache import new_folder
from farm.errors import BuildError

_PACKAGE = "busybox-static"
_ARCHITECTURE = "arm64"
_PLACES = ("bin/busybox", "usr/bin/busybox")


def fetched(cache: Path) -> bytes | None:
    """Return the busybox binary if it was fetched before."""
    binary = cache / "busybox" / "busybox"
    return binary.read_bytes() if binary.is_file() else None


def fetch(cache: Path, log: Path) -> bytes:
    """Return the busybox binary, from the cache or through apt.

    Raises ``BuildError`` if apt cannot get the package or it holds no busybox.
    """
    known = fetched(cache)
    if known is not None:
        return known
    process.require_tools(["apt-get", "dpkg-deb"])
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=cache) as work_name:
        package = _download(Path(work_name), log)
        unpacked = package.parent / "unpacked"
        process.run(
            ["dpkg-deb", "-x", str(package), str(unpacked)], what=f"unpack {_PACKAGE}", log=log
        )
        for place in _PLACES:
            if (unpacked / place).is_file():
                break
        else:
            raise BuildError(f"{package.name} holds no busybox", log=str(log))
        with new_folder(cache / "busybox") as folder:
            shutil.copyfile(unpacked / place, folder / "busybox")
            (folder / "package").write_text(f"{package.name}\n")
    binary = fetched(cache)
    if binary is None:
        raise BuildError(f"{cache / 'busybox'} vanished while it was written", log=str(log))
    return binary


def _download(work: Path, log: Path) -> Path:
    state, archives, target = work / "state", work / "cache", work / "packages"
    (state / "lists" / "partial").mkdir(parents=True)
    (archives / "archives" / "partial").mkdir(parents=True)
    target.mkdir()
    status = state / "status"
    status.touch()
    # apt's own drop in privileges would need every folder above to be open to its user.
    options = {
        "Dir::State": state,
        "Dir::State::status": status,
        "Dir::Cache": archives,
        "APT::Architecture": _ARCHITECTURE,
        "APT::Architectures": _ARCHITECTURE,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    update_error: BuildError | None = None
    try:
        process.run([*apt, "update"], what="apt-get update for arm64", log=log)
    except BuildError as error:
        # A source without arm64 fails the update but not the download from another one.
        update_error = error
    try:
        process.run(
            [*apt, "download", _PACKAGE], what=f"download of {_PACKAGE}", log=log, cwd=target
        )
    except BuildError as error:
        raise (update_error or error) from None
    packages = sorted(target.glob("*.deb"))
    if len(packages) != 1:
        raise BuildError(f"apt-get brought {len(packages)} packages for {_PACKAGE}", log=str(log))
    return packages[0]
