"""The patch series: reading it, and bringing a source tree to exactly this series.

A ``series`` file lists patch files in order, one a line, ``#`` begins a comment (quilt's form,
without its options). Patches are git's unified diffs. A tree is moved from one series to the
next by content: only files whose content differs are written, so that make rebuilds only what
depends on them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from farm.build import keys
from farm.errors import BuildError, FormatError

_FILE_LINE = re.compile(
    r"^(?:--- a/|\+\+\+ b/|rename from |rename to |copy from )(\S+)", re.MULTILINE
)
_DIFF_START = re.compile(r"^diff --git |^--- a/|^--- /dev/null", re.MULTILINE)
_STATE = ".panic-farm-series.json"
_PRISTINE = "pristine"


@dataclass(frozen=True)
class Patch:
    """One patch of a series."""

    path: Path
    content: bytes

    @property
    def name(self) -> str:
        """The patch's file name."""
        return self.path.name

    @property
    def identity(self) -> keys.PatchInput:
        """What of the patch goes into the kernel's key."""
        return keys.PatchInput(self.name, keys.sha256(self.content))

    @property
    def files(self) -> frozenset[str]:
        """The files the patch touches, relative to the source tree."""
        text = self.content.decode(errors="replace")
        start = _DIFF_START.search(text)
        names = frozenset(_FILE_LINE.findall(text[start.start() :] if start else ""))
        for name in names:
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise BuildError(f"patch {self.name} leaves the source tree: {name}")
        return names


def read(folder: Path) -> tuple[Patch, ...]:
    """Return the series in ``folder``; no ``series`` file means the stock kernel.

    Raises ``FormatError`` for a line that names no patch file in the folder.
    """
    listing = folder / "series"
    if not listing.is_file():
        return ()
    patches = []
    for number, line in enumerate(listing.read_text().splitlines(), start=1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        path = folder / name
        if len(name.split()) != 1 or not path.is_file():
            raise FormatError(f"{listing}:{number}: no such patch: {name!r}", offset=number)
        patches.append(Patch(path, path.read_bytes()))
    return tuple(patches)


def bring_to(tree: Path, patches: tuple[Patch, ...], store: Path) -> None:
    """Make ``tree`` hold its pristine files with ``patches`` applied.

    ``store`` keeps the pristine form of every file that was ever patched; it is filled before
    the tree is changed, so an interrupted call is repaired by the next one. Raises ``BuildError``
    naming the patch and the file that do not fit; the tree is then unchanged.
    """
    with staged(tree, patches, store) as staging:
        touched = {name for patch in patches for name in patch.files}
        for name in sorted(_known(store / _STATE)):
            source = staging / name if name in touched else store / _PRISTINE / name
            _update(source, tree / name)


@contextmanager
def staged(tree: Path, patches: tuple[Patch, ...], store: Path) -> Iterator[Path]:
    """Give a folder with the files that ``patches`` touch, patched; ``tree`` stays as it is.

    Raises ``BuildError`` naming the patch and the file that do not fit.
    """
    store.mkdir(parents=True, exist_ok=True)
    pristine = store / _PRISTINE
    touched = sorted({name for patch in patches for name in patch.files})
    _save_pristine(tree, pristine, store / _STATE, touched)
    known = _known(store / _STATE)
    with tempfile.TemporaryDirectory(prefix="staging-", dir=store) as staging_name:
        staging = Path(staging_name)
        for name in touched:
            if known[name]:
                _copy(pristine / name, staging / name)
        for patch in patches:
            apply(staging, patch)
        yield staging


def apply(tree: Path, patch: Patch) -> None:
    """Apply ``patch`` in ``tree``, or raise ``BuildError`` naming it and what does not fit."""
    done = subprocess.run(
        ["patch", "-p1", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "--batch"],
        cwd=tree,
        input=patch.content,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        told = done.stdout.decode(errors="replace")
        raise BuildError(
            f"patch {patch.name} does not apply:\n{_rejects(told)}",
            log=str(patch.path),
            next_step=f"refresh {patch.path} against the base source",
        )


def _rejects(told: str) -> str:
    """Return, per file, the hunks that ``patch`` could not place."""
    lines: list[str] = []
    current = ""
    for line in told.splitlines():
        if line.startswith(("patching file ", "checking file ")):
            current = line.split(maxsplit=2)[2]
        elif (
            "FAILED" in line or "can't find file" in line or "malformed" in line or "exists" in line
        ):
            lines.append(f"    {current}: {line.strip()}" if current else f"    {line.strip()}")
    return "\n".join(lines) or "    " + told.strip().replace("\n", "\n    ")


def _known(state: Path) -> dict[str, bool]:
    """Return file name to "the base source has it" for every file that was ever patched."""
    if not state.is_file():
        return {}
    known: dict[str, bool] = json.loads(state.read_text())
    return known


def _save_pristine(tree: Path, pristine: Path, state: Path, names: Iterable[str]) -> None:
    known = _known(state)
    for name in names:
        if name not in known:
            known[name] = (tree / name).is_file()
            if known[name]:
                _copy(tree / name, pristine / name)
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(known, indent=1, sort_keys=True))
    fresh.replace(state)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


def _update(source: Path, target: Path) -> None:
    """Give ``target`` the content of ``source`` (or remove it), touching it only if it differs."""
    if not source.is_file():
        target.unlink(missing_ok=True)
    elif not target.is_file() or target.read_bytes() != source.read_bytes():
        _copy(source, target)
