"""The farm's own part of a labgrid environment file, as a model: checked by line, and published.

labgrid has no schema and ignores what it does not know. What is the farm's is strict here: the
target's keys, its options, and the arguments of the farm's drivers, which are taken from the driver
classes themselves. Resources and labgrid's own drivers are labgrid's business.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Any

import attr
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from farm.bench.bootmodes import CrashMode, DownloadMode, Edl, Fastboot
from farm.bench.console import RecordedConsole
from farm.bench.debug_board import (
    QcomltDebugBoard,
    QcomltFastbootKey,
    QcomltPower,
    QcomltPowerKey,
    QcomltUsb,
)
from farm.bench.options import TargetOptions
from farm.bench.shell import BoardShell
from farm.bench.strategy import PanicFarmStrategy
from farm.bench.tac import (
    TacBoard,
    TacEdlStrap,
    TacFastbootKey,
    TacPower,
    TacPowerKey,
    TacUsb,
)
from farm.bench.usb import UsbBoot
from farm.yaml_file import Places, check, read_text

__all__ = ["EnvironmentFile", "check_target", "places_of", "schema"]

_DRIVERS = (
    RecordedConsole,
    BoardShell,
    UsbBoot,
    CrashMode,
    Edl,
    Fastboot,
    DownloadMode,
    PanicFarmStrategy,
    QcomltDebugBoard,
    QcomltPower,
    QcomltFastbootKey,
    QcomltPowerKey,
    QcomltUsb,
    TacBoard,
    TacPower,
    TacFastbootKey,
    TacPowerKey,
    TacEdlStrap,
    TacUsb,
)
_HINT = "See devices/virtual.yaml; `farm schema` prints what there may be."


class _Arguments(BaseModel):
    """Arguments of a driver: a misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")


def _arguments(driver: type[Any]) -> type[BaseModel]:
    """A model of what a driver of the farm's takes, made of its attrs fields."""
    hints = typing.get_type_hints(driver)
    fields: dict[str, Any] = {}
    for one in attr.fields(driver):
        if not one.init or one.name in ("target", "name"):
            continue
        kind: Any = hints.get(one.name, Any)
        choices = getattr(one.validator, "options", None)
        if choices:
            kind = typing.Literal[tuple(choices)]
        elif one.converter is str:
            kind = str | int | float | bool
        default = one.default
        if isinstance(default, attr.Factory):  # type: ignore[arg-type]
            default = default.factory()
        # A name such as `on` is fine for pydantic; `copy` would not be, hence the alias.
        fields[f"{one.name}_"] = (kind, Field(default=default, alias=one.name))
    name = driver.__name__
    said = (driver.__doc__ or "").split("\n", 1)[0]
    return create_model(name, __base__=_Arguments, __doc__=said, **fields)


_DriversBase = create_model(
    "Drivers",
    __config__=ConfigDict(extra="allow"),
    __doc__="labgrid's drivers, and the farm's own, by class.",
    **{one.__name__: (_arguments(one) | None, None) for one in _DRIVERS},  # type: ignore[call-overload]
)


class Target(BaseModel):
    """A board: where it is, how it is reached, what the farm wants of it."""

    model_config = ConfigDict(extra="forbid")

    features: list[str] = Field(
        default=[], description="what scenarios and channels may ask for: sysrq, break, lkdtm ..."
    )
    options: TargetOptions
    resources: dict[str, Any] | list[Any] = {}
    drivers: Annotated[
        Annotated[_DriversBase, Tag("by class")] | Annotated[list[Any], Tag("as a list")],  # type: ignore[valid-type]
        Discriminator(lambda value: "as a list" if isinstance(value, list) else "by class"),
    ] = _DriversBase()


class EnvironmentFile(BaseModel):
    """A labgrid environment with the farm's target `main`; other keys are labgrid's."""

    model_config = ConfigDict(extra="allow")

    imports: list[str] = []
    targets: dict[str, Target]


def places_of(lg_env: Path) -> Places:
    """The places of an environment file's keys; UsageError for what is no YAML."""
    return Places(lg_env, read_text(lg_env))


def check_target(data: Any, role: str, places: Places) -> None:
    """Check a target as labgrid has read it; UsageError names line, field and what is expected."""
    check(Target, data, places, ("targets", role), _HINT)


def schema() -> dict[str, Any]:
    """The JSON schema of the farm's part of an environment file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **EnvironmentFile.model_json_schema(by_alias=True),
        "title": "Panic Farm: a board's labgrid environment",
    }
