"""What becomes of a night: night.json at any time, and all that is made of it in the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm import __version__
from farm.errors import FarmError
from farm.export import Results, load_results, write_night_exports
from farm.history import History
from farm.judge.night_folder import NIGHT_NAME
from farm.judge.run_folder import inside, replace_text
from farm.judge.totals import summarise
from farm.model import (
    Night,
    NightBoard,
    NightCycle,
    NightHole,
    NightKernel,
    NightPlace,
    Purpose,
    Run,
)
from farm.nightly.state import NightState
from farm.report.night import write_night_report

__all__ = ["account", "publish", "write_night"]


def counted(state: NightState) -> tuple[NightCycle, ...]:
    """The night's cycles, the last attempt of each cell marked as the one that counts."""
    last = {id(tried[-1]) for tried in state.attempts.values()}
    return tuple(
        cycle.model_copy(update={"counts": cycle.purpose is Purpose.PLAN and id(cycle) in last})
        for cycle in state.cycles
    )


def account(
    state: NightState,
    *,
    plan: str,
    kernels: Sequence[NightKernel],
    boards: Sequence[NightBoard],
    places: Sequence[NightPlace] = (),
    runs: dict[str, Run],
    holes: Sequence[NightHole],
    now: str,
) -> Night:
    """The night as it stands; ``runs`` tell what a kernel is that nobody has built."""
    cycles = counted(state)
    verdict, totals = summarise(cycle.verdict for cycle in cycles if cycle.counts)
    closed = state.closed
    return Night(
        night_id=state.night_id,
        plan=plan,
        plan_sha256=state.plan_sha256,
        farm_version=__version__,
        started=state.started,
        finished=closed.at if closed and closed.complete else None,
        wall_s=round(state.spent_s("" if closed else now), 3),
        verdict=verdict,
        totals=totals,
        kernels=tuple(_told(kernel, cycles, runs) for kernel in kernels),
        boards=tuple(boards),
        places=tuple(places),
        runs=tuple(state.runs),
        cycles=cycles,
        holes=tuple(holes),
        ended_early=closed.ended_early if closed else "",
        interrupted=bool(closed and closed.interrupted),
    )


def _told(kernel: NightKernel, cycles: Sequence[NightCycle], runs: dict[str, Run]) -> NightKernel:
    if kernel.build_id:
        return kernel
    names = dict.fromkeys(cycle.run for cycle in cycles if cycle.cell.kernel == kernel.name)
    said = [runs[name] for name in names if name in runs and runs[name].build_id]
    return kernel.model_copy(
        update={
            "release": ",".join(sorted({run.kernel_release or "" for run in said})) or None,
            "build_id": ",".join(sorted({run.build_id or "" for run in said})) or None,
        }
    )


def write_night(folder: Path, night: Night) -> None:
    """Replace night.json; raises BenchError (part ``disk``)."""
    replace_text(folder / NIGHT_NAME, night.model_dump_json(indent=1) + "\n")


def publish(folder: Path, night: Night, runs: dict[str, Run], history: History) -> list[Path]:
    """Hand the finished (or interrupted) night on; returns the files to be looked at.

    Each step can be made again at any later time from the night's folder alone, and this is the
    one place where they are called.
    """
    history.add_night(night, runs)
    page = write_night_report(folder, history)
    return [page, *write_night_exports(folder, night, runs, before=_before(folder, night, history))]


def _before(folder: Path, night: Night, history: History) -> Results | None:
    """What the last night of the plan found, if its folder is still there."""
    last = history.last_night(night.plan, before=night.night_id)
    if last is None:
        return None
    try:
        return load_results(inside(folder.parent, last.night_id))
    except FarmError:
        return None
