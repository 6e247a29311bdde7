"""Whether a board can be trusted as a bench: pure, from one cycle to the next."""

from __future__ import annotations

from dataclasses import dataclass

from farm.model import Blame, NightCycle, Purpose, Verdict

__all__ = ["Rules", "Trust", "bench_failed", "follow"]


@dataclass(frozen=True)
class Rules:
    """So many bench failures in a row set a board aside, so many clean cycles bring it back."""

    after: int
    training: int


@dataclass(frozen=True)
class Trust:
    """``set_aside`` is why a board is not trusted, "" if it is."""

    set_aside: str = ""
    bench_failures: int = 0
    clean_trainings: int = 0


def bench_failed(cycle: NightCycle) -> bool:
    """Whether the bench failed; an ERROR of another kind blames nobody else."""
    return cycle.verdict is Verdict.ERROR and cycle.blame in (Blame.BENCH, None)


def follow(trust: Trust, cycle: NightCycle, rules: Rules) -> Trust:
    """What is known of the board after ``cycle``.

    A training cycle is clean when the bench did its part, whatever the kernel did; one that could
    not be run (SKIP) shows nothing.
    """
    if cycle.purpose is Purpose.TRAINING:
        clean = cycle.verdict in (Verdict.PASS, Verdict.FAIL)
        trainings = trust.clean_trainings + 1 if clean else 0
        if trainings >= rules.training:
            return Trust()
        return Trust(trust.set_aside, trust.bench_failures, trainings)
    if not bench_failed(cycle):
        return Trust(trust.set_aside)
    failures = trust.bench_failures + 1
    said = trust.set_aside
    if failures >= rules.after and not said:
        said = f"{failures} bench failures in a row, the last: {cycle.why}"
    return Trust(said, failures)
