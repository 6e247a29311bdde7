"""What was signed off and with what: hashes of files and tools, as far as they are known."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from farm import __version__
from farm.errors import UsageError

__all__ = ["Hash", "file_sha256", "hashes_of", "tool_versions"]

# qdl of Debian 12 does not tell its version.
_TOOLS = {"fastboot": "--version", "qdl": "", "ssh": "-V"}
_DEADLINE_S = 5


@dataclass(frozen=True, slots=True)
class Hash:
    """A sha256 and who says so; empty where it is not known. ``detail``: not worth a line."""

    name: str
    sha256: str
    source: str
    detail: bool = False


def file_sha256(path: Path) -> str:
    """The sha256 of a file; raises UsageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def hashes_of(nights: Mapping[str, set[str]], artifacts: Mapping[str, str]) -> tuple[Hash, ...]:
    """Hashes by name: of the policy's artifacts, then what the nights stored of the kernel.

    Kernel image, config, series and firmware are listed even when nobody knows theirs.
    """
    found = [Hash(name, value, "file named by the policy") for name, value in artifacts.items()]
    found += [
        Hash(name, value, "stored with the nights", detail="patches/" in name)
        for name, values in sorted(nights.items())
        for value in sorted(values)
    ]
    found += _series(found)
    names = " ".join(one.name for one in found).lower()
    found += [
        Hash(name, "", "not known")
        for name in ("image", "config", "series", "firmware")
        if name not in names
    ]
    return tuple(found)


def _series(found: list[Hash]) -> list[Hash]:
    """All patches as one hash, by KCIDB's rule for a patchset."""
    patches = sorted((one.name, one.sha256) for one in found if one.detail)
    if not patches:
        return []
    text = "".join(f"{digest}\n" for _, digest in patches)
    source = f"of the sha256 of {len(patches)} patches, stored with the nights"
    return [Hash("series", hashlib.sha256(text.encode()).hexdigest(), source)]


def _asked(tool: str, option: str) -> str:
    path = shutil.which(tool)
    if path is None:
        return "not installed"
    digest = f"sha256 {file_sha256(Path(path))}"
    if not option:
        return digest
    try:
        done = subprocess.run(
            [path, option],
            capture_output=True,
            check=False,
            timeout=_DEADLINE_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return digest
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()
    return f"{lines[0].strip()}, {digest}" if lines and done.returncode == 0 else digest


def tool_versions() -> dict[str, str]:
    """Versions on the host that makes the sign-off."""
    tools = {"farm": __version__, "python": platform.python_version()}
    try:
        tools["labgrid"] = version("labgrid")
    except PackageNotFoundError:
        tools["labgrid"] = "not installed"
    return tools | {tool: _asked(tool, option) for tool, option in _TOOLS.items()}
