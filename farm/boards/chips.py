"""Facts of chips and boards that their device trees do not tell: chips.yaml, as a model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from farm.boards.area import Area
from farm.boards.tree import BoardTree
from farm.build.bootimage import BootLayout
from farm.errors import UsageError
from farm.yaml_file import read_yaml

FILE = Path(__file__).with_name("chips.yaml")


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Firmware(_Facts):
    """Memory that firmware uses; ``at`` is where and how long, in bytes."""

    at: tuple[int, int]
    name: str
    source: str

    @property
    def area(self) -> Area:
        """The memory, named with its source."""
        return Area(*self.at, f"{self.name} ({self.source})")


class RamoopsPlace(_Facts):
    """Where ramoops goes; ``instead``: even where the tree has a ramoops node elsewhere."""

    paddr: int
    source: str
    layout: Literal["default", "lk2nd"] = "default"
    instead: bool = False


class ChipFacts(_Facts):
    """What is known of a chip, or of one board with it.

    ``boot_image_source`` says who makes its boot images just so; "": it is what is usual.
    """

    name: str = ""
    ram: tuple[tuple[int, int], ...] = Field(min_length=1)
    ram_source: str
    bootloader: Literal["lk2nd", "abl", "u-boot"] = "abl"
    storage: Literal["emmc", "ufs", "nand"] = "ufs"
    slots: bool = True
    ramoops: RamoopsPlace | None = None
    firmware: tuple[Firmware, ...] = ()
    boot_image: BootLayout = BootLayout()
    boot_image_source: str = ""

    @field_validator("ram")
    @classmethod
    def _in_order(cls, ram: Any) -> Any:
        return tuple(sorted(ram))


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    chips: dict[str, ChipFacts]


@cache
def _all() -> dict[str, ChipFacts]:
    return read_yaml(FILE, _File).chips


def facts_of(tree: BoardTree) -> ChipFacts | None:
    """The facts of the board, else of its chip; None for a chip that is not known."""
    for name in tree.compatible:
        if (found := _all().get(name)) is not None:
            return found.model_copy(update={"name": name})
    return None


def known() -> tuple[str, ...]:
    """The names in the file."""
    return tuple(_all())


def require(tree: BoardTree) -> ChipFacts:
    """The facts; UsageError for a chip that nothing is known of."""
    found = facts_of(tree)
    if found is None:
        raise UsageError(
            f"{tree.source}: nothing is known of {', '.join(tree.compatible) or 'this board'}",
            f"Known are {', '.join(known())}. Give --ram and --bootloader, or add the chip to "
            f"{FILE}.",
        )
    return found
