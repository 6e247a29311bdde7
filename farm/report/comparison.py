"""A night held against earlier ones of its plan: the last, and the last good one.

A regression is a cell whose kernel failed now and passed then; a fix the reverse. A bench that
failed, then or now, says nothing of the kernel and makes neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from farm.errors import FarmError
from farm.judge.night_folder import NIGHT_NAME, load_night
from farm.judge.totals import summarise
from farm.model import Night, Purpose, Verdict
from farm.report.night_view import Cell, CellKey, NightView, key_of

if TYPE_CHECKING:
    from farm.history import CycleRow, History

__all__ = ["Comparison", "PastNight", "compare", "earlier_nights", "new_first"]

_MOST_NIGHTS_ON_DISK = 60


@dataclass(frozen=True, slots=True)
class PastNight:
    """What an earlier night found, cell by cell."""

    night_id: str
    started: str
    verdict: Verdict
    cells: Mapping[CellKey, Verdict]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs from an earlier night; cells as they are now."""

    past: PastNight
    title: str
    regressions: tuple[Cell, ...]
    fixes: tuple[Cell, ...]
    still_failing: tuple[Cell, ...]
    lost: tuple[Cell, ...]
    new: int

    @property
    def unchanged(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.regressions or self.fixes or self.still_failing or self.lost)


def _cells(verdicts: Iterable[tuple[CellKey, Verdict]]) -> dict[CellKey, Verdict]:
    grouped: dict[CellKey, list[Verdict]] = {}
    for key, verdict in verdicts:
        grouped.setdefault(key, []).append(verdict)
    return {key: summarise(found)[0] for key, found in grouped.items()}


def _of_night(night: Night) -> PastNight:
    counting = (
        (key_of(cycle.cell), cycle.verdict)
        for cycle in night.cycles
        if cycle.counts and cycle.purpose is Purpose.PLAN
    )
    return PastNight(night.night_id, night.started, night.verdict, _cells(counting))


def _key(row: CycleRow) -> CellKey:
    channels = tuple(sorted(part for part in row.channels.split(",") if part))
    return CellKey(row.kernel, row.board, row.scenario, channels)


def _from_history(history: History, night: Night) -> list[PastNight]:
    rows = (
        history.last_night(night.plan, night.started),
        history.last_good_night(night.plan, night.started),
    )
    found: dict[str, PastNight] = {}
    for row in rows:
        if row is not None and row.night_id not in found and row.night_id != night.night_id:
            cycles = history.cycles(night_id=row.night_id)
            cells = _cells((_key(cycle), Verdict(cycle.verdict)) for cycle in cycles)
            found[row.night_id] = PastNight(row.night_id, row.started, Verdict(row.verdict), cells)
    return list(found.values())


def _is_good(night: Night) -> bool:
    return night.verdict is Verdict.PASS and not night.interrupted and night.finished is not None


def _from_disk(night_dir: Path, night: Night) -> list[PastNight]:
    try:
        folders = sorted(one for one in night_dir.resolve().parent.iterdir() if one.is_dir())
    except OSError:
        return []
    found: list[PastNight] = []
    read = 0
    for folder in reversed(folders):
        if read >= _MOST_NIGHTS_ON_DISK or not (folder / NIGHT_NAME).is_file():
            continue
        try:
            other = load_night(folder)
        except FarmError:
            continue
        read += 1
        if other.plan != night.plan or other.started >= night.started:
            continue
        if not found or _is_good(other):
            found.append(_of_night(other))
        if _is_good(other):
            break
    return found


def earlier_nights(night_dir: Path, night: Night, history: History | None) -> list[PastNight]:
    """Find the last night of the plan and the last good one, which may be the same.

    From the history where there is one that knows an earlier night, else from the folders beside.
    Raises BenchError when the history does not answer.
    """
    found = [] if history is None else _from_history(history, night)
    return found or _from_disk(night_dir, night)


def compare(view: NightView, pasts: list[PastNight]) -> tuple[Comparison, ...]:
    """Hold the night against each of ``pasts``: the last one, and the last good one if another."""
    found = []
    for place, past in enumerate(pasts):
        good = past.verdict is Verdict.PASS
        title = "last good night" if place else "last night"
        if not place and good:
            title = "last night, which was good"
        changes: dict[str, list[Cell]] = {"bad": [], "fixed": [], "still": [], "lost": []}
        for cell in view.cells:
            now, then = cell.verdict, past.cells.get(cell.key)
            if now is Verdict.FAIL and then is Verdict.PASS:
                changes["bad"].append(cell)
            elif now is Verdict.PASS and then is Verdict.FAIL:
                changes["fixed"].append(cell)
            elif now is Verdict.FAIL and then is Verdict.FAIL:
                changes["still"].append(cell)
            elif then in (Verdict.PASS, Verdict.FAIL) and now in (Verdict.ERROR, None):
                changes["lost"].append(cell)
        found.append(
            Comparison(
                past=past,
                title=title,
                regressions=tuple(changes["bad"]),
                fixes=tuple(changes["fixed"]),
                still_failing=tuple(changes["still"]),
                lost=tuple(changes["lost"]),
                new=sum(cell.key not in past.cells for cell in view.cells),
            )
        )
    return tuple(found)


def new_first(view: NightView, comparisons: tuple[Comparison, ...]) -> NightView:
    """Put causes of failure first that the last night had not: the headline is the first one."""
    if not comparisons:
        return view
    known = {cell.key for cell in comparisons[0].still_failing}
    causes = sorted(
        view.kernel_causes,
        key=lambda cause: all(cell.key in known for cell, _ in cause.shots),
    )
    return replace(view, kernel_causes=tuple(causes))
