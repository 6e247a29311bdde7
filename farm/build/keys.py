"""What goes into a build, and the keys that follow from it.

Kernel, device tree and initramfs have keys of their own: a new ``/init`` must not cost a kernel
build. Keys hold content, versions and recipes, never paths or times, so that two machines with
the same inputs agree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

# Raise one when the way its product is made changes, not only its inputs.
KERNEL_RECIPE = 1
DEVICETREE_RECIPE = 1
INITRAMFS_RECIPE = 1

_KEY_DIGITS = 20


@dataclass(frozen=True)
class PatchInput:
    """One patch of the series: its file name and its content's hash."""

    name: str
    sha256: str


@dataclass(frozen=True)
class KernelInput:
    """What decides the kernel."""

    base: str
    base_version: str
    tarball_bytes: int
    series: tuple[PatchInput, ...]
    config_sha256: str
    compiler: str
    recipe: int = KERNEL_RECIPE


@dataclass(frozen=True)
class DevicetreeInput:
    """What decides the device tree blob."""

    source_sha256: str
    compiler: str
    recipe: int = DEVICETREE_RECIPE


@dataclass(frozen=True)
class InitramfsInput:
    """What decides the initramfs."""

    busybox_sha256: str
    content_sha256: str
    recipe: int = INITRAMFS_RECIPE


@dataclass(frozen=True)
class Inputs:
    """Everything that decides a board's build."""

    board: str
    kernel: KernelInput
    devicetree: DevicetreeInput
    initramfs: InitramfsInput
    variant: str = ""
    boot_image: str = ""


@dataclass(frozen=True)
class Keys:
    """The names under which the products are kept."""

    kernel: str
    devicetree: str
    initramfs: str
    product: str


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()


def keys(inputs: Inputs) -> Keys:
    """Return the keys of ``inputs``."""
    kernel = _key(inputs.kernel)
    devicetree = _key(inputs.devicetree)
    initramfs = _key(inputs.initramfs)
    # What a board does not have is left out: the names of those before it stay as they were.
    named = tuple(filter(None, (inputs.board, inputs.variant, inputs.boot_image)))
    whole = "\n".join((*named, kernel, devicetree, initramfs))
    return Keys(kernel, devicetree, initramfs, sha256(whole.encode())[:_KEY_DIGITS])


def _key(part: KernelInput | DevicetreeInput | InitramfsInput) -> str:
    canonical = json.dumps(asdict(part), sort_keys=True).encode()
    return sha256(canonical)[:_KEY_DIGITS]
