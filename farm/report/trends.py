"""Sizes over the nights and where the time went, as numbers and as points to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from farm.model import Night
from farm.report.night_view import Cell, NightView, Shot

if TYPE_CHECKING:
    from farm.history import History

__all__ = ["BoardTime", "SizePoint", "SizeTrend", "durations", "size_trends", "slowest"]

NIGHTS = 30
CHART_WIDTH, CHART_HEIGHT = 180, 34
_FAR_FROM_BUDGET = 4  # a budget that many times the largest record would flatten the line
_NAMED_STAGES = 5


@dataclass(frozen=True, slots=True)
class SizePoint:
    """A device's records in one night, over all its boards and kernels; sizes in bytes."""

    night_id: str
    started: str
    min_bytes: int
    max_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True)
class SizeTrend:
    """How a device's record grew from night to night; the last point is this night."""

    driver: str
    device: str
    points: tuple[SizePoint, ...]

    @property
    def now(self) -> SizePoint:
        """This night."""
        return self.points[-1]

    @property
    def growth_bytes(self) -> int | None:
        """Against the night before; None without one."""
        return self.now.max_bytes - self.points[-2].max_bytes if len(self.points) > 1 else None

    @property
    def share(self) -> float | None:
        """Of the budget, 1 is all of it; None without one."""
        budget = self.now.budget_bytes
        return self.now.max_bytes / budget if budget else None

    @property
    def _top(self) -> float:
        largest = max(1, *(point.max_bytes for point in self.points))
        budget = self.now.budget_bytes or 0
        return 1.08 * (max(largest, budget) if budget <= _FAR_FROM_BUDGET * largest else largest)

    def _y(self, size_bytes: int) -> float:
        return round(CHART_HEIGHT - 4 - (CHART_HEIGHT - 8) * size_bytes / self._top, 1)

    def _x(self, place: int) -> float:
        last = max(1, len(self.points) - 1)
        return round(4 + (CHART_WIDTH - 8) * (place / last if len(self.points) > 1 else 1), 1)

    @property
    def line(self) -> str:
        """The largest record of each night, as an SVG polyline's points."""
        return " ".join(f"{self._x(i)},{self._y(p.max_bytes)}" for i, p in enumerate(self.points))

    @property
    def low_line(self) -> str:
        """The smallest ones, empty where they are the largest."""
        if all(point.min_bytes == point.max_bytes for point in self.points):
            return ""
        return " ".join(f"{self._x(i)},{self._y(p.min_bytes)}" for i, p in enumerate(self.points))

    @property
    def dot(self) -> tuple[float, float]:
        """Where this night is."""
        return self._x(len(self.points) - 1), self._y(self.now.max_bytes)

    @property
    def budget_y(self) -> float | None:
        """Where the budget is; None if it is off the chart or there is none."""
        budget = self.now.budget_bytes
        return self._y(budget) if budget and budget <= self._top else None


def _now(night: Night, view: NightView) -> dict[tuple[str, str], SizePoint]:
    """This night's records; of boards with several budgets, the size nearest to its own counts."""
    found: dict[tuple[str, str], SizePoint] = {}
    for cell in view.cells:
        for shot in cell.counting:
            for row in () if shot.cycle is None else shot.cycle.result.devices:
                if not row.record_bytes:
                    continue
                key, size, budget = (row.driver, row.device), row.record_bytes, row.budget_bytes
                old = found.get(key)
                if old is None:
                    found[key] = SizePoint(night.night_id, night.started, size, size, budget)
                    continue
                if (size / (budget or math.inf), size) < (
                    old.max_bytes / (old.budget_bytes or math.inf),
                    old.max_bytes,
                ):
                    size, budget = old.max_bytes, old.budget_bytes
                smallest = min(old.min_bytes, row.record_bytes)
                found[key] = SizePoint(night.night_id, night.started, smallest, size, budget)
    return found


def _smallest(first: int | None, second: int | None) -> int | None:
    given = [one for one in (first, second) if one is not None]
    return min(given) if given else None


def size_trends(
    night: Night, view: NightView, history: History | None, nights: int = NIGHTS
) -> tuple[SizeTrend, ...]:
    """Records per driver and device, those nearest to their budget first.

    Raises BenchError when the history does not answer.
    """
    earlier: dict[tuple[str, str], dict[str, SizePoint]] = {}
    for board in night.boards if history is not None else ():
        assert history is not None
        for row in history.sizes(board=board.name, nights=nights, before=night.started):
            points = earlier.setdefault((row.driver, row.device), {})
            old = points.get(row.night_id)
            points[row.night_id] = SizePoint(
                row.night_id,
                row.started,
                row.min_bytes if old is None else min(old.min_bytes, row.min_bytes),
                row.max_bytes if old is None else max(old.max_bytes, row.max_bytes),
                _smallest(None if old is None else old.budget_bytes, row.budget_bytes),
            )
    trends = []
    for key, point in _now(night, view).items():
        before = sorted(earlier.get(key, {}).values(), key=lambda one: one.started)[-nights + 1 :]
        trends.append(SizeTrend(*key, (*before, point)))
    return tuple(sorted(trends, key=lambda one: (-(one.share or 0), one.driver, one.device)))


@dataclass(frozen=True, slots=True)
class BoardTime:
    """What a board's cycles cost, in seconds; ``stages`` are (name, seconds, start, width) in %."""

    board: str
    cycles: int
    wall_s: float
    board_s: float
    median_s: float
    slowest_s: float
    stages: tuple[tuple[str, float, float, float], ...]


def durations(view: NightView) -> tuple[tuple[str, ...], list[BoardTime]]:
    """Return the names of the stages, most expensive first, and what each board's cycles cost."""
    shots: dict[str, list[Shot]] = {}
    for cell in view.cells:
        shots.setdefault(cell.key.board, []).extend(cell.shots)
    spent: dict[str, dict[str, float]] = {}
    for board, found in shots.items():
        for shot in found:
            for name, seconds in () if shot.cycle is None else shot.cycle.stages_s.items():
                stages = spent.setdefault(board, {})
                stages[name] = stages.get(name, 0.0) + max(0.0, seconds)
    total: dict[str, float] = {}
    for stages in spent.values():
        for name, seconds in stages.items():
            total[name] = total.get(name, 0.0) + seconds
    ranked = sorted(total, key=lambda name: -total[name])
    names = (*ranked[:_NAMED_STAGES], *(("other",) if len(ranked) > _NAMED_STAGES else ()))
    rows = []
    for board, found in shots.items():
        if not found:
            continue
        walls = [shot.night.wall_s for shot in found]
        rows.append(
            BoardTime(
                board=board,
                cycles=len(found),
                wall_s=sum(walls),
                board_s=sum(shot.cycle.board_s for shot in found if shot.cycle is not None),
                median_s=median(walls),
                slowest_s=max(walls),
                stages=_stages(spent.get(board, {}), names),
            )
        )
    return names, rows


def _stages(
    spent: dict[str, float], names: tuple[str, ...]
) -> tuple[tuple[str, float, float, float], ...]:
    total = sum(spent.values())
    at = 0.0
    found = []
    for place, name in enumerate(names):
        seconds = spent.get(name, 0.0)
        if place == _NAMED_STAGES:
            seconds = total - sum(spent.get(one, 0.0) for one in names[:place])
        width = 100 * seconds / total if total else 0.0
        found.append((name, seconds, round(at, 2), round(width, 2)))
        at += width
    return tuple(found)


def slowest(view: NightView, count: int = 5) -> list[tuple[Cell, Shot]]:
    """Return the cycles that took longest."""
    every = [(cell, shot) for cell in view.cells for shot in cell.shots]
    return sorted(every, key=lambda pair: -pair[1].night.wall_s)[:count]
