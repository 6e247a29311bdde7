"""A night without boards: the real schedule, state and journal; verdicts follow from the cell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from farm.bench.options import BenchOptions
from farm.model import Blame, NightCell, NightCycle, Verdict
from farm.nightly.journal import Begun, Closed, Entry, Finished, Opened, StoredTrust
from farm.nightly.schedule import Schedule, Start, expand
from farm.nightly.state import NightState, replay
from farm.nightly.trust import Rules
from farm.scenarios import select

AT = "2026-11-24T22:00:00.000+00:00"
RULES = Rules(after=3, training=2)
SCENARIOS = ("sysrq-c", "lkdtm-bug", "lkdtm-panic")


def board(name: str, *features: str) -> BenchOptions:
    return BenchOptions(board=name, prompt="#", features=frozenset({"sysrq", "lkdtm", *features}))


def schedule(
    *,
    kernels: int = 2,
    boards: int = 2,
    scenarios: tuple[str, ...] = SCENARIOS,
    repeats: int = 2,
    retries: int = 1,
    budget_s: float | None = None,
) -> Schedule:
    cells, _ = expand(
        [f"k{n}" for n in range(kernels)],
        [board(f"b{n}") for n in range(boards)],
        select(scenarios),
        [("pstorefs",)],
        repeats,
    )
    return Schedule(cells=cells, retries=retries, budget_s=budget_s, training_scenario="sysrq-c")


def opened(schedule: Schedule, **aside: str) -> Opened:
    return Opened(
        at=AT,
        night_id="20261124-220000-0000",
        plan="x",
        plan_sha256="0",
        boards=tuple(
            StoredTrust(
                board=name, set_aside=aside.get(name, ""), bench_failures=0, clean_trainings=0
            )
            for name in schedule.boards
        ),
    )


def verdict_by(seed: int, errors: int = 6) -> Callable[[Start], Verdict]:
    """Verdicts that follow from seed, cell and attempt; ``errors`` of 16 are bench failures."""

    def verdict(start: Start) -> Verdict:
        text = f"{seed} {start.cell!r} {start.attempt} {start.purpose}"
        roll = hashlib.sha256(text.encode()).digest()[0] & 15
        if roll < errors:
            return Verdict.ERROR
        return {15: Verdict.SKIP, 14: Verdict.FAIL}.get(roll, Verdict.PASS)

    return verdict


def finished(start: Start, run: str, number: int, verdict: Verdict) -> Finished:
    blames = {Verdict.FAIL: Blame.KERNEL, Verdict.ERROR: Blame.BENCH, Verdict.PASS: None}
    cycle = NightCycle(
        cell=start.cell,
        attempt=start.attempt,
        purpose=start.purpose,
        counts=False,
        run=run,
        number=number,
        started=AT,
        wall_s=1.0,
        verdict=verdict,
        blame=blames.get(verdict, Blame.UNSUPPORTED),
        why=verdict.value,
    )
    return Finished(at=AT, cycle=cycle)


def work(
    schedule: Schedule, state: NightState, verdict: Callable[[Start], Verdict], session: int
) -> Iterator[Entry]:
    """Run what is left, boards in turn; the entries are added to ``state`` as they come."""
    current: dict[str, str | None] = dict.fromkeys(schedule.boards)
    numbers = dict.fromkeys(schedule.boards, 0)

    def note(entry: Entry) -> Entry:
        state.add(entry)
        return entry

    busy: dict[str, tuple[Start, str, int]] = {}
    while True:
        for name in schedule.boards:
            start = schedule.next_for(name, state, current[name], 0.0)
            if start is None:
                continue
            if current[name] != start.cell.kernel:
                current[name], numbers[name] = start.cell.kernel, 0
            numbers[name] += 1
            run = f"runs/{session}-{name}-{start.cell.kernel}-{len(state.runs)}"
            yield note(
                Begun(
                    at=AT,
                    cell=start.cell,
                    attempt=start.attempt,
                    purpose=start.purpose,
                    run=run,
                    number=numbers[name],
                )
            )
            busy[name] = start, run, numbers[name]
        if not busy:
            break
        for name in list(busy):
            start, run, number = busy.pop(name)
            yield note(finished(start, run, number, verdict(start)))
    yield note(Closed(at=AT, complete=True))


def counted(state: NightState) -> dict[NightCell, Verdict]:
    """The verdict that counts of each cell."""
    return {cell: tried[-1].verdict for cell, tried in state.attempts.items()}


def whole_night(schedule: Schedule, verdict: Callable[[Start], Verdict]) -> list[Entry]:
    """All entries of an undisturbed night."""
    first = opened(schedule)
    state = replay([first], RULES)
    return [first, *work(schedule, state, verdict, 0)]


def informed(schedule: Schedule, **changes: object) -> Schedule:
    return replace(schedule, **changes)  # type: ignore[arg-type]
