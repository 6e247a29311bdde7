"""What a journal says of a night so far; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from farm.model import NightCell, NightCycle, NightKernel, Purpose
from farm.nightly.journal import (
    Begun,
    BenchStarted,
    Closed,
    Died,
    Entry,
    Finished,
    KernelReady,
    Opened,
    PlaceTold,
    StoredPlace,
)
from farm.nightly.trust import Rules, Trust, follow

__all__ = ["NightState", "replay"]


@dataclass
class NightState:
    """The night so far; `add` takes the next entry of its journal.

    What is known of a board is kept by its seat: the place where it is, where places share cells.
    """

    rules: Rules
    night_id: str = ""
    plan: str = ""
    plan_sha256: str = ""
    started: str = ""
    kernels: dict[str, NightKernel] = field(default_factory=dict)
    benches: list[str] = field(default_factory=list)
    cycles: list[NightCycle] = field(default_factory=list)
    attempts: dict[NightCell, list[NightCycle]] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)
    deaths: Counter[NightCell] = field(default_factory=Counter)
    why_died: dict[NightCell, str] = field(default_factory=dict)
    trust: dict[str, Trust] = field(default_factory=dict)
    failed_trainings: Counter[str] = field(default_factory=Counter)
    trainings: Counter[str] = field(default_factory=Counter)
    runs: dict[str, None] = field(default_factory=dict)
    last_kernel: dict[str, str] = field(default_factory=dict)
    places: dict[str, StoredPlace] = field(default_factory=dict)
    told: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    closed: Closed | None = None
    last_at: str = ""
    _spent_s: float = 0.0
    _opened_at: str = ""

    def add(self, entry: Entry) -> None:
        """Take the next entry of the journal."""
        match entry:
            case Opened():
                self._spent_s = self.spent_s()
                self._opened_at = entry.at
                if not self.night_id:
                    self.night_id, self.plan_sha256 = entry.night_id, entry.plan_sha256
                    self.plan = entry.plan
                    self.started = entry.at
                    self.trust = {
                        one.board: Trust(one.set_aside, one.bench_failures, one.clean_trainings)
                        for one in entry.boards
                    }
                self.places.update((one.name, one) for one in entry.places)
                self.closed = None
            case KernelReady():
                self.kernels[entry.kernel.name] = entry.kernel
            case BenchStarted():
                if entry.board not in self.benches:
                    self.benches.append(entry.board)
            case Begun():
                self.begun[entry.seat] = entry
                self.runs[entry.run] = None
                self.last_kernel[entry.seat] = entry.cell.kernel
            case Finished():
                self._finish(entry)
            case Died():
                self.begun.pop(entry.seat, None)
                self.deaths[entry.cell] += 1
                self.why_died[entry.cell] = entry.why
            case PlaceTold():
                told = self.told.setdefault(entry.place, [])
                if not told or told[-1][1] != entry.what:
                    told.append((entry.at, entry.what))
                if entry.cell is not None:
                    self.begun.pop(entry.place, None)
            case Closed():
                self.closed = entry
                self.begun.clear()
        self.last_at = entry.at

    def _finish(self, entry: Finished) -> None:
        cycle, seat = entry.cycle, entry.cycle.seat
        self.begun.pop(seat, None)
        self.runs[cycle.run] = None
        self.last_kernel[seat] = cycle.cell.kernel
        if entry.interrupted:
            return
        self.cycles.append(cycle)
        before = self.trust.get(seat, Trust())
        self.trust[seat] = follow(before, cycle, self.rules)
        if cycle.purpose is Purpose.TRAINING:
            self.trainings[seat] += 1
            if not self.trust[seat].clean_trainings and self.trust[seat].set_aside:
                self.failed_trainings[seat] += 1
        else:
            self.attempts.setdefault(cycle.cell, []).append(cycle)

    def spent_s(self, now: str = "") -> float:
        """Seconds that controllers have worked on the night, up to ``now`` or the last entry."""
        until = now or self.last_at
        if not self._opened_at or not until:
            return self._spent_s
        span = datetime.fromisoformat(until) - datetime.fromisoformat(self._opened_at)
        return self._spent_s + max(0.0, span.total_seconds())


def replay(entries: Iterable[Entry], rules: Rules) -> NightState:
    """The night as its journal tells it."""
    state = NightState(rules)
    for entry in entries:
        state.add(entry)
    return state
