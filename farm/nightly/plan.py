"""The plan of a night: a YAML file, checked by line and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from farm.errors import FarmError
from farm.model import Policy
from farm.run.channels import parse_channels
from farm.scenarios import Scenario, scenario_named, select
from farm.yaml_file import read_yaml

__all__ = ["Build", "NightPlan", "Places", "Prebuilt", "duration_s", "read_plan", "schema"]

_HINT = "See `farm nightly --help`; `farm nightly --schema` prints what a plan may hold."
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)? ?(?:(\d+(?:\.\d+)?)m(?:in)?)? ?(?:(\d+(?:\.\d+)?)s)?"
)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def duration_s(text: Any) -> float:
    """Seconds of ``6h``, ``1h 30m``, ``90s`` or a number of seconds; raises ValueError."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError("this is no duration, for example 6h, 1h 30m or 90s")
    if isinstance(text, str):
        found = _DURATION.fullmatch(text.strip())
        if not found or not any(found.groups()):
            raise ValueError("this is no duration, for example 6h, 1h 30m or 90s")
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        text = 3600 * hours + 60 * minutes + seconds
    if text <= 0:
        raise ValueError("a duration must be more than nothing")
    return float(text)


def _channels(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise ValueError("a set of channels is text, for example pstorefs,sahara")
    try:
        return parse_channels(value)
    except FarmError as error:
        raise ValueError(
            f"{error.message.removeprefix('--channel: ')}. {error.next_step}"
        ) from None


def _scenario(value: str) -> str:
    try:
        select([value])
    except FarmError as error:
        raise ValueError(f"{error.message}. {error.next_step}") from None
    return value


class _Strict(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Build(_Strict):
    """A kernel that is built for each board, as `farm build` does."""

    name: str = Field(pattern=_NAME)
    base: str = Field(default="", description='kernel version; "": what the board\'s options say')
    variant: str = Field(default="", description="kernel-patches/configs/VARIANT.config on top")
    patches: tuple[Path, ...] = Field(default=(), description="on top of the series, in order")


class Prebuilt(_Strict):
    """A kernel that is there already: a boot image as it is flashed, and its vmlinux."""

    name: str = Field(pattern=_NAME)
    boot_image: Path
    vmlinux: Path = Field(description="by its build id the kernel is known again")


def _kernel_kind(value: Any) -> Any:
    """Say of which kind a kernel is meant to be, so that errors speak of that kind alone."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        raise ValueError("a kernel is a name, or a mapping with at least `name`")
    kind = Prebuilt if {"boot_image", "vmlinux"} & set(value) else Build
    unknown = sorted(set(value) - set(kind.model_fields))
    if unknown:
        raise ValueError(
            f"there is no key `{unknown[0]}` here; the keys are {', '.join(kind.model_fields)}"
        )
    return kind.model_validate(value)


class Places(_Strict):
    """Boards that a labgrid coordinator knows: all its places with these tags and features."""

    tags: dict[str, str] = Field(default={}, description="as `labgrid-client set-tags` wrote them")
    features: tuple[str, ...] = Field(default=(), description="sahara, fastboot ...")
    cells: Literal["shared", "each"] = Field(
        default="shared",
        description="shared: places with one description share the cells, each is run once, by "
        "whichever is free; each: every place runs them all",
    )

    @model_validator(mode="after")
    def _chosen_by_something(self) -> Self:
        if not self.tags and not self.features:
            raise ValueError("places are chosen by tags or features: name at least one")
        return self


def _board_kind(value: Any) -> Any:
    """Say of which kind a board is meant to be, so that errors speak of that kind alone."""
    if isinstance(value, dict):
        unknown = sorted(set(map(str, value)) - set(Places.model_fields))
        if unknown:
            raise ValueError(
                f"there is no key `{unknown[0]}` here; the keys are "
                f"{', '.join(Places.model_fields)}"
            )
        return Places.model_validate(value)
    if isinstance(value, str | Path):
        return Path(value)
    raise ValueError("a board is an environment file, or tags and features of places")


class SetAside(_Strict):
    """When a board is no longer trusted as a bench, and how it comes back."""

    after: int = Field(default=3, ge=1, description="bench failures in a row")
    training: int = Field(default=3, ge=1, description="clean training cycles in a row")
    scenario: Annotated[str, AfterValidator(lambda name: scenario_named(_scenario(name)).name)] = (
        Field(default="sysrq-c", description="what a training cycle runs")
    )


class NightPlan(_Strict):
    """What a night is to run: every kernel on every board, by every scenario and channel set.

    Paths are relative to the plan's folder.
    """

    name: str = Field(min_length=1, max_length=100, description="nights of one name are compared")
    kernels: Annotated[
        tuple[Annotated[Build | Prebuilt, BeforeValidator(_kernel_kind)], ...],
        Field(min_length=1),
    ] = (Build(name="default"),)
    boards: tuple[Annotated[Path | Places, BeforeValidator(_board_kind)], ...] = Field(
        min_length=1, description="labgrid environments, or places of a coordinator"
    )
    wait: Annotated[float, BeforeValidator(duration_s)] = Field(
        default=1800.0,
        validate_default=False,
        description="for a place that somebody has or that is lost: 30m; in seconds inside",
    )
    scenarios: tuple[Annotated[str, AfterValidator(_scenario)], ...] = Field(
        default=("quick",), min_length=1, description="names, patterns, groups, quick or all"
    )
    channels: tuple[Annotated[tuple[str, ...], BeforeValidator(_channels)], ...] = Field(
        default=(("pstorefs",),), min_length=1, description="sets, each read in one panic"
    )
    repeats: int = Field(default=1, ge=1)
    flash: Literal["fastboot", "edl", "none"] = Field(
        default="fastboot", description="none: boards boot what they have"
    )
    retries: int = Field(default=1, ge=0, le=10, description="after an ERROR, for each cell")
    budget: Annotated[float, BeforeValidator(duration_s)] | None = Field(
        default=None, description="of the night: 6h, 90m; in seconds inside"
    )
    set_aside: SetAside = SetAside()
    policy: Policy = Field(default=Policy(), description="on top of the boards' own")

    @field_validator("kernels")
    @classmethod
    def _named_once(cls, kernels: tuple[Build | Prebuilt, ...]) -> tuple[Build | Prebuilt, ...]:
        names = [one.name for one in kernels]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two kernels are called {twice[0]}")
        return kernels

    @model_validator(mode="after")
    def _kernels_reach_the_boards(self) -> Self:
        if self.flash == "none" and (
            len(self.kernels) > 1 or self.kernels[0] != Build(name=self.kernels[0].name)
        ):
            raise ValueError(
                "with `flash: none` the boards boot what they have: name one kernel, and nothing "
                "of what it is made from"
            )
        return self

    @property
    def chosen(self) -> tuple[Scenario, ...]:
        """The scenarios that the patterns name, each once."""
        return select(self.scenarios)


def read_plan(path: Path) -> NightPlan:
    """Read a plan; UsageError names file, line, field and what was expected."""
    plan = read_yaml(path, NightPlan, _HINT)
    below = path.parent

    def placed(kernel: Build | Prebuilt) -> Build | Prebuilt:
        if isinstance(kernel, Build):
            return kernel.model_copy(update={"patches": tuple(below / p for p in kernel.patches)})
        return kernel.model_copy(
            update={"boot_image": below / kernel.boot_image, "vmlinux": below / kernel.vmlinux}
        )

    return plan.model_copy(
        update={
            "boards": tuple(
                board if isinstance(board, Places) else below / board for board in plan.boards
            ),
            "kernels": tuple(placed(kernel) for kernel in plan.kernels),
        }
    )


def schema() -> dict[str, Any]:
    """The JSON schema of a plan."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **NightPlan.model_json_schema(),
        "title": "Panic Farm: the plan of a night",
    }
