"""Where builds are kept, who may write there, and how a product appears all at once.

Everything lies under one root. Products are folders named by the key of what went into them;
a folder is written under another name and renamed when whole, so an interrupted build leaves
nothing that looks like a product.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.errors import BuildError

_READ_ONLY = 0o444


def root() -> Path:
    """Return the cache's root: ``$PANIC_FARM_CACHE``, or a folder in the user's cache."""
    chosen = os.environ.get("PANIC_FARM_CACHE")
    return Path(chosen).expanduser().resolve() if chosen else Path.home() / ".cache" / "panic-farm"


@contextmanager
def locked(cache: Path, purpose: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock; if another process has it, say who and wait for it to finish.

    The lock goes with its holder, however that ends.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            say(f"waiting: {holder} is building in {cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} ({purpose})\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Give a folder to fill, and make it ``final`` if the filling succeeds.

    A ``final`` that is already there is replaced. Raises ``BuildError`` when the disk is full.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=final.parent))
    try:
        partial.chmod(0o755)
        yield partial
        if final.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=final.parent))
            final.rename(old / "folder")
            partial.rename(final)
            shutil.rmtree(old)
        else:
            partial.rename(final)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(final) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def share(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, read-only because both names now share it."""
    source.chmod(_READ_ONLY)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
        target.chmod(_READ_ONLY)


def point(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` point to ``target`` in one step."""
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``BuildError`` if ``folder`` has less free space than ``needed_bytes``."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise BuildError(
            f"{folder} has {free_bytes >> 20} MiB free, the build needs {needed_bytes >> 20} MiB",
            next_step="free some space, or let PANIC_FARM_CACHE name a folder on another disk",
        )


def disk_full(where: Path) -> BuildError:
    """Return the error for a disk that ran full while ``where`` was written."""
    return BuildError(
        f"the disk is full while writing {where}",
        next_step="free some space, or let PANIC_FARM_CACHE name a folder on another disk",
    )
