"""From a run or a night to the values of the history's tables; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from farm.model import (
    Cycle,
    CycleVerdict,
    Finding,
    Night,
    NightCycle,
    Purpose,
    Run,
    Verdict,
)

_LARGEST = (1 << 63) - 1


def text(value: str) -> str:
    """``value`` as every database can hold it: no NUL, no half of a surrogate pair."""
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def number(value: int | None) -> int | None:
    """``value``, at most what a signed column of 64 bits holds."""
    return None if value is None else max(-_LARGEST, min(value, _LARGEST))


def weightiest(result: CycleVerdict) -> Finding | None:
    """The finding that explains the verdict; None where nothing is wrong."""
    if result.verdict is Verdict.PASS:
        return None
    guilty = [one for one in result.findings if one.verdict is result.verdict]
    told = [one for one in guilty if one.message == result.why]
    return next(iter(told or guilty), None)


def night_values(night: Night) -> dict[str, Any]:
    """The row of a night."""
    return {
        "night_id": night.night_id,
        "plan": text(night.plan),
        "plan_sha256": night.plan_sha256,
        "farm_version": night.farm_version,
        "started": night.started,
        "finished": night.finished,
        "wall_s": night.wall_s,
        "verdict": night.verdict.value,
        "totals": json.dumps(night.totals),
        "holes": len(night.holes),
        "ended_early": text(night.ended_early),
        "interrupted": night.interrupted,
    }


def run_values(run: Run, path: str, night_id: str | None, kernel: str) -> dict[str, Any]:
    """The row of a run."""
    return {
        "run_id": run.run_id,
        "night_id": night_id,
        "path": text(path),
        "farm_version": run.farm_version,
        "started": run.started,
        "finished": run.finished,
        "board": text(run.board),
        "virtual": run.virtual,
        "lg_env": text(run.lg_env),
        "kernel": text(kernel),
        "release": run.kernel_release and text(run.kernel_release),
        "build_id": run.build_id and text(run.build_id),
        "wall_s": run.wall_s,
        "board_s": run.board_s,
        "verdict": run.verdict.value,
        "ended_early": text(run.ended_early),
        "interrupted": run.interrupted,
    }


def _channels(cycle: Cycle) -> str:
    """The channels that a run's cycle was read by; what was asked for is not in run.json."""
    read = {one.channel for one in cycle.input.channels}
    read |= {one.channel for one in cycle.input.captures if not one.ground_truth}
    return text(",".join(sorted(read)))


def cycle_values(run: Run, cycle: Cycle) -> dict[str, Any]:
    """The row of a run's cycle, as it is outside a night."""
    manifest, result = cycle.input.manifest, cycle.result
    release = manifest.kernel_release if manifest else run.kernel_release
    build_id = manifest.build_id if manifest else run.build_id
    finding = weightiest(result)
    evidence = finding.evidence if finding else None
    offset = None
    if evidence is not None:
        offset = evidence.region_offset if evidence.region_offset is not None else evidence.offset
    return {
        "night_id": None,
        "run_id": run.run_id,
        "number": cycle.number,
        "started": cycle.started,
        "kernel": "",
        "release": release and text(release),
        "build_id": build_id and text(build_id),
        "board": text(cycle.input.board),
        "virtual": cycle.input.virtual,
        "scenario": text(cycle.scenario),
        "channels": _channels(cycle),
        "repeat": cycle.repeat,
        "attempt": 1,
        "purpose": Purpose.PLAN.value,
        "counts": True,
        "verdict": result.verdict.value,
        "blame": result.blame.value if result.blame else None,
        "why": text(result.why),
        "wall_s": cycle.wall_s,
        "board_s": cycle.board_s,
        "stages_s": json.dumps(cycle.stages_s),
        "used_bytes": number(result.used_bytes),
        "capacity_bytes": number(result.capacity_bytes),
        "finding_kind": finding.kind.value if finding else None,
        "finding_driver": text(finding.driver) if finding and finding.driver else None,
        "finding_device": text(finding.device) if finding and finding.device else None,
        "finding_offset": number(offset),
    }


def night_cycle_values(
    night: Night, one: NightCycle, run: Run | None, cycle: Cycle | None
) -> dict[str, Any]:
    """The row of a night's cycle; without its run, what night.json alone tells of it."""
    kernel = next((k for k in night.kernels if k.name == one.cell.kernel), None)
    if run is not None and cycle is not None:
        values = cycle_values(run, cycle)
        values["release"] = values["release"] or (kernel.release if kernel else None)
        values["build_id"] = values["build_id"] or (kernel.build_id if kernel else None)
    else:
        board = next((b for b in night.boards if b.name == one.cell.board), None)
        values = {
            "run_id": one.run.rsplit("/", 1)[-1] if run is None else run.run_id,
            "release": kernel.release if kernel else None,
            "build_id": kernel.build_id if kernel else None,
            # Not known to be hardware: it must not be counted as such.
            "virtual": board is None or board.virtual,
            "board_s": 0.0,
            "stages_s": "{}",
            "used_bytes": 0,
            "capacity_bytes": 0,
            "finding_kind": None,
            "finding_driver": None,
            "finding_device": None,
            "finding_offset": None,
        }
    return {
        **values,
        "night_id": night.night_id,
        "number": one.number,
        "started": one.started,
        "kernel": text(one.cell.kernel),
        "board": text(one.cell.board),
        "scenario": text(one.cell.scenario),
        "channels": text(",".join(sorted(one.cell.channels))),
        "repeat": one.cell.repeat,
        "attempt": one.attempt,
        "purpose": one.purpose.value,
        "counts": one.counts,
        "verdict": one.verdict.value,
        "blame": one.blame.value if one.blame else None,
        "why": text(one.why),
        "wall_s": one.wall_s,
    }


def device_values(cycle_id: int, result: CycleVerdict) -> list[dict[str, Any]]:
    """The rows of a cycle's devices."""
    return [
        {
            "cycle_id": cycle_id,
            "position": position,
            "device": text(one.device),
            "driver": text(one.driver),
            "record_bytes": number(one.record_bytes),
            "data_bytes": number(one.data_bytes),
            "budget_bytes": number(one.budget_bytes),
            "verdict": one.verdict.value,
            "why": text(one.why),
        }
        for position, one in enumerate(result.devices)
    ]


def size_values(
    night_id: str, counted: Iterable[tuple[Mapping[str, Any], CycleVerdict]]
) -> list[dict[str, Any]]:
    """The smallest and largest record of each device, of cycles that count.

    A device of which nothing arrived has no size.
    """
    sizes: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for values, result in counted:
        for one in result.devices:
            if one.record_bytes <= 0:
                continue
            key = (values["kernel"], values["board"], text(one.driver), text(one.device))
            found = sizes.setdefault(
                key,
                {
                    "night_id": night_id,
                    **dict(zip(("kernel", "board", "driver", "device"), key, strict=True)),
                    "min_bytes": number(one.record_bytes),
                    "max_bytes": number(one.record_bytes),
                },
            )
            found["min_bytes"] = min(found["min_bytes"], number(one.record_bytes))
            found["max_bytes"] = max(found["max_bytes"], number(one.record_bytes))
            found["budget_bytes"] = number(one.budget_bytes)
    return list(sizes.values())
