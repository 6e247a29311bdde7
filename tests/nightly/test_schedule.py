"""What a board runs next."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from farm.model import NightCell, Purpose, Verdict
from farm.nightly.journal import Died
from farm.nightly.schedule import Past, Schedule, Start, expand, known, urgency
from farm.nightly.state import NightState, replay
from farm.scenarios import select
from tests.nightly.imaginary import (
    AT,
    RULES,
    board,
    counted,
    finished,
    informed,
    opened,
    schedule,
    verdict_by,
    work,
)


def begin(plan: Schedule, **aside: str) -> NightState:
    return replay([opened(plan, **aside)], RULES)


def order(plan: Schedule, name: str) -> list[NightCell]:
    return [
        start.cell for _, start in plan.preview([opened(plan)], RULES) if start.cell.board == name
    ]


def test_a_plan_is_every_combination() -> None:
    plan = schedule(kernels=2, boards=3, repeats=4)
    assert len(plan.cells) == 2 * 3 * 3 * 4
    assert len(set(plan.cells)) == len(plan.cells)


def test_what_a_board_cannot_do_is_a_hole_with_its_reason() -> None:
    cells, holes = expand(
        ["k"],
        [board("able", "sahara"), board("plain")],
        select(["sysrq-c"]),
        [("pstorefs",), ("sahara", "pstorefs")],
        2,
    )
    assert Counter(cell.board for cell in cells) == {"able": 4, "plain": 2}
    assert {hole.reason for hole in holes} == {"the board has no sahara"}
    assert {hole.cell.channels for hole in holes} == {("sahara", "pstorefs")}


@settings(max_examples=40, deadline=None)
@given(
    kernels=st.integers(1, 3),
    boards=st.integers(1, 4),
    repeats=st.integers(1, 3),
    retries=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_every_cell_is_run_and_none_twice(
    kernels: int, boards: int, repeats: int, retries: int, seed: int
) -> None:
    plan = schedule(kernels=kernels, boards=boards, repeats=repeats, retries=retries)
    state = begin(plan)
    for _ in work(plan, state, verdict_by(seed), 1):
        pass
    for cell in plan.cells:
        tried = state.attempts.get(cell, [])
        assert len(tried) <= retries + 1
        assert all(one.verdict is Verdict.ERROR for one in tried[:-1])
        assert [one.attempt for one in tried] == list(range(1, len(tried) + 1))
    holes = {hole.cell for hole in plan.holes(state, over="over")}
    assert holes | set(counted(state)) == set(plan.cells)
    assert not holes & set(counted(state))
    for hole in plan.holes(state, over="over"):
        assert hole.reason != "over"


@settings(max_examples=40, deadline=None)
@given(
    repeats=st.integers(1, 3),
    past=st.lists(st.sampled_from(["PASS", "FAIL", "ERROR", "none"]), min_size=3, max_size=3),
)
def test_breadth_before_repeats_and_news_before_the_known(repeats: int, past: list[str]) -> None:
    plan = schedule(kernels=1, boards=1, repeats=repeats)
    knowledge = {
        known(cell): Past((said,), 5.0)
        for cell, said in zip(plan.cells[::repeats], past, strict=True)
        if said != "none"
    }
    plan = informed(plan, knowledge=knowledge)
    ranks = [(cell.repeat, urgency(knowledge.get(known(cell)))) for cell in order(plan, "b0")]
    assert ranks == sorted(ranks)
    assert len(ranks) == 3 * repeats


def test_urgency() -> None:
    assert urgency(Past(("FAIL", "PASS"), 1)) == 0
    assert urgency(Past(("PASS", "FAIL"), 1)) == 1
    assert urgency(None) == urgency(Past(("ERROR", "PASS"), 1)) == 2
    assert urgency(Past(("PASS", "PASS"), 1)) == 3


def test_boards_begin_at_different_scenarios() -> None:
    plan = schedule(kernels=1, boards=3, repeats=1)
    first = {order(plan, name)[0].scenario for name in plan.boards}
    assert len(first) == 3


def test_a_kernel_is_changed_only_between_equals() -> None:
    cells = order(schedule(kernels=2, boards=1, repeats=3), "b0")
    changes = sum(a.kernel != b.kernel for a, b in pairwise(cells))
    # once within each repeat; the next repeat begins with the kernel that the board has
    assert changes == 3


@settings(max_examples=40, deadline=None)
@given(budget_s=st.floats(1, 3000), wall_s=st.floats(1, 100))
def test_a_budget_is_kept_and_used(budget_s: float, wall_s: float) -> None:
    plan = schedule(kernels=2, boards=2, repeats=3)
    knowledge = {known(cell): Past(("PASS",), wall_s) for cell in plan.cells}
    plan = informed(plan, budget_s=budget_s, knowledge=knowledge)
    starts = plan.preview([opened(plan)], RULES)
    for name in plan.boards:
        now, current = 0.0, None
        for begin_s, start in starts:
            if start.cell.board == name:
                assert begin_s == now
                now += plan.estimate_s(start.cell, current)
                current = start.cell.kernel
        assert now <= budget_s
        run = sum(start.cell.board == name for _, start in starts)
        left = budget_s - now
        assert run == len(plan.cells) // 2 or left < wall_s + plan.flash_s


def test_repeats_of_what_was_not_possible_are_holes() -> None:
    plan = schedule(kernels=1, boards=1, scenarios=("sysrq-c",), repeats=3)
    state = begin(plan)
    start = plan.next_for("b0", state, None, 0)
    assert start is not None
    state.add(finished(start, "runs/r", 1, Verdict.SKIP))
    assert plan.next_for("b0", state, "k0", 0) is None
    assert [hole.reason for hole in plan.holes(state, over="")] == [
        "not possible when it was tried: SKIP"
    ] * 2


def test_a_retry_comes_at_once_and_is_bounded() -> None:
    plan = schedule(kernels=1, boards=1, repeats=1, retries=1)
    state = begin(plan)
    first = plan.next_for("b0", state, None, 0)
    assert first is not None
    state.add(finished(first, "runs/r", 1, Verdict.ERROR))
    second = plan.next_for("b0", state, "k0", 0)
    assert second == Start(first.cell, 2, Purpose.PLAN)
    state.add(finished(second, "runs/r", 2, Verdict.ERROR))
    third = plan.next_for("b0", state, "k0", 0)
    assert third is not None
    assert third.cell != first.cell


def test_a_board_set_aside_before_trains_first() -> None:
    plan = schedule(kernels=1, boards=1, repeats=1)
    state = begin(plan, b0="3 bench failures in a row")
    for number in range(1, 3):
        start = plan.next_for("b0", state, None, 0)
        assert start is not None
        assert start.purpose is Purpose.TRAINING
        state.add(finished(start, "runs/r", number, Verdict.PASS))
    start = plan.next_for("b0", state, "k0", 0)
    assert start is not None
    assert start.purpose is Purpose.PLAN


def test_a_training_that_fails_ends_the_boards_night() -> None:
    plan = schedule(kernels=1, boards=1, repeats=1)
    state = begin(plan, b0="3 bench failures in a row")
    start = plan.next_for("b0", state, None, 0)
    assert start is not None
    state.add(finished(start, "runs/r", 1, Verdict.ERROR))
    assert plan.next_for("b0", state, None, 0) is None
    assert {hole.reason for hole in plan.holes(state, over="")} == {
        "the board was set aside: 3 bench failures in a row"
    }


def test_a_board_set_aside_tonight_rests_until_the_next() -> None:
    plan = schedule(kernels=1, boards=2, repeats=1, retries=5)
    state = begin(plan)
    for number in range(RULES.after):
        start = plan.next_for("b0", state, "k0", 0)
        assert start is not None
        state.add(finished(start, "runs/r", number + 1, Verdict.ERROR))
    assert plan.next_for("b0", state, "k0", 0) is None
    assert plan.next_for("b1", state, None, 0) is not None


def test_a_cell_that_kills_its_worker_is_left() -> None:
    plan = schedule(kernels=1, boards=1, repeats=1)
    state = begin(plan)
    start = plan.next_for("b0", state, None, 0)
    assert start is not None
    for _ in range(2):
        assert plan.is_open(start.cell, state)
        state.add(Died(at=AT, cell=start.cell, why="killed by SIGSEGV"))
    assert not plan.is_open(start.cell, state)
    hole = next(hole for hole in plan.holes(state, over="") if hole.cell == start.cell)
    assert hole.reason == "the board's worker ended 2 times: killed by SIGSEGV"
