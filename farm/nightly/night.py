"""A night from its plan: found again or begun, run, and handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from farm.build.progress import BuildProgress
from farm.errors import BenchError, FarmError, UsageError
from farm.history import CycleRow, History, open_history
from farm.hosts.coordinator import Coordinator
from farm.model import Night, NightHole
from farm.nightly.controller import Controller, now
from farm.nightly.finish import publish
from farm.nightly.foreign import check_foreign
from farm.nightly.journal import JOURNAL_NAME, Entry, Journal, Opened, StoredTrust, read_journal
from farm.nightly.kernels import Kernels, prepare_kernels
from farm.nightly.left_behind import mark_of, release_left_behind
from farm.nightly.live import LiveView
from farm.nightly.plan import NightPlan, Places, read_plan
from farm.nightly.pulse import PulseWriter
from farm.nightly.schedule import (
    FLASH_S,
    Knowledge,
    Past,
    Schedule,
    Start,
    Thing,
    expand,
    impossible,
)
from farm.nightly.seats import Chosen, Seat, boards_of, choose
from farm.nightly.state import NightState, replay
from farm.nightly.trust import Rules
from farm.nightly.workers import prepare_workers
from farm.run.store import new_run_id

__all__ = ["Options", "Preview", "preview", "work"]

NIGHTS = "nights"
PLAN_NAME = "plan.yaml"
_KERNELS = "kernels"
# A night that was left longer ago is the day before's: its boards and kernels may be others now.
_TAKEN_UP_WITHIN = timedelta(hours=18)
_NIGHTS_KNOWN = 10


@dataclass(frozen=True)
class Options:
    """What ``farm nightly`` was asked for."""

    plan: Path
    out: Path
    history: str | None
    resume: str | None
    new: bool
    quiet: bool
    command: tuple[str, ...]
    coordinator: str = ""
    devices: Path = Path("devices")
    only_below: Path | None = None


@dataclass(frozen=True)
class Preview:
    """What would be run: seconds from the start and the cycle; and what would not."""

    resumed: str | None
    starts: Sequence[tuple[float, Start]]
    holes: Sequence[NightHole]
    duration_s: float
    said: Sequence[str] = ()


@dataclass(frozen=True)
class _Prepared:
    plan: NightPlan
    sha256: str
    chosen: Chosen
    schedule: Schedule
    holes: list[NightHole]
    rules: Rules


def _plan(options: Options) -> NightPlan:
    """The plan; what is checked of somebody else's is what is run."""
    plan = read_plan(options.plan)
    if options.only_below is not None:
        check_foreign(plan, options.only_below)
    return plan


def preview(options: Options) -> Preview:
    """What `work` would do; nothing is built, started or written."""
    plan = _plan(options)
    with ExitStack() as opened:
        history = opened.enter_context(open_history(options.history, out=options.out))
        folder = _unfinished(options, _sha256(options.plan))
        entries: list[Entry] = []
        if folder is not None:
            entries = read_journal(folder / JOURNAL_NAME)[0]
        coordinator = _connected(options, plan, "", opened)
        prepared = _prepare(options, plan, history, coordinator, replay(entries, Rules(1, 1)))
        entries = entries or [_opened("", prepared, history)]
    starts = prepared.schedule.preview(entries, prepared.rules)
    return Preview(
        resumed=folder.name if folder else None,
        starts=starts,
        holes=prepared.holes,
        duration_s=prepared.schedule.duration_s(starts),
        said=prepared.chosen.said,
    )


def work(options: Options) -> tuple[Night, list[Path]]:
    """Run the night; returns its account, and the files to be looked at.

    Raises UsageError for a wrong plan or environment, BuildError for a kernel, BenchError when
    nothing can be stored or the history does not answer.
    """
    plan = _plan(options)
    with ExitStack() as opened:
        history = opened.enter_context(open_history(options.history, out=options.out))
        folder = _unfinished(options, _sha256(options.plan))
        night_id = folder.name if folder else new_run_id()
        coordinator = _connected(options, plan, mark_of(night_id), opened)
        before = NightState(Rules(1, 1))
        if folder is not None:
            before = replay(read_journal(folder / JOURNAL_NAME)[0], Rules(1, 1))
        prepared = _prepare(options, plan, history, coordinator, before)
        if folder is None:
            folder = options.out / NIGHTS / night_id
            _make(folder, options.plan)
        journal = opened.enter_context(Journal(folder / JOURNAL_NAME))
        state = replay(journal.entries, prepared.rules)
        # While kernels are made: the first worker would wait for it.
        prepare_workers()
        with BuildProgress() as progress:
            kernels = prepare_kernels(
                prepared.plan,
                boards_of(prepared.chosen.seats).values(),
                folder / _KERNELS,
                progress,
            )
        _same_kernels(kernels, {n: k.build_id for n, k in state.kernels.items()}, folder)
        entry = _opened(night_id, prepared, history)
        journal.append(entry)
        state.add(entry)
        view = opened.enter_context(
            LiveView(
                prepared.chosen.seats,
                len(prepared.schedule.cells),
                quiet=options.quiet,
                pulse=PulseWriter(folder),
            )
        )
        what = f"{len(prepared.schedule.cells)} cells on {len(prepared.schedule.seats)} boards"
        if len(journal.entries) > 1:
            what = f"going on, {len(state.cycles)} cycles are done"
        view.note(f"night {night_id}: {what}")
        for said in prepared.chosen.said:
            view.note(said)
        if coordinator is not None:
            wanted = [one.name for one in prepared.chosen.seats.values() if one.is_place]
            for said in release_left_behind(coordinator, wanted, options.out / NIGHTS, night_id):
                view.note(said)
        controller = Controller(
            prepared.plan,
            folder,
            journal,
            state,
            prepared.schedule,
            prepared.chosen.seats,
            kernels,
            prepared.holes,
            history,
            view,
            options.command,
            coordinator,
            options.devices,
        )
        night, runs = controller.run()
        try:
            files = publish(folder, night, runs, history)
        except FarmError as error:
            view.note(f"{error}")
            files = [folder]
    return night, files


def _connected(
    options: Options, plan: NightPlan, mark: str, opened: ExitStack
) -> Coordinator | None:
    """The coordinator, if the plan chooses places and one is named."""
    if not options.coordinator or not any(isinstance(one, Places) for one in plan.boards):
        return None
    return opened.enter_context(Coordinator(options.coordinator, mark=mark))


def _prepare(
    options: Options,
    plan: NightPlan,
    history: History,
    coordinator: Coordinator | None,
    before: NightState,
) -> _Prepared:
    places = coordinator.places() if coordinator is not None else None
    chosen = choose(options.plan, plan, places, options.devices, before.places)
    boards = boards_of(chosen.seats)
    cells, holes = expand(
        [kernel.name for kernel in plan.kernels],
        tuple(boards.values()),
        plan.chosen,
        plan.channels,
        plan.repeats,
    )
    schedule = Schedule(
        cells=cells,
        retries=plan.retries,
        budget_s=plan.budget,
        training_scenario=plan.set_aside.scenario,
        flash_s=0.0 if plan.flash == "none" else FLASH_S,
        knowledge=_knowledge(history, plan.name),
        seats={name: seat.board for name, seat in chosen.seats.items()},
        unable={name: _unable(seat, plan) for name, seat in chosen.seats.items()},
    )
    rules = Rules(plan.set_aside.after, plan.set_aside.training)
    return _Prepared(plan, _sha256(options.plan), chosen, schedule, holes, rules)


def _unable(seat: Seat, plan: NightPlan) -> frozenset[Thing]:
    """What cannot be run there."""
    return frozenset(
        (scenario.name, channels)
        for scenario in plan.chosen
        for channels in plan.channels
        if impossible(seat.options, scenario, channels)
    )


def _knowledge(history: History, plan: str) -> Knowledge:
    """What the last nights of the plan say of each cell."""
    found: dict[tuple[str, str, str, tuple[str, ...]], list[CycleRow]] = {}
    for night in history.nights(plan=plan, limit=_NIGHTS_KNOWN):
        for row in reversed(history.cycles(night_id=night.night_id)):
            channels = tuple(row.channels.split(","))
            found.setdefault((row.kernel, row.board, row.scenario, channels), []).append(row)
    return {
        key: Past(
            verdicts=tuple(row.verdict for row in rows),
            wall_s=median(row.wall_s for row in rows),
        )
        for key, rows in found.items()
    }


def _opened(night_id: str, prepared: _Prepared, history: History) -> Opened:
    states = history.board_states()
    boards = []
    for name in prepared.chosen.seats:
        known = states.get(name)
        boards.append(
            StoredTrust(
                board=name,
                set_aside=known.set_aside if known else "",
                bench_failures=known.bench_failures if known else 0,
                clean_trainings=known.clean_trainings if known else 0,
            )
        )
    return Opened(
        at=now(),
        night_id=night_id,
        plan=prepared.plan.name,
        plan_sha256=prepared.sha256,
        boards=tuple(boards),
        places=tuple(one.stored for one in prepared.chosen.seats.values() if one.is_place),
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _make(folder: Path, plan: Path) -> None:
    """Make the night's folder with its plan, and the journal last: before that it is no night."""
    try:
        (folder / _KERNELS).mkdir(parents=True)
        (folder / PLAN_NAME).write_bytes(plan.read_bytes())
        (folder / JOURNAL_NAME).touch()
    except OSError as error:
        raise BenchError(f"{folder} cannot be made: {error.strerror}", part="disk") from error


def _unfinished(options: Options, sha256: str) -> Path | None:
    """The folder of the night to go on with: the one asked for, or the newest that was left."""
    nights = options.out / NIGHTS
    if options.resume is not None:
        folder = nights / options.resume
        if "/" in options.resume or not (folder / JOURNAL_NAME).is_file():
            raise UsageError(f"there is no night {options.resume} in {nights}")
        state = replay(read_journal(folder / JOURNAL_NAME)[0], Rules(1, 1))
        if state.plan_sha256 and state.plan_sha256 != sha256:
            raise UsageError(
                f"the night {options.resume} is of another plan",
                f"Its own is {folder / PLAN_NAME}; paths in it are relative to where it was.",
            )
        if state.closed is not None and state.closed.complete:
            raise UsageError(f"the night {options.resume} is complete")
        return folder
    if options.new or not nights.is_dir():
        return None
    for folder in sorted(nights.iterdir(), reverse=True):
        journal = folder / JOURNAL_NAME
        if not journal.is_file():
            continue
        try:
            state = replay(read_journal(journal)[0], Rules(1, 1))
        except UsageError:
            continue  # said when it is asked for by name
        if not journal.stat().st_size and _sha256(folder / PLAN_NAME) == sha256:
            return folder  # it got no further than its kernels
        if state.plan_sha256 != sha256:
            continue
        if state.closed is not None and state.closed.complete:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(state.last_at)
        return folder if age < _TAKEN_UP_WITHIN else None
    return None


def _same_kernels(kernels: Kernels, before: Mapping[str, str | None], folder: Path) -> None:
    """Raise UsageError when the night would go on with other kernels than it began with."""
    for kernel in kernels.known:
        if before.get(kernel.name, kernel.build_id) != kernel.build_id:
            raise UsageError(
                f"the night {folder.name} began with another kernel {kernel.name}: build id "
                f"{before[kernel.name]}, now {kernel.build_id}",
                "Begin another night with --new.",
            )
