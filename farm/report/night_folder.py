"""A night's folder read back: night.json, its runs, and what other nights say of themselves.

What cannot be read is named and left out: a night that lost a run is still reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from farm.errors import FarmError, UsageError
from farm.judge.run_folder import load_run
from farm.model import NIGHT_SCHEMA_VERSION, Frozen, Night, Run, Verdict

__all__ = [
    "NIGHT_NAME",
    "REPORT_FOLDER",
    "NightSummary",
    "Runs",
    "load_night",
    "load_runs",
    "load_summary",
    "summaries_of",
]

NIGHT_NAME = "night.json"
REPORT_FOLDER = "report"
SUMMARY_NAME = "summary.json"


class NightSummary(Frozen):
    """What the index of all nights shows of one; lies beside the night's pages."""

    night_id: str
    plan: str
    started: str
    wall_s: float
    verdict: Verdict
    headline: str
    cells: int
    passed: int
    failed: int
    errors: int
    holes: int
    regressions: int | None
    fixes: int | None
    kernels: tuple[str, ...]
    boards: int
    virtual_boards: int
    set_aside: int


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a night by their folder, relative to the night's, and why others are missing."""

    by_folder: dict[str, Run]
    missing: dict[str, str]


def load_night(path: Path) -> Night:
    """Read ``night.json`` of the folder ``path``.

    Raises UsageError when it is not there, is damaged, or was written by another version.
    """
    file = path / NIGHT_NAME
    next_step = "Name the folder of one night: <out>/nights/<night-id>."
    try:
        text = file.read_text(encoding="utf-8")
        version = json.loads(text).get("schema_version")
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
        return Night.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{file}: {where}: {first['msg']}", next_step) from error


def load_runs(night_dir: Path, night: Night) -> Runs:
    """Read every run that the night names; one that leads out of its folder is not read."""
    found: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for folder in dict.fromkeys((*night.runs, *(cycle.run for cycle in night.cycles))):
        relative = PurePosixPath(folder)
        if not folder or "\0" in folder or relative.is_absolute() or ".." in relative.parts:
            missing[folder] = "its path leads out of the night's folder"
            continue
        try:
            found[folder] = load_run(night_dir / relative)
        except FarmError as error:
            missing[folder] = error.message
    return Runs(found, missing)


def load_summary(night_dir: Path) -> NightSummary:
    """Read what lies beside a night's pages; raises OSError, ValidationError as they come."""
    file = night_dir / REPORT_FOLDER / SUMMARY_NAME
    return NightSummary.model_validate_json(file.read_text(encoding="utf-8"))


def summaries_of(nights_dir: Path) -> Iterator[tuple[Path, NightSummary | str]]:
    """Give every night below ``nights_dir``, newest first: its summary, or why there is none."""
    for folder in sorted(nights_dir.iterdir(), reverse=True):
        if folder.name.startswith(".") or not (folder / NIGHT_NAME).is_file():
            continue
        try:
            yield folder, load_summary(folder)
        except OSError:
            yield folder, "its report is not written yet: `farm report` makes it"
        except (ValidationError, UnicodeDecodeError):
            yield folder, "its report is damaged: `farm report` writes it again"
