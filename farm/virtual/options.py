"""What a virtual board is started with, and where the defaults come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from farm.errors import UsageError
from farm.virtual.layout import check_name
from farm.virtual.personality import Personality

DEFAULT_NAME = "virtual"
DEFAULT_SERIAL_PORT = 20817
DEFAULT_POWER_PORT = 20818
DEFAULT_MEMORY_MIB = 512
# The PMIC's power key switches the board off when it is held so long.
LONG_PRESS_S = 2.0
DEFAULT_BASE = "6.12"
# The ports before it are for boards whose labgrid environments fix them.
FIRST_CHOSEN_PORT = 20841

_Model = TypeVar("_Model", bound=BaseModel)


def checked(model: type[_Model], **values: Any) -> _Model:
    """A ``model`` made of what a user gave; raises UsageError that names the option."""
    try:
        return model(**values)
    except ValidationError as error:
        words = []
        for fault in error.errors():
            option = "--" + str(fault["loc"][0]).replace("_", "-") if fault["loc"] else ""
            said = fault["msg"].removeprefix("Value error, ")
            words.append(f"{option} {fault['input']}: {said}" if option else said)
        raise UsageError("; ".join(words)) from None


class BoardOptions(BaseModel):
    """One board's configuration; ports of None are chosen when the board comes up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kernel: Path
    initrd: Path
    dtb: Path
    serial_port: int | None = Field(default=None, ge=1, le=65535)
    power_port: int | None = Field(default=None, ge=1, le=65535)
    ecc_size_bytes: int | None = Field(default=None, ge=0, le=255)
    append: str = ""
    memory_mib: int = Field(default=DEFAULT_MEMORY_MIB, ge=64, le=16384)
    cpus: int = Field(default=2, ge=1, le=8)
    baud: int | None = Field(default=None, ge=300)
    fastboot_port: int | None = Field(default=None, ge=1, le=65535)
    personality: Personality = Personality.LK2ND

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        return check_name(name)

    @property
    def memory_size_bytes(self) -> int:
        """The size of the DRAM."""
        return self.memory_mib << 20

    def port_candidates(self) -> list[tuple[int, int]]:
        """The (serial, power) port pairs to try, best first."""
        if self.serial_port is not None and self.power_port is not None:
            return [(self.serial_port, self.power_port)]
        if self.serial_port is not None:
            return [(self.serial_port, self.serial_port + 1)]
        if self.power_port is not None:
            return [(self.power_port - 1, self.power_port)]
        if self.name == DEFAULT_NAME:
            return [(DEFAULT_SERIAL_PORT, DEFAULT_POWER_PORT)]
        first = FIRST_CHOSEN_PORT
        return [(port, port + 1) for port in range(first, first + 400, 2)]

    def differences(self, running: BoardOptions) -> list[str]:
        """In what these options differ from those of a running board; a port of None matches."""
        ours = self.model_dump(mode="json")
        theirs = running.model_dump(mode="json")
        return [
            f"{name} {ours[name]!r}, running with {theirs[name]!r}"
            for name in ours
            if ours[name] != theirs[name]
            and not (name in ("serial_port", "power_port", "fastboot_port") and ours[name] is None)
        ]


def default_image_dir(base: str = "", variant: str = "") -> Path:
    """The newest product of ``farm build``; raises UsageError when there is none.

    ``base`` and ``variant`` are those of ``farm build``; "": its defaults.
    """
    cache = os.environ.get("PANIC_FARM_CACHE") or Path.home() / ".cache" / "panic-farm"
    marks = ["current", *filter(None, ("" if base == DEFAULT_BASE else base, variant))]
    current = Path(cache) / "virtual" / "-".join(marks)
    if not current.is_dir():
        command = ["farm build"]
        command += [f"--base {base}"] if base else []
        command += [f"--variant {variant}"] if variant else []
        raise UsageError(
            f"there are no images for a virtual board in {current}",
            f"Run `{' '.join(command)}` first, or give --image-dir, or --kernel, --initrd "
            "and --dtb.",
        )
    return current


def resolve_images(
    image_dir: Path | None,
    kernel: Path | None,
    initrd: Path | None,
    dtb: Path | None,
    *,
    base: str = "",
    variant: str = "",
) -> dict[str, Path]:
    """Absolute paths of kernel, initrd and dtb; raises UsageError naming a missing file.

    Symbolic links are followed now: a later build does not change a board that is up.
    """
    given = {"kernel": kernel, "initrd": initrd, "dtb": dtb}
    names = {"kernel": "Image", "initrd": "initramfs.cpio.gz", "dtb": "virtual.dtb"}
    if (base or variant) and image_dir is not None:
        raise UsageError("--image-dir names a build: --base and --variant would name another")
    if image_dir is None and any(path is None for path in given.values()):
        image_dir = default_image_dir(base, variant)
    images: dict[str, Path] = {}
    for part, path in given.items():
        if path is None:
            assert image_dir is not None
            path = image_dir / names[part]
        path = path.resolve()
        if not path.is_file():
            raise UsageError(f"--{part}: there is no file {path}")
        images[part] = path
    return images
