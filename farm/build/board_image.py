"""What a board's environment says of its boot image, and the image packed so.

``boot_image`` of the target's options; the other options are checked where the bench is opened.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from farm.build import bootimage
from farm.errors import UsageError
from farm.yaml_file import read_yaml

_GZIP = b"\x1f\x8b"


class BoardImage(BaseModel):
    """A board's command line, and beside it the fields of ``BootLayout``."""

    model_config = ConfigDict(frozen=True, extra="allow")
    cmdline: str = ""

    def pack(self, kernel: Path, ramdisk: Path, dtb: Path) -> bytes:
        """The boot image; raises UsageError naming what cannot be read or does not fit together."""
        layout: dict[str, Any] = dict(self.model_extra or {})
        code = _read(kernel)
        if code[:2] == _GZIP:
            code = gzip.decompress(code)
        try:
            return bootimage.pack(
                code, _read(ramdisk), _read(dtb), self.cmdline, bootimage.BootLayout(**layout)
            )
        except (TypeError, ValueError) as error:
            raise UsageError(f"boot_image: {error}") from error


class _Options(BaseModel):
    boot_image: BoardImage = BoardImage()


class _Target(BaseModel):
    options: _Options


class _Environment(BaseModel):
    targets: dict[str, _Target]


def read(lg_env: Path) -> BoardImage:
    """What ``lg_env`` says of its target `main`; raises UsageError."""
    targets = read_yaml(lg_env, _Environment).targets
    if "main" not in targets:
        raise UsageError(f"{lg_env}: there is no target `main`")
    return targets["main"].options.boot_image


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
