"""A boot image for a board, packed as its environment says."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from farm.build import bootimage
from farm.errors import UsageError
from farm.yaml_file import read_yaml

_GZIP = b"\x1f\x8b"


class _BootImage(BaseModel):
    """``boot_image`` of a target's options; they are checked in full where the bench is opened."""

    model_config = ConfigDict(extra="allow")
    cmdline: str = ""


class _Options(BaseModel):
    boot_image: _BootImage = _BootImage()


class _Target(BaseModel):
    options: _Options


class _Environment(BaseModel):
    targets: dict[str, _Target]


def pack_for(lg_env: Path, kernel: Path, ramdisk: Path, dtb: Path) -> bytes:
    """The boot image; raises UsageError naming what cannot be read or does not fit together."""
    targets = read_yaml(lg_env, _Environment).targets
    if "main" not in targets:
        raise UsageError(f"{lg_env}: there is no target `main`")
    wanted = targets["main"].options.boot_image
    layout: dict[str, Any] = dict(wanted.model_extra or {})
    code = _read(kernel)
    if code[:2] == _GZIP:
        code = gzip.decompress(code)
    try:
        return bootimage.pack(
            code, _read(ramdisk), _read(dtb), wanted.cmdline, bootimage.BootLayout(**layout)
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{lg_env}: boot_image: {error}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
