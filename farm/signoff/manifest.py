"""The manifest of a bundle: the sha256 of every file, and what became of a bundle since.

``MANIFEST.sha256`` has the form of sha256sum(1) and lists every file but itself and its signature.
``blocks.json`` beside it has a short hash of each 4 KiB, which tells where in a file a byte
was changed; it decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BLOCKS",
    "MANIFEST",
    "SIGNATURE",
    "Change",
    "changes_in",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "MANIFEST.sha256"
SIGNATURE = "MANIFEST.sha256.sig"
BLOCKS = "blocks.json"

_BLOCK_BYTES = 4096
_SHORT = 16
_NAME = re.compile(r"[A-Za-z0-9_+=][A-Za-z0-9._+=#-]*")
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._+=#/-]+)\n")


@dataclass(frozen=True, slots=True)
class Change:
    """What is not as it was signed: a path below the bundle, and what happened to it."""

    path: str
    what: str


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry, folders too; no symlink is followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{below}{entry.name}"
        yield path, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{path}/")


def _hashes(path: Path) -> tuple[str, list[str]]:
    whole, blocks = hashlib.sha256(), []
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest()[:_SHORT])
    return whole.hexdigest(), blocks


def allowed_name(path: str) -> bool:
    """Whether a manifest can list ``path``: plain names that no shell or browser takes amiss."""
    return all(_NAME.fullmatch(part) for part in path.split("/"))


def write_manifest(folder: Path) -> None:
    """Write ``blocks.json`` and then the manifest of all files in ``folder``."""
    blocks: dict[str, list[str]] = {}
    lines = {}
    for path, entry in _walk(folder):
        if entry.is_dir(follow_symlinks=False):
            continue
        if not entry.is_file(follow_symlinks=False) or not allowed_name(path):
            raise ValueError(f"{path} cannot be listed in a manifest")
        lines[path], blocks[path] = _hashes(folder / path)
    (folder / BLOCKS).write_text(json.dumps(blocks, indent=0, sort_keys=True) + "\n")
    lines[BLOCKS], _ = _hashes(folder / BLOCKS)
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(lines.items()))
    (folder / MANIFEST).write_text(text)


def read_manifest(data: bytes) -> tuple[dict[str, str], list[Change]]:
    """The hashes by path, and what is wrong with the manifest itself, by its line."""
    listed: dict[str, str] = {}
    wrong = []
    before = ""
    for number, line in enumerate(data.decode("latin-1").splitlines(keepends=True), 1):
        match = _LINE.fullmatch(line)
        if match is None or not allowed_name(match[2]) or match[2] <= before:
            wrong.append(Change(MANIFEST, f"line {number} is none that the farm writes"))
            continue
        before = match[2]
        listed[match[2]] = match[1]
    return listed, wrong


def _where(path: str, blocks: list[str], known: object) -> str:
    if not isinstance(known, dict) or not isinstance(known.get(path), list):
        return "changed"
    signed = known[path]
    for at, digest in enumerate(blocks):
        if at >= len(signed) or signed[at] != digest:
            first = at * _BLOCK_BYTES
            return f"changed, first in bytes {first:#x} to {first + _BLOCK_BYTES - 1:#x}"
    if len(blocks) < len(signed):
        return f"cut short after byte {len(blocks) * _BLOCK_BYTES:#x} at the latest"
    return "changed"


def _known_blocks(folder: Path) -> object:
    try:
        path = folder / BLOCKS
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def changes_in(folder: Path, listed: dict[str, str]) -> list[Change]:
    """Every file that is changed, missing, added or renamed, and whatever is no plain file."""
    known = _known_blocks(folder)
    changes: list[Change] = []
    seen: set[str] = set()
    added: dict[str, str] = {}
    folders = {path.rpartition("/")[0] for path in listed}
    folders |= {
        parent.rsplit("/", at)[0] for parent in folders for at in range(parent.count("/") + 1)
    }
    for path, entry in _walk(folder):
        if entry.is_symlink():
            seen.add(path)
            changes.append(Change(path, "is a symlink, which the farm never writes"))
        elif entry.is_dir(follow_symlinks=False):
            if path not in folders:
                changes.append(Change(path, "a folder that was not signed"))
        elif not entry.is_file(follow_symlinks=False):
            seen.add(path)
            changes.append(Change(path, "is no plain file"))
        elif path not in (MANIFEST, SIGNATURE):
            try:
                digest, blocks = _hashes(folder / path)
            except OSError as error:
                seen.add(path)
                changes.append(Change(path, f"cannot be read: {error.strerror}"))
                continue
            if path not in listed:
                added[path] = digest
                continue
            seen.add(path)
            if digest != listed[path]:
                changes.append(Change(path, _where(path, blocks, known)))
    missing = [path for path in listed if path not in seen]
    by_digest = {listed[path]: path for path in missing}
    for path, digest in added.items():
        renamed = by_digest.pop(digest, None)
        if renamed is not None:
            missing.remove(renamed)
            changes.append(Change(path, f"renamed, was {renamed}"))
        else:
            changes.append(Change(path, "added: it was not signed"))
    changes.extend(Change(path, "missing") for path in missing)
    return changes
