"""How a run's cycle stands in a night, for nights that tests make of runs."""

from __future__ import annotations

from collections.abc import Iterable

from farm.model import Cycle, NightCell, NightCycle, Purpose


def night_cycle(
    run: str,
    cycle: Cycle,
    *,
    kernel: str,
    board: str,
    channels: Iterable[str] = ("pstorefs",),
    training: bool = False,
) -> NightCycle:
    """The first attempt of ``cycle``; ``run`` is its run's folder in the night's."""
    return NightCycle(
        cell=NightCell(
            kernel=kernel,
            board=board,
            scenario=cycle.scenario,
            channels=tuple(channels),
            repeat=cycle.repeat,
        ),
        attempt=1,
        purpose=Purpose.TRAINING if training else Purpose.PLAN,
        counts=not training,
        run=run,
        number=cycle.number,
        started=cycle.started,
        wall_s=cycle.wall_s,
        verdict=cycle.result.verdict,
        blame=cycle.result.blame,
        why=cycle.result.why,
    )
