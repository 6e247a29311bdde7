"""Nights made from values: runs of cycles with any verdict and any name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from farm.model import (
    Night,
    NightBoard,
    NightCell,
    NightHole,
    NightKernel,
    Run,
    Verdict,
)
from tests.nights import night_cycle
from tests.report.test_report import cycle, run_of

BUILD = "5e0dba1b9c3a4f7d8e6f00112233445566778899"


def run(
    verdicts: Iterable[Verdict],
    *,
    board: str = "virtual",
    virtual: bool = True,
    build: str = BUILD,
    release: str = "6.12.43",
    name: str = "panicdump-sample",
    run_id: str = "20260101-000000-0001",
    **changes: Any,
) -> Run:
    """A run with a cycle per verdict, scenarios ``scenario-0`` to ``-2`` in turn."""
    cycles = []
    for number, verdict in enumerate(verdicts, 1):
        one = cycle(number, verdict, name=name)
        given = one.input.model_copy(
            update={"board": board, "virtual": virtual, "scenario": one.scenario}
        )
        cycles.append(one.model_copy(update={"input": given}))
    made = run_of(*cycles)
    return made.model_copy(
        update={
            "run_id": run_id,
            "board": board,
            "virtual": virtual,
            "build_id": build,
            "kernel_release": release,
            "planned_cycles": len(cycles),
            **changes,
        }
    )


def night(
    runs: dict[str, Run],
    *,
    night_id: str = "20260101-220000-n",
    kernel: str = "v6.12",
    holes: Iterable[str] = (),
    **changes: Any,
) -> Night:
    """A night that consists of ``runs``, by folder; ``holes`` are scenarios of the first board."""
    cycles = []
    for folder, one in runs.items():
        for made in one.cycles:
            cycles.append(night_cycle(folder, made, kernel=kernel, board=one.board))
    first = next(iter(runs.values()))
    return Night(
        night_id=night_id,
        plan="quick",
        plan_sha256="0" * 64,
        farm_version="0.1.0",
        started="2026-01-01T22:00:00+00:00",
        finished="2026-01-01T23:00:00+00:00",
        wall_s=3600,
        verdict=first.verdict,
        totals={},
        kernels=(
            NightKernel(
                name=kernel,
                release=first.kernel_release,
                build_id=first.build_id,
                sha256={"config": "c" * 64, "image": "1" * 64, "series": "5" * 64},
            ),
        ),
        boards=tuple(
            NightBoard(name=one.board, lg_env=one.lg_env, virtual=one.virtual)
            for one in runs.values()
        ),
        runs=tuple(runs),
        cycles=tuple(cycles),
        holes=tuple(
            NightHole(
                cell=NightCell(
                    kernel=kernel,
                    board=first.board,
                    scenario=name,
                    channels=("sahara",),
                    repeat=1,
                ),
                reason="the night's time was up",
            )
            for name in holes
        ),
        **changes,
    )
