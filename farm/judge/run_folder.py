"""A run's folder read back and judged again, offline.

The layout of the folder is `farm.run.store`'s. What lies there is not trusted: a path in it never
leads out of the cycle's folder, and a capture counts only with the sha256 it was stored with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from farm.errors import BenchError, UsageError
from farm.judge.judge import judge
from farm.judge.totals import summarise
from farm.model import RUN_SCHEMA_VERSION, Capture, Cycle, CycleInput, CycleVerdict, Run

__all__ = [
    "INPUT_NAME",
    "RESULT_NAME",
    "RUN_NAME",
    "checked",
    "judge_cycle_folder",
    "load_run",
    "reader_for",
    "rejudge",
    "replace_text",
    "write_judged",
]

RUN_NAME = "run.json"
INPUT_NAME = "input.json"
RESULT_NAME = "result.json"

_Model = TypeVar("_Model", bound=BaseModel)


def inside(folder: Path, relative: str) -> Path:
    """Return ``relative`` below ``folder``; UsageError when it leads out of it, symlinks too."""
    parts = PurePosixPath(relative)
    path = folder / parts
    if (
        not relative
        or "\0" in relative
        or parts.is_absolute()
        or ".." in parts.parts
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise UsageError(
            f"{folder}: the path {relative!r} leads out of this folder",
            "The run folder was not written by the farm, or was changed since.",
        )
    return path


def checked(capture: Capture, data: bytes) -> bytes:
    """Return ``data`` if it is what was captured; raises BenchError (part ``disk``) if not."""
    found = hashlib.sha256(data).hexdigest()
    if found != capture.sha256:
        raise BenchError(
            f"{capture.path} is not what was captured: sha256 {found[:16]}..., "
            f"stored {capture.sha256[:16]}...",
            part="disk",
            next_step="Restore the file; a changed capture is no evidence.",
        )
    return data


def reader_for(folder: Path) -> Callable[[Capture], bytes]:
    """Return what reads captures below a cycle's ``folder`` and holds them against their sha256.

    The reader raises UsageError for a path that leads out, BenchError (part ``disk``) for a file
    that is gone or is not what was stored.
    """

    def read(capture: Capture) -> bytes:
        path = inside(folder, capture.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BenchError(
                f"{capture.path} cannot be read: {error.strerror}", part="disk"
            ) from error
        return checked(capture, data)

    return read


def _load(path: Path, model: type[_Model], next_step: str) -> _Model:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", next_step) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text at byte {error.start}", next_step) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path}: {where}: {first['msg']}", next_step) from error


def load_run(path: Path) -> Run:
    """Read ``run.json`` of the run folder ``path``.

    Raises UsageError when the folder is no run's, or was written by another version of the farm.
    """
    file = path / RUN_NAME
    try:
        version = json.loads(file.read_text(encoding="utf-8")).get("schema_version")
    except (OSError, ValueError, AttributeError):
        version = RUN_SCHEMA_VERSION  # what is wrong is said below, with its place
    if version != RUN_SCHEMA_VERSION:
        raise UsageError(
            f"{file} has schema version {version!r}, this farm reads {RUN_SCHEMA_VERSION}",
            "Use the version of the farm that made the run.",
        )
    return _load(file, Run, "Name the folder of one run: reports/<run-id>.")


def _check_paths(folder: Path, cycle: CycleInput) -> None:
    for capture in cycle.captures:
        inside(folder, capture.path)


def judge_cycle_folder(
    folder: Path, cycle: CycleInput | None = None
) -> tuple[CycleInput, CycleVerdict]:
    """Judge the cycle whose captures lie below ``folder``; its input comes from ``input.json``.

    ``cycle`` is the input where it is at hand already. A capture that is gone or changed becomes a
    finding. Raises UsageError for an unreadable input and for a capture's path that leads out.
    """
    if cycle is None:
        cycle = _load(folder / INPUT_NAME, CycleInput, "A cycle is judged from its input.json.")
    _check_paths(folder, cycle)
    return cycle, judge(cycle, reader_for(folder))


def rejudge(run_dir: Path) -> Run:
    """Judge every cycle of a run again from its ``input.json`` and captures; nothing is written.

    Times, order and the account of how the run ended stay as stored; inputs, verdicts and totals
    are made anew. Raises UsageError as `load_run` and `judge_cycle_folder` do.
    """
    run = load_run(run_dir)
    cycles: list[Cycle] = []
    for cycle in run.cycles:
        folder = inside(run_dir, cycle.folder)
        stored, result = judge_cycle_folder(folder)
        cycles.append(cycle.model_copy(update={"input": stored, "result": result}))
    verdict, totals = summarise(cycle.result.verdict for cycle in cycles)
    return run.model_copy(update={"cycles": tuple(cycles), "verdict": verdict, "totals": totals})


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` so that the file appears whole or not at all.

    Raises BenchError (part ``disk``) when it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}", part="disk") from error


def write_judged(run_dir: Path, run: Run) -> tuple[Path, ...]:
    """Store what `rejudge` returned: each cycle's ``result.json``, and ``run.json`` last."""
    written = []
    for cycle in run.cycles:
        path = inside(run_dir, cycle.folder) / RESULT_NAME
        replace_text(path, cycle.result.model_dump_json(indent=1) + "\n")
        written.append(path)
    replace_text(run_dir / RUN_NAME, run.model_dump_json(indent=1) + "\n")
    return (*written, run_dir / RUN_NAME)
