"""A night sorted for reading: cells of the matrix, causes of failure, trouble of the bench.

Pure: from `farm.model.Night` and its runs, nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farm.judge.totals import summarise
from farm.model import (
    Blame,
    Cycle,
    Finding,
    Night,
    NightCell,
    NightCycle,
    NightHole,
    Purpose,
    Run,
    Verdict,
)
from farm.report.summary import shown_findings

__all__ = ["Cause", "Cell", "CellKey", "NightView", "Shot", "key_of", "view_of"]


@dataclass(frozen=True, slots=True, order=True)
class CellKey:
    """A cell of the matrix; its repeats lie in it."""

    kernel: str
    board: str
    scenario: str
    channels: tuple[str, ...]


def key_of(cell: NightCell) -> CellKey:
    """Return where in the matrix a cell of the plan lies; a channel's place does not matter."""
    return CellKey(cell.kernel, cell.board, cell.scenario, tuple(sorted(cell.channels)))


@dataclass(frozen=True, slots=True)
class Shot:
    """One cycle of the night; ``cycle`` is None where its run cannot be read."""

    night: NightCycle
    cycle: Cycle | None

    @property
    def verdict(self) -> Verdict:
        """The cycle's verdict."""
        return self.night.verdict

    @property
    def worst(self) -> Finding | None:
        """The finding that decided it, one that names a driver before others; None for a PASS."""
        if self.cycle is None:
            return None
        findings = [
            one
            for one in shown_findings(self.cycle.result.findings)
            if one.verdict is self.night.verdict
        ]
        return next((one for one in findings if one.driver is not None), next(iter(findings), None))


@dataclass(frozen=True, slots=True)
class Cell:
    """Kernel, board, scenario and channels: all repeats and attempts, and what never ran."""

    key: CellKey
    number: int
    virtual: bool
    shots: tuple[Shot, ...]
    holes: tuple[NightHole, ...]

    @property
    def page(self) -> str:
        """File name of its page, the farm's own."""
        return f"cells/{self.number:04d}.html"

    @property
    def counting(self) -> tuple[Shot, ...]:
        """The cycles that count: the last attempt of each repeat."""
        return tuple(shot for shot in self.shots if shot.night.counts)

    @property
    def verdict(self) -> Verdict | None:
        """The worst of what counts; None for a hole."""
        counting = self.counting
        return summarise(shot.verdict for shot in counting)[0] if counting else None

    @property
    def css(self) -> str:
        """The style's class for it."""
        return "HOLE" if self.verdict is None else self.verdict.value

    @property
    def label(self) -> str:
        """What the matrix shows: the verdict, and of how many repeats it is one."""
        verdict = self.verdict
        if verdict is None:
            return "not run"
        counting = self.counting
        planned = len(counting) + len(self.holes)
        same = sum(shot.verdict is verdict for shot in counting)
        return verdict.value if planned == 1 else f"{verdict.value} {same}/{planned}"

    @property
    def first_bad(self) -> Shot | None:
        """The first cycle that decided a verdict which is no PASS."""
        verdict = self.verdict
        if verdict is None or verdict is Verdict.PASS:
            return None
        return next(shot for shot in self.counting if shot.verdict is verdict)

    @property
    def why(self) -> str:
        """Why the verdict is what it is, or why it never ran."""
        if self.verdict is None:
            return "; ".join(dict.fromkeys(hole.reason for hole in self.holes))
        bad = self.first_bad
        if bad is not None:
            return bad.night.why
        counting = self.counting
        return counting[0].night.why if len(counting) == 1 else f"all {len(counting)} passed"


@dataclass(frozen=True, slots=True)
class Cause:
    """Cycles that failed alike: same kind of finding, same driver, or the same fault of a bench."""

    blame: Blame | None
    what: str
    shots: tuple[tuple[Cell, Shot], ...]

    @property
    def first(self) -> tuple[Cell, Shot]:
        """Where to look."""
        return self.shots[0]

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernels that it was seen with."""
        return tuple(dict.fromkeys(cell.key.kernel for cell, _ in self.shots))

    @property
    def boards(self) -> tuple[str, ...]:
        """Boards that it was seen on."""
        return tuple(dict.fromkeys(cell.key.board for cell, _ in self.shots))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Scenarios that it was seen in."""
        return tuple(dict.fromkeys(cell.key.scenario for cell, _ in self.shots))


@dataclass(frozen=True, slots=True)
class NightView:
    """The night, sorted."""

    night: Night
    cells: tuple[Cell, ...]
    by_key: Mapping[CellKey, Cell]
    kernel_causes: tuple[Cause, ...]
    bench_causes: tuple[Cause, ...]
    training: tuple[Shot, ...]

    def count(self, verdict: Verdict | str | None) -> int:
        """How many cells have a verdict; None counts those that never ran."""
        return sum(cell.verdict == verdict for cell in self.cells)

    @property
    def retried(self) -> tuple[tuple[Cell, Shot], ...]:
        """Attempts that were repeated after an ERROR and do not count."""
        return tuple(
            (cell, shot) for cell in self.cells for shot in cell.shots if not shot.night.counts
        )


def _shots(night: Night, runs: Mapping[str, Run]) -> list[Shot]:
    by_number = {
        folder: {cycle.number: cycle for cycle in run.cycles} for folder, run in runs.items()
    }
    return [Shot(one, by_number.get(one.run, {}).get(one.number)) for one in night.cycles]


def _order(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _cells(night: Night, shots: list[Shot]) -> tuple[Cell, ...]:
    kernels = _order(kernel.name for kernel in night.kernels)
    boards = _order(board.name for board in night.boards)
    planned = [
        *(shot.night.cell for shot in shots if shot.night.purpose is Purpose.PLAN),
        *(hole.cell for hole in night.holes),
    ]
    scenarios = _order(cell.scenario for cell in planned)
    virtual = {board.name: board.virtual for board in night.boards}
    by_key: dict[CellKey, list[Shot]] = {}
    holes: dict[CellKey, list[NightHole]] = {}
    for shot in shots:
        if shot.night.purpose is Purpose.PLAN:
            by_key.setdefault(key_of(shot.night.cell), []).append(shot)
    for hole in night.holes:
        holes.setdefault(key_of(hole.cell), []).append(hole)
    keys = sorted(
        {*by_key, *holes},
        key=lambda key: (
            scenarios.get(key.scenario, 0),
            boards.get(key.board, len(boards)),
            key.board,
            key.channels,
            kernels.get(key.kernel, len(kernels)),
            key.kernel,
        ),
    )
    return tuple(
        Cell(
            key=key,
            number=number,
            virtual=virtual.get(key.board, False),
            shots=tuple(
                sorted(
                    by_key.get(key, ()),
                    key=lambda shot: (shot.night.cell.repeat, shot.night.attempt),
                )
            ),
            holes=tuple(holes.get(key, ())),
        )
        for number, key in enumerate(keys, 1)
    )


def _kernel_cause(shot: Shot) -> tuple[str, ...]:
    finding = shot.worst
    if finding is None:
        return (shot.night.why,)
    return (finding.kind.value, finding.driver or finding.subject.value)


def _bench_cause(shot: Shot) -> tuple[str, ...]:
    fault = None if shot.cycle is None else shot.cycle.input.fault
    if fault is not None:
        return (fault.part, fault.stage)
    finding = shot.worst
    return (shot.night.why,) if finding is None else (finding.kind.value,)


def _causes(cells: tuple[Cell, ...], verdict: Verdict) -> tuple[Cause, ...]:
    grouped: dict[tuple[str, ...], list[tuple[Cell, Shot]]] = {}
    name = _kernel_cause if verdict is Verdict.FAIL else _bench_cause
    for cell in cells:
        for shot in cell.counting:
            if shot.verdict is verdict:
                grouped.setdefault(name(shot), []).append((cell, shot))
    causes = [
        Cause(shots[0][1].night.blame, ", ".join(what), tuple(shots))
        for what, shots in grouped.items()
    ]
    # What is the kernel's own comes before what a policy asks beyond it; then the most frequent.
    return tuple(sorted(causes, key=lambda cause: (cause.blame is Blame.POLICY, -len(cause.shots))))


def view_of(night: Night, runs: Mapping[str, Run]) -> NightView:
    """Sort a night and the runs that could be read, which are by their folder."""
    shots = _shots(night, runs)
    cells = _cells(night, shots)
    return NightView(
        night=night,
        cells=cells,
        by_key={cell.key: cell for cell in cells},
        kernel_causes=_causes(cells, Verdict.FAIL),
        bench_causes=_causes(cells, Verdict.ERROR),
        training=tuple(shot for shot in shots if shot.night.purpose is Purpose.TRAINING),
    )
