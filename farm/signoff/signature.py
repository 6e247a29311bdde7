"""Signing and verifying with ssh-keygen: PROTOCOL.sshsig, namespace panic-farm-signoff.

ssh-keygen takes a signature in more than one spelling (white space, an older version number). A
bundle has one: the armour must be what ssh-keygen writes, to the byte.
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import struct
import subprocess
from pathlib import Path

from farm.errors import UsageError
from farm.signoff.manifest import MANIFEST, SIGNATURE

__all__ = ["NAMESPACE", "check_armour", "sign", "verify_signature"]

NAMESPACE = "panic-farm-signoff"

_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_MAGIC = b"SSHSIG"
_WIDTH = 70
_HASHES = (b"sha256", b"sha512")


def _ssh_keygen() -> str:
    found = shutil.which("ssh-keygen")
    if found is None:
        raise UsageError("there is no ssh-keygen", "Debian has it in the package openssh-client.")
    return found


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").split("\n")
    return "; ".join(line.strip() for line in lines if line.strip())[:400]


def sign(folder: Path, key: Path) -> None:
    """Sign the manifest in ``folder``; ssh-keygen asks for a passphrase, or an agent has the key.

    Raises UsageError when the key cannot be used.
    """
    if not key.is_file():
        raise UsageError(f"the key {key} is no file")
    (folder / SIGNATURE).unlink(missing_ok=True)
    command = [_ssh_keygen(), "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(folder / MANIFEST)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not (folder / SIGNATURE).is_file():
        raise UsageError(f"ssh-keygen could not sign with {key}: {_said(done)}")


def _fields(blob: bytes) -> list[bytes]:
    """The strings after magic and version; raises ValueError when they do not fill the blob."""
    fields, at = [], len(_MAGIC) + 4
    while at < len(blob):
        if len(blob) - at < 4:
            raise ValueError
        (size,) = struct.unpack_from(">I", blob, at)
        at += 4
        if size > len(blob) - at:
            raise ValueError
        fields.append(blob[at : at + size])
        at += size
    return fields


def check_armour(data: bytes) -> str:
    """What is wrong with a signature file before any key is asked; empty: nothing."""
    if not (data.startswith(_BEGIN) and data.endswith(_END)):
        return "is not framed as ssh-keygen does it"
    body = data[len(_BEGIN) : -len(_END)]
    try:
        blob = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except (binascii.Error, ValueError):
        return "is no base64"
    text = base64.b64encode(blob)
    lines = [text[at : at + _WIDTH] + b"\n" for at in range(0, len(text), _WIDTH)]
    if b"".join(lines) != body:
        return "is not spelt as ssh-keygen does it"
    if not blob.startswith(_MAGIC + struct.pack(">I", 1)):
        return "is no SSHSIG of version 1"
    try:
        _, namespace, reserved, digest, _ = _fields(blob)
    except ValueError:
        return "has other parts than an SSHSIG"
    if namespace != NAMESPACE.encode() or reserved or digest not in _HASHES:
        return f"is not for {NAMESPACE}"
    return ""


def verify_signature(
    folder: Path, allowed_signers: Path, signer: str | None = None
) -> tuple[str, str]:
    """Who signed the manifest, and what is wrong with the signature; one of both is empty.

    ``signer`` is the identity of ``allowed_signers`` that must have signed; by default any of them.
    Raises UsageError when ``allowed_signers`` cannot be read.
    """
    if not allowed_signers.is_file():
        raise UsageError(f"the list of signers {allowed_signers} is no file")
    path = folder / SIGNATURE
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            data = file.read()
        with os.fdopen(os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            manifest = file.read()
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    if wrong := check_armour(data):
        return "", wrong
    keygen = [_ssh_keygen(), "-Y"]
    names = ["-f", str(allowed_signers), "-s", str(path)]
    if signer is None:
        found = subprocess.run(
            [*keygen, "find-principals", *names], capture_output=True, check=False
        )
        if found.returncode:
            return "", f"is of nobody in {allowed_signers}: {_said(found)}"
        signer = found.stdout.decode("utf-8", "replace").split("\n")[0].split(",")[0].strip()
    done = subprocess.run(
        [*keygen, "verify", *names, "-I", signer, "-n", NAMESPACE],
        input=manifest,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        return "", f"is not one of {signer} for this manifest: {_said(done)}"
    return signer, ""
