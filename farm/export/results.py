"""What every form is written from: the cycles that count, the holes, and whose results they are.

A run and a night come to the same: a night adds the plan's names for kernels, holes that are known
by name, and attempts that do not count. A run that a night names but that cannot be read is
named; its cycles keep the verdicts that the night stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from farm.errors import UsageError
from farm.judge.night_folder import NIGHT_NAME, load_night, load_runs
from farm.judge.run_folder import RUN_NAME, load_run
from farm.judge.totals import summarise
from farm.model import (
    Cycle,
    Night,
    Purpose,
    Run,
    Verdict,
)

__all__ = [
    "Case",
    "Kernel",
    "Outcome",
    "Results",
    "Suite",
    "load_results",
    "results_of_night",
    "results_of_run",
    "rfc3339",
]


class Outcome(Enum):
    """A case's verdict, or that it was planned and never came to one."""

    PASS = "PASS"
    FAIL = "FAIL"
    ERROR = "ERROR"
    SKIP = "SKIP"
    MISS = "MISS"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and by what it is known again; ``name`` is the plan's, empty for a lone run."""

    name: str
    release: str
    build_id: str
    sha256: Mapping[str, str]

    @property
    def label(self) -> str:
        """The shortest name that tells it from others."""
        return self.name or self.release or self.build_id or "unknown"


@dataclass(frozen=True, slots=True)
class Case:
    """One cycle, or a cell of the plan that has none; ``cycle`` is None where it cannot be read."""

    scenario: str
    channels: tuple[str, ...]
    repeat: int
    attempt: int
    outcome: Outcome
    why: str
    started: str
    wall_s: float
    run: str
    number: int
    cycle: Cycle | None

    @property
    def name(self) -> str:
        """Scenario, channels and repeat: unlike any other case's of its suite."""
        channels = f" [{','.join(self.channels)}]" if self.channels else ""
        return f"{self.scenario}{channels} #{self.repeat}"


@dataclass(frozen=True, slots=True)
class Suite:
    """All cases of one kernel on one board; ``notes`` say what does not count, and why."""

    kernel: Kernel
    board: str
    virtual: bool
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The board, whether it is none of hardware, and the kernel."""
        virtual = " (virtual)" if self.virtual else ""
        return f"{self.board}{virtual} {self.kernel.label}"

    def count(self, outcome: Outcome) -> int:
        """How many cases ended so."""
        return sum(case.outcome is outcome for case in self.cases)


@dataclass(frozen=True, slots=True)
class Results:
    """A run's or a night's results; ``notes`` are about all of it."""

    name: str
    title: str
    farm_version: str
    started: str
    finished: str
    wall_s: float
    verdict: Verdict
    suites: tuple[Suite, ...]
    notes: tuple[str, ...] = ()

    @property
    def virtual(self) -> bool:
        """Whether any of it comes from a virtual board."""
        return any(suite.virtual for suite in self.suites)

    def cases(self) -> Iterator[tuple[Suite, Case]]:
        """Every case with its suite."""
        for suite in self.suites:
            for case in suite.cases:
                yield suite, case


def rfc3339(text: str) -> datetime | None:
    """The moment that ``text`` tells, or None: what lies in a folder is not trusted."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _channels(cycle: Cycle) -> tuple[str, ...]:
    read = [one.channel for one in cycle.input.channels]
    return tuple(dict.fromkeys(read or [one.channel for one in cycle.input.captures]))


def _ended(run: Run) -> tuple[str, ...]:
    said = []
    if run.interrupted:
        said.append("the run was interrupted")
    if run.ended_early:
        said.append(f"the run ended early: {run.ended_early}")
    return tuple(said)


def results_of_run(run: Run) -> Results:
    """The results of a lone run; cycles that were planned and never ran are holes."""
    cases = [
        Case(
            scenario=cycle.scenario,
            channels=_channels(cycle),
            repeat=cycle.repeat,
            attempt=1,
            outcome=Outcome(cycle.result.verdict.value),
            why=cycle.result.why,
            started=cycle.started,
            wall_s=cycle.wall_s,
            run=run.run_id,
            number=cycle.number,
            cycle=cycle,
        )
        for cycle in run.cycles
    ]
    notes = _ended(run)
    # Which ones they were the run does not tell; that they are missing must not be lost.
    cases.extend(
        Case(
            scenario="not-run",
            channels=(),
            repeat=number,
            attempt=0,
            outcome=Outcome.MISS,
            why=notes[-1] if notes else "planned, but never run",
            started="",
            wall_s=0.0,
            run=run.run_id,
            number=0,
            cycle=None,
        )
        for number in range(1, max(0, run.planned_cycles - len(run.cycles)) + 1)
    )
    kernel = Kernel("", run.kernel_release or "", run.build_id or "", {})
    return Results(
        name=run.run_id,
        title=f"run on {run.board}",
        farm_version=run.farm_version,
        started=run.started,
        finished=run.finished or "",
        wall_s=run.wall_s,
        verdict=run.verdict,
        suites=(Suite(kernel, run.board, run.virtual, tuple(cases)),),
        notes=notes,
    )


def _not_counting(night: Night, kernel: str, board: str) -> Iterator[str]:
    for one in night.cycles:
        if one.counts or (one.cell.kernel, one.cell.board) != (kernel, board):
            continue
        what = "training" if one.purpose is Purpose.TRAINING else f"attempt {one.attempt}"
        yield f"{one.cell.scenario} #{one.cell.repeat}, {what}: {one.verdict.value}, {one.why}"


def results_of_night(
    night: Night, runs: Mapping[str, Run], unreadable: Mapping[str, str] | None = None
) -> Results:
    """The results of a night; ``runs`` by their folder as the night names it.

    ``unreadable`` tells of runs that could not be read, by folder, why.
    """
    kernels = {
        one.name: Kernel(one.name, one.release or "", one.build_id or "", one.sha256)
        for one in night.kernels
    }
    boards = {one.name: one for one in night.boards}
    cycles = {(name, cycle.number): cycle for name, run in runs.items() for cycle in run.cycles}
    cases: dict[tuple[str, str], list[Case]] = {}
    for one in night.cycles:
        suite = cases.setdefault((one.cell.kernel, one.cell.board), [])
        if one.counts and one.purpose is Purpose.PLAN:
            suite.append(
                Case(
                    scenario=one.cell.scenario,
                    channels=one.cell.channels,
                    repeat=one.cell.repeat,
                    attempt=one.attempt,
                    outcome=Outcome(one.verdict.value),
                    why=one.why,
                    started=one.started,
                    wall_s=one.wall_s,
                    run=one.run,
                    number=one.number,
                    cycle=cycles.get((one.run, one.number)),
                )
            )
    for hole in night.holes:
        cases.setdefault((hole.cell.kernel, hole.cell.board), []).append(
            Case(
                scenario=hole.cell.scenario,
                channels=hole.cell.channels,
                repeat=hole.cell.repeat,
                attempt=0,
                outcome=Outcome.MISS,
                why=hole.reason,
                started="",
                wall_s=0.0,
                run="",
                number=0,
                cycle=None,
            )
        )
    suites = []
    for (kernel, board), found in cases.items():
        notes = list(_not_counting(night, kernel, board))
        if board in boards and boards[board].set_aside:
            notes.insert(0, f"the board was set aside: {boards[board].set_aside}")
        suites.append(
            Suite(
                kernels.get(kernel, Kernel(kernel, "", "", {})),
                board,
                boards[board].virtual if board in boards else True,
                tuple(found),
                tuple(notes),
            )
        )
    said = [f"{name} cannot be read: {why}" for name, why in (unreadable or {}).items()]
    if night.interrupted:
        said.append("the night was interrupted")
    if night.ended_early:
        said.append(f"the night ended early: {night.ended_early}")
    return Results(
        name=night.night_id,
        title=f"night of {night.plan}",
        farm_version=night.farm_version,
        started=night.started,
        finished=night.finished or "",
        wall_s=night.wall_s,
        verdict=night.verdict,
        suites=tuple(suites),
        notes=tuple(said),
    )


def load_results(path: Path) -> Results:
    """The results of a run's or a night's folder; UsageError when it is neither's."""
    if (path / NIGHT_NAME).exists():
        night = load_night(path)
        runs = load_runs(path, night)
        return results_of_night(night, runs.by_folder, runs.missing)
    if (path / RUN_NAME).exists():
        return results_of_run(load_run(path))
    raise UsageError(
        f"{path} holds neither {RUN_NAME} nor {NIGHT_NAME}",
        "Name the folder of a run (reports/<run-id>) or of a night (nights/<night-id>).",
    )


def verdict_of(cases: Iterator[Case] | tuple[Case, ...]) -> Verdict:
    """The verdict of cases together; a hole is no verdict."""
    verdict, _ = summarise(
        Verdict(case.outcome.value) for case in cases if case.outcome is not Outcome.MISS
    )
    return verdict
