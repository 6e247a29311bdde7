"""Places that share a board's cells: each cell is run once, wherever; nothing is forgotten."""

from __future__ import annotations

import random

from farm.model import NightCell, Purpose, Verdict
from farm.nightly.journal import Begun, Closed, Finished, Opened, PlaceTold
from farm.nightly.schedule import Schedule, Start, expand
from farm.nightly.state import replay
from farm.nightly.trust import Rules
from farm.scenarios import select
from tests.nightly.imaginary import AT, RULES, board, finished, informed

SCENARIOS = ("sysrq-c", "lkdtm-bug", "lkdtm-panic")


def shared(places: int, repeats: int = 4, **more: object) -> Schedule:
    cells, _ = expand(["k"], [board("virtual")], select(SCENARIOS), [("pstorefs",)], repeats)
    made = Schedule(cells=cells, retries=1, budget_s=None, training_scenario="sysrq-c")
    return informed(made, seats={f"p{n}": "virtual" for n in range(places)}, **more)


def begun(start: Start, number: int) -> Begun:
    return Begun(
        at=AT,
        cell=start.cell,
        attempt=start.attempt,
        purpose=start.purpose,
        run=f"runs/{start.seat}",
        number=number,
        place=start.place,
    )


def ended(start: Start, number: int, verdict: Verdict) -> Finished:
    entry = finished(start, f"runs/{start.seat}", number, verdict)
    return entry.model_copy(update={"cycle": entry.cycle.model_copy(update={"place": start.place})})


def opened() -> Opened:
    return Opened(at=AT, night_id="n", plan="x", plan_sha256="0", boards=())


def test_each_cell_is_run_once_whatever_is_lost_and_killed() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        schedule = shared(rng.randint(1, 4))
        state = replay([opened()], RULES)
        busy: dict[str, Start] = {}
        number, counted = 0, []
        while True:
            for seat in schedule.seats:
                if seat in busy:
                    continue
                others = {start.cell for start in busy.values()}
                start = schedule.next_for(seat, state, "k", 0.0, others)
                if start is not None:
                    assert start.place == seat
                    assert start.cell.board == "virtual"
                    number += 1
                    state.add(begun(start, number))
                    busy[seat] = start
            if not busy:
                break
            assert len({start.cell for start in busy.values()}) == len(busy)
            seat = rng.choice(list(busy))
            start = busy.pop(seat)
            if rng.random() < 0.2:
                state.add(PlaceTold(at=AT, place=seat, what="lost", cell=start.cell))
                assert seat not in state.begun
            else:
                verdict = Verdict.ERROR if rng.random() < 0.1 else Verdict.PASS
                state.add(ended(start, number, verdict))
                counted.append((start.cell, start.attempt))
            if rng.random() < 0.05:
                # Killed: what runs is begun again by the next one, from its journal.
                busy.clear()
                state.add(Closed(at=AT, complete=False))
        assert len(set(counted)) == len(counted)
        aside = all(state.trust[seat].set_aside for seat in schedule.seats if seat in state.trust)
        assert set(state.attempts) == set(schedule.cells) or aside


def test_a_place_that_is_set_aside_leaves_the_cells_to_the_others() -> None:
    schedule = shared(2)
    state = replay([opened()], Rules(after=1, training=1))
    start = schedule.next_for("p0", state, None, 0.0)
    assert start is not None
    state.add(ended(start, 1, Verdict.ERROR))
    assert schedule.next_for("p0", state, None, 0.0) is None
    again = schedule.next_for("p1", state, None, 0.0)
    assert again is not None
    assert again.purpose is Purpose.PLAN
    assert all(hole.reason == "later" for hole in schedule.holes(state, over="later"))
    state.add(ended(again, 2, Verdict.ERROR))
    assert all("set aside" in hole.reason for hole in schedule.holes(state, over="later"))


def test_a_place_runs_only_what_it_can() -> None:
    thing = ("lkdtm-bug", ("pstorefs",))
    schedule = shared(2, unable={"p0": {thing}})
    state = replay([opened()], RULES)
    seen: set[NightCell] = set()
    while start := schedule.next_for("p0", state, None, 0.0, seen):
        seen.add(start.cell)
    assert {cell.scenario for cell in seen} == {"sysrq-c", "lkdtm-panic"}


def test_two_places_take_half_the_time() -> None:
    one, two = shared(1), shared(2)
    alone = one.duration_s(one.preview([opened()], RULES))
    together = two.preview([opened()], RULES)
    assert {start.seat for _, start in together} == {"p0", "p1"}
    assert two.duration_s(together) < 0.6 * alone
