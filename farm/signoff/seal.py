"""A bundle signed and verified: needs nothing but the folder and ssh-keygen."""

from __future__ import annotations

from pathlib import Path

from farm.errors import UsageError
from farm.signoff.manifest import MANIFEST, SIGNATURE, Change, changes_in, read_manifest
from farm.signoff.signature import sign, verify_signature

__all__ = ["sign_bundle", "verify_bundle"]


def _manifest_of(folder: Path) -> tuple[dict[str, str], list[Change]]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Name the folder that `farm signoff` wrote.")
    if path.is_symlink() or not path.is_file():
        return {}, [Change(MANIFEST, "missing, or no plain file")]
    return read_manifest(path.read_bytes())


def sign_bundle(folder: Path, key: Path) -> None:
    """Sign a bundle that is unchanged since it was written; raises UsageError when it is not."""
    listed, wrong = _manifest_of(folder)
    changes = [*wrong, *changes_in(folder, listed)]
    if changes:
        raise UsageError(
            f"{folder} is not as it was written: {changes[0].path}: {changes[0].what}",
            "Make the sign-off again; a changed one is not signed.",
        )
    sign(folder, key)


def verify_bundle(
    folder: Path, allowed_signers: Path | None, signer: str | None = None
) -> tuple[str, list[Change]]:
    """Who signed a bundle, and everything that is not as it was signed.

    Without ``allowed_signers`` only the hashes are held against the manifest, which whoever changed
    a file could have changed too; a signature is then checked for nothing.
    """
    listed, changes = _manifest_of(folder)
    by = ""
    if allowed_signers is not None:
        by, wrong = verify_signature(folder, allowed_signers, signer)
        if wrong:
            changes.insert(0, Change(SIGNATURE, wrong))
    changes += changes_in(folder, listed)
    return by, changes
