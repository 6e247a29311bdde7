"""Getting a board back that a cycle has left behind: from the mildest way to the last one.

BREAK, which makes a kernel that still takes interrupts panic and leave a dump; a warm reset, which
keeps the memory; a power cycle; EDL, from where a board that boots no more can be flashed. Each
step says why it was taken, what came of it, and what it cost; a board that none of them brings
back is powered off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from farm.bench.environment import Bench
from farm.bench.inject import BOOT, PANIC
from farm.bench.strategy import Status
from farm.bench.whereabouts import Place
from farm.errors import BenchError, FarmError
from farm.model import RecoveryStep

_REACTION_S = 3.0
_IN_A_MODE = (Place.EDL, Place.CRASH, Place.FASTBOOT)


@dataclass(frozen=True)
class Recovered:
    """``place`` is where the board is in the end: a shell, EDL, or off."""

    steps: tuple[RecoveryStep, ...]
    place: Place


def _wait_shell(bench: Bench, reaction_s: float) -> str:
    """Wait for a reaction of the board and then for its prompt; say how long the boot took."""
    bench.console.wait_for([PANIC, BOOT], reaction_s, "a reaction of the board")
    bench.shell.wait_prompt(bench.options.deadlines_s.boot, "the shell's prompt")
    bench.strategy.force(Status.shell)
    return "the shell answers"


def _by_break(bench: Bench) -> str:
    bench.console.mark()
    bench.console.send_break()
    bench.console.write(b"c")
    return _wait_shell(bench, _REACTION_S * bench.options.deadlines_s.factor)


def _by_reset(bench: Bench) -> str:
    bench.console.mark()
    bench.warm_reset()
    return _wait_shell(bench, bench.options.deadlines_s.reset)


def _by_leaving(bench: Bench) -> str:
    bench.strategy.force(Status.unknown)
    bench.strategy.transition(Status.shell)
    return "led on to the shell"


def _by_power(bench: Bench) -> str:
    bench.strategy.force(Status.unknown)
    bench.power_cycle()
    return "the shell answers"


def _by_edl(bench: Bench) -> str:
    bench.strategy.force(Status.unknown)
    bench.strategy.transition(Status.edl)
    return "the boot ROM answers: flash it (farm run --flash edl)"


def _ladder(bench: Bench, place: Place) -> Iterator[tuple[str, str, Callable[[Bench], str]]]:
    """(step, reason, what to do) in their order, as far as this bench can."""
    options = bench.options
    if place in (*_IN_A_MODE, Place.SHELL):
        yield "lead on", f"it is in {place.value}", _by_leaving
    elif place is not Place.OFF:
        if "break" in options.features and bench.console.lost is None:
            yield "break", f"it is {place.value}; its interrupts may still work", _by_break
        if options.reset:
            yield "warm reset", "it did not come back by itself; the memory is kept", _by_reset
    why = "it is off" if place is Place.OFF else "nothing that keeps the memory brought it back"
    yield "power cycle", why, _by_power
    if bench.strategy.edl is not None and "edl" in bench.strategy.keys:
        yield "edl", "it does not boot even from cold", _by_edl


def find(bench: Bench, note: Callable[[str], None]) -> Place:
    """Say where the board is, which takes up to 5 s; never raises but for an interruption."""
    try:
        where = bench.strategy.where()
    except FarmError as error:
        note(f"where the board is cannot be told: {error.message}")
        return Place.UNKNOWN
    note(f"the board is here: {where}")
    return where.place


def recover(bench: Bench, place: Place, note: Callable[[str], None]) -> Recovered:
    """Bring the board back from where `find` found it, saying each step by ``note``.

    Never raises but for an interruption.
    """
    steps: list[RecoveryStep] = []
    for name, reason, act in _ladder(bench, place):
        began = time.monotonic()
        try:
            outcome, succeeded = act(bench), True
        except BenchError as error:
            outcome, succeeded = error.message, False
        step = RecoveryStep(
            step=name,
            reason=reason,
            outcome=outcome,
            succeeded=succeeded,
            seconds=round(time.monotonic() - began, 3),
        )
        steps.append(step)
        note(f"recovery: {name} ({reason}), {step.seconds:.1f} s: {outcome}")
        if succeeded:
            return Recovered(tuple(steps), Place.EDL if name == "edl" else Place.SHELL)
    error_at_last = bench.safe_state()
    outcome = "powered off" if error_at_last is None else error_at_last.message
    steps.append(
        RecoveryStep(
            step="power off",
            reason="nothing brought it back",
            outcome=outcome,
            succeeded=error_at_last is None,
            seconds=0.0,
        )
    )
    note(f"recovery: {outcome}")
    return Recovered(tuple(steps), Place.OFF)
