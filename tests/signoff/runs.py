"""Run folders with captures that can be judged again, and policies for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from farm.judge import judge
from farm.judge.totals import summarise
from farm.model import BenchFault, Cycle, Run
from farm.signoff.policy import SignoffPolicy
from tests.judge.cycles import Scene, flipped

BUILD = "00" * 20
TODAY = date(2026, 6, 1)


def write_run(
    folder: Path,
    scenarios: Sequence[str] = ("sysrq-c",) * 3,
    *,
    board: str = "board",
    virtual: bool = False,
    build: str = BUILD,
    broken: Sequence[int] = (),
    bench: Sequence[int] = (),
    large: int = 0,
) -> Run:
    """A run of one cycle per scenario; cycles in ``broken`` FAIL, those in ``bench`` are ERROR.

    With ``large`` the second sample's record is that many bytes longer.
    """
    cycles = []
    for number, scenario in enumerate(scenarios, 1):
        scene = Scene(manifest={"build_id": build}, panic={"build_id_after": build})
        if large:
            grown = scene.device(2).regions[0].model_copy(update={"size_bytes": 256 + large})
            scene.devices[1] = scene.device(2).model_copy(update={"regions": (grown,)})
        if number in broken:
            scene.records[2] = flipped(scene.record(2), 8 * 400)
        fault = (
            BenchFault(part="serial", stage="boot", message="the line is mute")
            if number in bench
            else None
        )
        given, read = scene.prepared(
            board=board,
            virtual=virtual,
            scenario=scenario,
            repeat=scenarios[:number].count(scenario),
            fault=fault,
        )
        cycle = f"cycles/{number:04d}-x"
        for capture in given.captures:
            path = folder / cycle / capture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read(capture))
        (folder / cycle / "console.log").write_text("Kernel panic\n")
        cycles.append(
            Cycle(
                number=number,
                scenario=scenario,
                repeat=given.repeat,
                folder=cycle,
                started=f"2026-05-01T00:{number:02d}:00.000+00:00",
                stages_s={},
                wall_s=4.0,
                board_s=3.0,
                input=given,
                result=judge(given, read),
            )
        )
    verdict, totals = summarise(one.result.verdict for one in cycles)
    run = Run(
        run_id=folder.name,
        farm_version="0.1.0",
        started="2026-05-01T00:00:00.000+00:00",
        board=board,
        virtual=virtual,
        lg_env="x.yaml",
        kernel_release="6.12.90",
        build_id=build,
        command=("farm", "run"),
        wall_s=60.0,
        board_s=40.0,
        wall_to_board=1.5,
        verdict=verdict,
        totals=totals,
        planned_cycles=len(cycles),
        cycles=tuple(cycles),
    )
    (folder / "run.json").write_text(run.model_dump_json())
    return run


def policy(**changes: Any) -> SignoffPolicy:
    """A policy that one run of `write_run` meets."""
    values: dict[str, Any] = {
        "name": "Release",
        "rule": "All must be well.",
        "kernel": {"build_id": BUILD},
        "required": [
            {
                "boards": ["board"],
                "scenarios": ["sysrq-c"],
                "channels": ["pstorefs"],
                "repeats": 3,
            }
        ],
        "drivers": ["panicdump-sample"],
        "budget_bytes": {"panicdump-*": 4096},
        "failure_rate": {"max": 0.64},
        "bench_errors": {"max_rate": 0.3},
        **changes,
    }
    return SignoffPolicy.model_validate(values)


POLICY_TEXT = f"""\
name: Release
rule: All must be well.
kernel: {{build_id: "{BUILD}"}}
required:
  - boards: [board]
    scenarios: [sysrq-c]
    channels: [pstorefs]
    repeats: 3
drivers: [panicdump-sample]
budget_bytes: {{"panicdump-*": 4096}}
"""
