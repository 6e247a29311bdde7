"""A board that fails as a bench is set aside, and comes back by training."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farm.model import Blame, NightCell, NightCycle, Purpose, Verdict
from farm.nightly.trust import Rules, Trust, follow

RULES = Rules(after=3, training=2)
BLAMES = {Verdict.PASS: None, Verdict.FAIL: Blame.KERNEL, Verdict.ERROR: Blame.BENCH}


def cycle(verdict: Verdict, purpose: Purpose = Purpose.PLAN) -> NightCycle:
    cell = NightCell(kernel="k", board="b", scenario="s", channels=("pstorefs",), repeat=1)
    return NightCycle(
        cell=cell,
        attempt=1,
        purpose=purpose,
        counts=True,
        run="runs/r",
        number=1,
        started="",
        wall_s=1.0,
        verdict=verdict,
        blame=BLAMES.get(verdict, Blame.UNSUPPORTED),
        why="the serial line is silent",
    )


def after(trust: Trust, *verdicts: Verdict, purpose: Purpose = Purpose.PLAN) -> Trust:
    for verdict in verdicts:
        trust = follow(trust, cycle(verdict, purpose), RULES)
    return trust


def test_three_bench_failures_in_a_row() -> None:
    assert not after(Trust(), Verdict.ERROR, Verdict.ERROR).set_aside
    found = after(Trust(), Verdict.ERROR, Verdict.ERROR, Verdict.ERROR)
    assert found.set_aside == "3 bench failures in a row, the last: the serial line is silent"


def test_a_kernel_that_fails_is_no_bench_that_fails() -> None:
    verdicts = (Verdict.ERROR, Verdict.ERROR, Verdict.FAIL, Verdict.ERROR, Verdict.ERROR)
    assert not after(Trust(), *verdicts).set_aside
    assert after(Trust(), *[Verdict.FAIL] * 10) == Trust()


def test_failures_are_counted_over_nights() -> None:
    assert after(Trust(bench_failures=2), Verdict.ERROR).set_aside


def test_clean_training_brings_it_back() -> None:
    aside = Trust("it failed", 3)
    once = after(aside, Verdict.PASS, purpose=Purpose.TRAINING)
    assert (once.set_aside, once.clean_trainings) == ("it failed", 1)
    assert after(once, Verdict.FAIL, purpose=Purpose.TRAINING) == Trust()
    spoilt = after(once, Verdict.ERROR, purpose=Purpose.TRAINING)
    assert (spoilt.set_aside, spoilt.clean_trainings) == ("it failed", 0)
    assert after(once, Verdict.SKIP, purpose=Purpose.TRAINING).clean_trainings == 0


@given(st.lists(st.sampled_from(list(Verdict)), max_size=30))
def test_set_aside_if_and_only_if_so_many_errors_were_in_a_row(verdicts: list[Verdict]) -> None:
    row = longest = 0
    for verdict in verdicts:
        row = row + 1 if verdict is Verdict.ERROR else 0
        longest = max(longest, row)
    assert bool(after(Trust(), *verdicts).set_aside) == (longest >= RULES.after)
