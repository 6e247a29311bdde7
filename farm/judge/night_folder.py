"""A night's folder read back: night.json and the runs that it names.

What lies there is not trusted; a run that cannot be read is named and left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from farm.errors import FarmError, UsageError
from farm.judge.run_folder import inside, load_run
from farm.model import NIGHT_SCHEMA_VERSION, Night, NightKernel, Run

__all__ = ["NIGHT_NAME", "Runs", "load_kernels", "load_night", "load_runs", "read_runs"]

NIGHT_NAME = "night.json"


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a night by their folder, relative to the night's, and why others are missing."""

    by_folder: dict[str, Run]
    missing: dict[str, str]


def load_night(path: Path) -> Night:
    """Read ``night.json`` of the folder ``path``.

    Raises UsageError when it is not there, is damaged, or was written by another version.
    """
    return _read(path, lambda text, _: Night.model_validate_json(text))


def load_kernels(path: Path) -> tuple[NightKernel, ...]:
    """Read nothing but the kernels of a night, whose cycles may be many; errors as `load_night`."""
    return _read(path, lambda _, told: _Kernels.model_validate(told).kernels)


class _Kernels(BaseModel):
    kernels: tuple[NightKernel, ...]


_Content = TypeVar("_Content")


def _read(path: Path, content: Callable[[str, Any], _Content]) -> _Content:
    """Return what ``content`` makes of the file's text and of what it says."""
    file = path / NIGHT_NAME
    next_step = "Name the folder of one night: <out>/nights/<night-id>."
    try:
        text = file.read_text(encoding="utf-8")
        said = json.loads(text)
        version = said.get("schema_version")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", next_step) from error
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{file} is not a night's account: {error}", next_step) from error
    if version != NIGHT_SCHEMA_VERSION:
        raise UsageError(
            f"{file} has schema version {version!r}, this farm reads {NIGHT_SCHEMA_VERSION}",
            "Use the version of the farm that made the night.",
        )
    try:
        return content(text, said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{file}: {where}: {first['msg']}", next_step) from error


def load_runs(night_dir: Path, night: Night) -> Runs:
    """Read every run that the night names, as `read_runs` does."""
    return read_runs(night_dir, (*night.runs, *(cycle.run for cycle in night.cycles)))


def read_runs(night_dir: Path, folders: Iterable[str]) -> Runs:
    """Read the runs in ``folders`` of a night; one that leads out of the night's is not read."""
    found: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for folder in dict.fromkeys(folders):
        try:
            found[folder] = load_run(inside(night_dir, folder))
        except FarmError as error:
            missing[folder] = error.message
    return Runs(found, missing)
