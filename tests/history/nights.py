"""Nights made from values, as many as wanted: real `Run`s, for the history's own store.

    python -m tests.history.nights --cycles 100000 --to history.sqlite

fills a history and prints what filling it and the usual queries cost.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from farm.history import History, open_history
from farm.judge.totals import summarise
from farm.model import (
    Blame,
    ChannelRead,
    Cycle,
    CycleInput,
    CycleVerdict,
    DeviceVerdict,
    Evidence,
    Finding,
    FindingKind,
    Night,
    NightBoard,
    NightCycle,
    NightKernel,
    Policy,
    Run,
    Subject,
    Verdict,
)
from tests.nights import night_cycle

FIRST = datetime(2026, 1, 1, 20, tzinfo=UTC)
SCENARIOS = ("sysrq-c", "lkdtm-panic", "lkdtm-bug", "lkdtm-softlockup", "lkdtm-exhaust-stack")


@dataclass
class Shape:
    """How large the nights are."""

    boards: int = 2
    kernels: int = 1
    scenarios: int = 2
    repeats: int = 2
    devices: int = 3
    plan: str = "all boards"
    virtual: bool = True
    build_id: str = ""  # the same in every night, else one of each night's own
    fail: frozenset[int] = field(default_factory=frozenset)  # nights in which a driver fails
    error: frozenset[int] = field(default_factory=frozenset)  # nights with a bench failure

    @property
    def cycles(self) -> int:
        return self.boards * self.kernels * self.scenarios * self.repeats


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def verdict_of(shape: Shape, verdict: Verdict, night: int, rng: random.Random) -> CycleVerdict:
    rows = []
    for index in range(shape.devices):
        driver = f"driver-{index % 7}"
        bad = verdict is Verdict.FAIL and index == 1
        rows.append(
            DeviceVerdict(
                device=f"{driver}.{index}",
                driver=driver,
                record_bytes=2048 + 16 * night + rng.randrange(64) - (4 if bad else 0),
                data_bytes=1024,
                budget_bytes=8192,
                verdict=Verdict.FAIL if bad else Verdict.PASS,
                why="truncated by 4 bytes at 0x3fc" if bad else "intact, 3 regions by CRC only",
            )
        )
    findings: tuple[Finding, ...] = ()
    blame, why = None, f"{shape.devices} devices intact"
    if verdict is Verdict.FAIL:
        blame, why = Blame.KERNEL, rows[1].why
        findings = (
            Finding(
                subject=Subject.DEVICE,
                kind=FindingKind.TRUNCATED,
                verdict=verdict,
                message=why,
                device=rows[1].device,
                driver=rows[1].driver,
                evidence=Evidence(file="captures/x", offset=0x1000, region_offset=0x3FC),
                blame=blame,
            ),
        )
    elif verdict is Verdict.ERROR:
        blame, why, rows = Blame.BENCH, "serial: silent", []
        findings = (
            Finding(
                subject=Subject.BOARD,
                kind=FindingKind.SERIAL_SILENT,
                verdict=verdict,
                message=why,
                blame=blame,
            ),
        )
    return CycleVerdict(
        verdict=verdict,
        why=why,
        devices=tuple(rows),
        findings=findings,
        blame=blame,
        used_bytes=sum(row.record_bytes for row in rows),
        capacity_bytes=262144,
    )


def make_night(index: int, shape: Shape, seed: int = 1) -> tuple[Night, dict[str, Run]]:
    """The night ``index`` days after the first one: itself and its runs by name."""
    rng = random.Random(seed * 100_003 + index)
    begin = FIRST + timedelta(days=index)
    night_id = f"{begin:%Y%m%d-%H%M%S}-{index & 0xFFFF:04x}"
    runs: dict[str, Run] = {}
    cycles: list[NightCycle] = []
    boards = [f"board-{number}" for number in range(shape.boards)]
    kernels = [f"kernel-{number}" for number in range(shape.kernels)]
    for board in boards:
        for kernel in kernels:
            name = f"runs/{night_id}-{board}-{kernel}"
            run_cycles: list[Cycle] = []
            own: list[NightCycle] = []
            for repeat in range(1, shape.repeats + 1):
                for number in range(shape.scenarios):
                    scenario = SCENARIOS[number % len(SCENARIOS)]
                    if number >= len(SCENARIOS):
                        scenario += f"-{number}"
                    first = not run_cycles and board == boards[0]
                    verdict = Verdict.PASS
                    if first and index in shape.fail:
                        verdict = Verdict.FAIL
                    elif first and index in shape.error:
                        verdict = Verdict.ERROR
                    result = verdict_of(shape, verdict, index, rng)
                    at = begin + timedelta(seconds=8 * len(run_cycles))
                    cycle = Cycle(
                        number=len(run_cycles) + 1,
                        scenario=scenario,
                        repeat=repeat,
                        folder=f"cycles/{len(run_cycles) + 1:04d}-{scenario}",
                        started=stamp(at),
                        stages_s={"boot": 1.0, "panic": 0.5, "reset": 1.5, "judge": 0.1},
                        wall_s=7.5,
                        board_s=2.5,
                        input=CycleInput(
                            board=board,
                            virtual=shape.virtual,
                            scenario=scenario,
                            repeat=repeat,
                            manifest=None,
                            panic=None,
                            captures=(),
                            channels=(
                                ChannelRead(
                                    channel="pstorefs",
                                    wanted_bytes=1,
                                    received_bytes=1,
                                    seconds=0.1,
                                ),
                            ),
                            policy=Policy(),
                        ),
                        result=result,
                    )
                    run_cycles.append(cycle)
                    own.append(night_cycle(name, cycle, kernel=kernel, board=board))
            verdict, totals = summarise(cycle.result.verdict for cycle in run_cycles)
            runs[name] = Run(
                run_id=name.removeprefix("runs/"),
                farm_version="0.1.0",
                started=run_cycles[0].started,
                finished=stamp(begin + timedelta(hours=1)),
                board=board,
                virtual=shape.virtual,
                lg_env=f"devices/{board}.yaml",
                kernel_release="6.12.94",
                build_id=shape.build_id or f"{index:08x}-{kernel}",
                command=("farm", "nightly"),
                wall_s=3600.0,
                board_s=1200.0,
                wall_to_board=3.0,
                verdict=verdict,
                totals=totals,
                planned_cycles=len(run_cycles),
                cycles=tuple(run_cycles),
            )
            cycles += own
    verdict, totals = summarise(one.verdict for one in cycles)
    night = Night(
        night_id=night_id,
        plan=shape.plan,
        plan_sha256="0" * 64,
        farm_version="0.1.0",
        started=stamp(begin),
        finished=stamp(begin + timedelta(hours=1)),
        wall_s=3600.0,
        verdict=verdict,
        totals=totals,
        kernels=tuple(
            NightKernel(
                name=name, release="6.12.94", build_id=shape.build_id or f"{index:08x}-{name}"
            )
            for name in kernels
        ),
        boards=tuple(
            NightBoard(name=name, lg_env=f"devices/{name}.yaml", virtual=shape.virtual)
            for name in boards
        ),
        runs=tuple(runs),
        cycles=tuple(cycles),
    )
    return night, runs


LARGE = Shape(boards=4, kernels=2, scenarios=25, repeats=5, devices=10)


def fill(history: History, cycles: int, shape: Shape = LARGE, first: int = 0) -> list[Night]:
    """Add nights of ``shape`` until there are ``cycles`` more; returns them."""
    nights = []
    for index in range(first, first + -(-cycles // shape.cycles)):
        night, runs = make_night(index, shape)
        history.add_night(night, runs)
        nights.append(night)
    return nights


def queries(history: History, nights: list[Night]) -> dict[str, Callable[[], Any]]:
    """What a report and a sign-off ask for."""
    last = nights[-1]
    ids = [row.id for row in history.cycles(night_id=last.night_id)]
    return {
        "the last 100 nights": lambda: history.nights(limit=100),
        "the last good night": lambda: history.last_good_night(last.plan, last.night_id),
        "the cycles of a night": lambda: history.cycles(night_id=last.night_id),
        "the devices of a night": lambda: history.devices(ids),
        "the sizes of 30 nights": lambda: history.sizes(board="board-0"),
        "the cycles of a kernel": lambda: history.cycles(
            build_ids=[last.kernels[0].build_id or ""]
        ),
        "a scenario on a board": lambda: history.cycles(
            boards=["board-0"], scenarios=["sysrq-c"], since=nights[len(nights) // 2].started
        ),
        "all cycles": lambda: history.cycles(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    parser.add_argument("--to", default="", help="a path or a URL")
    options = parser.parse_args()
    url = options.to if "://" in options.to else f"sqlite:///{options.to or 'history.sqlite'}"
    with open_history(url) as history:
        before = time.monotonic()
        nights = fill(history, options.cycles)
        spent_s = time.monotonic() - before
        rows = options.cycles * LARGE.devices
        print(f"{len(nights)} nights, {options.cycles} cycles, {rows} device rows: {spent_s:.1f} s")
        for name, query in queries(history, nights).items():
            before = time.monotonic()
            count = query()
            spent_s = time.monotonic() - before
            print(f"{name}: {len(count) if isinstance(count, list) else 1} rows, {spent_s:.3f} s")
    path = Path(url.removeprefix("sqlite:///"))
    if path.is_file():
        print(f"{path}: {path.stat().st_size / (1 << 20):.0f} MiB")


if __name__ == "__main__":
    main()
