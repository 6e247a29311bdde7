"""The night: a worker per board, a journal, and who runs what next.

The controller alone writes the journal and decides; workers run cycles. Whatever ends it, the
journal and the run folders hold all that the next one needs:

* a cycle counts once its verdict is in its run's run.json. When the journal was not written any
  more, the next controller finds it there;
* a cycle without a verdict is run again, under a new number;
* workers die with their controller, so that nobody works on a board beside the next one.

A board may be a place that a coordinator knows. It is worked on while it is had, and only then: a
cycle in which it was lost, or its exporter was, counts if it passed, and is run again otherwise.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from pydantic import ValidationError

from farm.bench.environment import HOST_PART
from farm.errors import BenchError, FarmError, UsageError
from farm.history import BoardState, History
from farm.hosts.coordinator import Coordinator, Hold, Kept
from farm.hosts.environment import write_environment
from farm.judge.night_folder import read_runs
from farm.judge.run_folder import load_run
from farm.model import (
    Cycle,
    Night,
    NightBoard,
    NightCell,
    NightCycle,
    NightHole,
    NightPlace,
    Run,
    Verdict,
)
from farm.nightly.benches import ensure_up, take_down
from farm.nightly.finish import account, write_night
from farm.nightly.journal import (
    Begun,
    BenchStarted,
    Closed,
    Died,
    Entry,
    Finished,
    Journal,
    KernelReady,
    PlaceTold,
)
from farm.nightly.kernels import Kernels
from farm.nightly.live import LiveView, cell_text, span_text
from farm.nightly.messages import REPORT, Began, Ended, Failed, Note, Order, Task, Work
from farm.nightly.plan import NightPlan
from farm.nightly.schedule import Schedule, Start
from farm.nightly.seats import Seat, boards_of
from farm.nightly.state import NightState
from farm.nightly.trust import Trust
from farm.nightly.workers import WorkerProcess, start_worker
from farm.signals import ENDING, handled

__all__ = ["Controller", "adopt", "now"]

# A cycle's own deadlines end it long before.
_SILENT_DEADLINE_S = 3600.0
_END_DEADLINE_S = 180.0
_DEATHS_IN_A_ROW = 4
_TICK_S = 0.5
_STORE_EVERY_S = 15.0
_RUNS = "runs"
_LOGS = "workers"
_ENVIRONMENTS = "environments"
_WORKER = "farm.nightly.worker"
# What becomes of a place is told so often; an exporter may go on coming and going.
_TOLD = 50
_BREAKS_IN_A_ROW = 10
_LONGEST_PAUSE_S = 30.0
_WORTH_TELLING_S = 3.0
_SETTLE_S = 3.0


def now() -> str:
    """The wall clock as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def adopt(begun: Begun, folder: Path) -> Finished | None:
    """The end of a cycle that the journal does not tell of, if its run.json does."""
    try:
        run = load_run(folder / begun.run)
    except FarmError:
        return None
    cycle = next((one for one in run.cycles if one.number == begun.number), None)
    if cycle is None or cycle.scenario != begun.cell.scenario:
        return None
    return Finished(at=now(), cycle=_of(begun, cycle), interrupted=_interrupted(cycle))


def _interrupted(cycle: Cycle) -> bool:
    """Whether the controller ended the cycle: that says nothing of the bench."""
    fault = cycle.input.fault
    return fault is not None and fault.part == "controller"


def _of(begun: Begun, cycle: Cycle | Ended) -> NightCycle:
    result = cycle.result if isinstance(cycle, Cycle) else cycle
    return NightCycle(
        cell=begun.cell,
        place=begun.place,
        attempt=begun.attempt,
        purpose=begun.purpose,
        # Whether it counts is known when the night ends.
        counts=False,
        run=begun.run,
        number=begun.number,
        started=cycle.started,
        wall_s=cycle.wall_s,
        verdict=result.verdict,
        blame=result.blame,
        why=result.why,
    )


@dataclass
class _Worker:
    """A seat's worker process, and the cycle that it is at.

    ``hold`` is the number of the place's hold that it began under, ``broken`` why that has ended,
    ``withheld`` an end that counts when the coordinator says, a moment later, that it has not.
    """

    seat: str
    process: WorkerProcess
    log: IO[bytes]
    kernel: str | None = None
    start: Start | None = None
    begun: Begun | None = None
    heard_at: float = field(default_factory=time.monotonic)
    leaving_since: float | None = None
    unread: bytes = b""
    failed: Failed | None = None
    hold: int = 0
    broken: str = ""
    withheld: Ended | None = None
    settles_at: float = 0.0
    is_idle: bool = False


class Controller:
    """Runs what is left of a night; use `run` once."""

    def __init__(
        self,
        plan: NightPlan,
        folder: Path,
        journal: Journal,
        state: NightState,
        schedule: Schedule,
        seats: Mapping[str, Seat],
        kernels: Kernels,
        holes: list[NightHole],
        history: History,
        view: LiveView,
        command: tuple[str, ...],
        coordinator: Coordinator | None = None,
        devices: Path = Path("devices"),
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._journal = journal
        self._state = state
        self._schedule = schedule
        self._seats = seats
        self._coordinator = coordinator
        self._devices = devices
        self._kept: dict[str, Kept] = {}
        self._waiting: dict[str, float] = {}
        self._breaks: Counter[str] = Counter()
        self._not_before: defaultdict[str, float] = defaultdict(float)
        self._kernels = kernels
        self._holes = holes
        self._history = history
        self._view = view
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._workers: dict[str, _Worker] = {}
        self._asked_to_stop = 0
        self._broken: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()
        self._unclean = set(state.begun)
        self._opened = time.monotonic()
        self._spent_before_s = state.spent_s()
        self._stored_at = 0.0
        self._runs: dict[str, Run] = {}

    def run(self) -> tuple[Night, dict[str, Run]]:
        """Work until nothing is left, the budget is used up, or somebody interrupts.

        Returns the night and its runs. Raises UsageError for a wrong configuration, BenchError when
        nothing can be stored; boards are switched off before.
        """
        (self._folder / _RUNS).mkdir(exist_ok=True)
        (self._folder / _LOGS).mkdir(exist_ok=True)
        for kernel in self._kernels.known:
            if self._state.kernels.get(kernel.name) != kernel:
                self._note(KernelReady(at=now(), kernel=kernel))
        for begun in list(self._state.begun.values()):
            self._adopt_or_forget(begun)
        self._view.resumed(self._state.cycles, self._spent_before_s, self._schedule.budget_s)
        self._store(closed=False)
        with self._signals(), ExitStack() as ending:
            ending.callback(self._release_all)
            ending.callback(self._end_all)
            for seat in self._schedule.seats:
                if not self._asked_to_stop:
                    self._want(seat)
            while self._workers or (self._kept and not self._asked_to_stop):
                self._listen()
                self._watch()
                self._look_at_places()
                if time.monotonic() - self._stored_at > _STORE_EVERY_S:
                    self._store(closed=False)
        return self._close()

    def _note(self, entry: Entry) -> None:
        """Write what happened; only then may anything follow from it."""
        self._journal.append(entry)
        self._state.add(entry)

    def _spent_s(self) -> float:
        return self._spent_before_s + time.monotonic() - self._opened

    def _next(self, seat: str, current: str | None) -> Start | None:
        if self._asked_to_stop or seat in self._broken:
            return None
        busy = {
            worker.start.cell
            for worker in self._workers.values()
            if worker.start is not None and worker.seat != seat
        }
        return self._schedule.next_for(seat, self._state, current, self._spent_s(), busy)

    def _want(self, seat: str) -> None:
        """Begin at a seat that has something to do; a place is asked for first."""
        if self._next(seat, None) is None:
            return
        if not self._seats[seat].is_place:
            self._begin(seat)
        elif self._coordinator is not None and seat not in self._kept:
            self._kept[seat] = self._coordinator.keep(seat, self._seats[seat].filters)
            self._waiting[seat] = time.monotonic()

    def _begin(self, seat: str) -> None:
        """Have the bench up and a worker at it."""
        self._view.stage(seat, "opening the bench")
        lg_env, hold = self._seats[seat].lg_env, 0
        try:
            if seat in self._kept:
                # What is found out after this may be of a later hold, never of an earlier one.
                hold = self._kept[seat].standing.number
                lg_env = self._environment_of(seat)
            else:
                ensure_up(lg_env, lambda: self._note(BenchStarted(at=now(), board=seat)))
            self._spawn(seat, lg_env, hold)
        except BenchError as error:
            if seat in self._kept and error.part == "coordinator":
                return  # it is waited for
            self._give_up(seat, f"the bench gave out: {error.message}")
            self._view.rests(seat, "its bench does not start")
            return
        self._assign(self._workers[seat])

    def _environment_of(self, seat: str) -> Path:
        """The environment of a place that is had, as its exporters offer it now."""
        assert self._coordinator is not None
        seen = self._coordinator.places().get(seat)
        if seen is None:
            raise BenchError(f"there is no place {seat} any more", part="coordinator")
        return write_environment(
            seat,
            seen.tags,
            self._coordinator.resources_of(seat),
            self._devices,
            (self._folder / _ENVIRONMENTS).resolve(),
            self._coordinator.address,
            board=self._seats[seat].board,
        )

    def _spawn(self, seat: str, lg_env: Path, hold: int) -> None:
        log = (self._folder / _LOGS / f"{seat}.log").open("ab")
        environment = dict(os.environ)
        if seat in self._kept and self._coordinator is not None:
            # labgrid lets only who has a place use it.
            host, _, user = self._coordinator.holder.partition("/")
            environment |= {"LG_HOSTNAME": host, "LG_USERNAME": user}
        process = start_worker(seat, log, environment, _WORKER)
        worker = _Worker(seat, process, log, hold=hold)
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._workers[seat] = worker
        work = Work(
            lg_env=lg_env,
            out=self._folder / _RUNS,
            flash=None if self._plan.flash == "none" else self._plan.flash,
            policy=self._plan.policy,
            command=self._command,
            afresh=seat in self._unclean,
        )
        self._unclean.discard(seat)
        self._send(worker, work.model_dump_json())

    def _send(self, worker: _Worker, line: str) -> None:
        with suppress(BrokenPipeError):  # its end is noticed by what it no longer says
            worker.process.stdin.write(line.encode() + b"\n")
            worker.process.stdin.flush()

    def _assign(self, worker: _Worker) -> None:
        """Give the worker its next cycle, or let it go."""
        worker.start = worker.begun = None
        start = self._next(worker.seat, worker.kernel)
        worker.is_idle = not self._is_certain(worker)
        if worker.is_idle and start is not None:
            self._view.stage(worker.seat, self._kept[worker.seat].standing.why)
            return
        worker.start, worker.heard_at = start, time.monotonic()
        if start is None:
            self._let_go(worker)
            return
        worker.kernel = start.cell.kernel
        image = self._kernels.images.get((start.cell.kernel, self._seats[worker.seat].board))
        task = Task(
            kernel=start.cell.kernel,
            boot_image=image.path if image else None,
            build_id=image.build_id if image else None,
            scenario=start.cell.scenario,
            channels=start.cell.channels,
            repeat=start.cell.repeat,
        )
        self._view.begins(start)
        self._send(worker, Order(task=task).model_dump_json())

    def _let_go(self, worker: _Worker) -> None:
        if worker.leaving_since is None:
            worker.leaving_since = time.monotonic()
            self._view.stage(worker.seat, "switching the board off")
            self._send(worker, Order(task=None).model_dump_json())

    def _listen(self) -> None:
        for key, _ in self._selector.select(_TICK_S):
            worker: _Worker = key.data
            try:
                data = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                self._gone(worker)
                continue
            worker.heard_at = time.monotonic()
            *lines, worker.unread = (worker.unread + data).split(b"\n")
            for line in lines:
                self._hear(worker, line)
        self._view.refresh()

    def _hear(self, worker: _Worker, line: bytes) -> None:
        try:
            said = REPORT.validate_json(line)
        except ValidationError:
            return  # whatever it was, its stages and verdicts are another line
        match said:
            case Note():
                if said.lasting:
                    self._view.note(f"{worker.seat}: {said.text}")
                else:
                    self._view.stage(worker.seat, said.text, said.where, said.deadline_s)
            case Began():
                assert worker.start is not None
                begun = Begun(
                    at=now(),
                    cell=worker.start.cell,
                    attempt=worker.start.attempt,
                    purpose=worker.start.purpose,
                    run=said.run,
                    number=said.number,
                    place=worker.start.place,
                )
                worker.begun = begun
                self._note(begun)
            case Ended():
                if self._is_sound(worker, said):
                    self._has_ended(worker, said)
            case Failed():
                worker.failed = said

    def _ended(self, worker: _Worker, cycle: NightCycle, *, interrupted: bool) -> None:
        before = self._state.trust.get(worker.seat, Trust())
        self._note(Finished(at=now(), cycle=cycle, interrupted=interrupted))
        self._view.ended(cycle, interrupted=interrupted)
        after = self._state.trust.get(worker.seat, Trust())
        worker.start = worker.begun = None
        self._deaths[worker.seat] = 0
        self._breaks[worker.seat] = 0
        if after != before:
            self._keep_trust(worker.seat, after)
        if after.set_aside and not before.set_aside:
            self._view.note(f"{worker.seat} is set aside: {after.set_aside}")
        elif before.set_aside and not after.set_aside:
            self._view.note(f"{worker.seat} has come back: it trained without a bench failure")
        if cycle.verdict is not Verdict.PASS:
            self._again(worker.seat)

    def _keep_trust(self, seat: str, trust: Trust) -> None:
        """Keep it for the next nights; the journal holds it should the history fail."""
        own = [cycle for cycle in self._state.cycles if cycle.seat == seat]
        last = f"{self._state.night_id}/{own[-1].run}/{own[-1].number}"
        try:
            self._history.set_board_state(
                BoardState(
                    seat,
                    trust.set_aside,
                    trust.bench_failures,
                    trust.clean_trainings,
                    now(),
                    last,
                )
            )
        except FarmError as error:
            self._view.note(error.message)

    def _gone(self, worker: _Worker) -> None:
        """A worker has ended: as it was told to, or in the middle of a cycle."""
        self._selector.unregister(worker.process.stdout)
        code = worker.process.wait()
        worker.log.close()
        for pipe in (worker.process.stdin, worker.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        seat = worker.seat
        del self._workers[seat]
        start, begun = worker.start, worker.begun
        if start is not None or worker.broken:
            self._unclean.add(seat)
        if worker.failed is not None and worker.failed.usage:
            raise UsageError(f"{seat}: {worker.failed.message}")
        if begun is not None and (found := self._adopted(begun)) is not None:
            self._ended(worker, found.cycle, interrupted=found.interrupted)
        elif start is not None and (why := self._why_lost(worker)):
            self._note(PlaceTold(at=now(), place=seat, what=why, cell=start.cell))
            self._view.note(f"{seat}: {cell_text(start.cell)} is run again: {why}")
        elif start is not None and not self._asked_to_stop:
            why = worker.failed.message if worker.failed else _ending(code)
            log = self._folder / _LOGS / f"{seat}.log"
            self._view.note(
                f"{seat}: its worker ended in {cell_text(start.cell)}: {why} (see {log})"
            )
            self._note(Died(at=now(), cell=start.cell, why=why, place=start.place))
            self._deaths[seat] += 1
            if self._deaths[seat] >= _DEATHS_IN_A_ROW:
                self._broken[seat] = f"the bench gave out: its worker keeps ending: {why}"
        if start is not None:
            self._again(seat)
        left = worker.leaving_since is not None and not worker.broken
        if self._next(seat, None) is None or (left and seat not in self._kept):
            self._view.rests(seat, self._why_resting(seat))
            self._drop(seat)
        elif seat not in self._kept:
            self._begin(seat)
        # A place is begun at when it is had.

    def _why_resting(self, seat: str) -> str:
        if self._asked_to_stop:
            return "interrupted, off"
        if self._state.trust.get(seat, Trust()).set_aside:
            return "set aside, off"
        return "done, off"

    def _why_lost(self, worker: _Worker) -> str:
        """Why the place, and no worker, is to blame for an end; empty where it is not.

        One that could not even begin says nothing of its cell: the coordinator was gone, or the
        place's host was.
        """
        if worker.broken or worker.seat not in self._kept or self._asked_to_stop:
            return worker.broken
        if self._is_certain(worker) and (worker.begun is not None or worker.failed is None):
            return ""
        self._count_break(worker)
        return worker.broken

    def _again(self, seat: str) -> None:
        """Something is open again: other places that share the cells may have let go already."""
        for other in self._schedule.seats_of(self._seats[seat].board):
            if other != seat and other not in self._workers and other not in self._kept:
                self._want(other)

    # -- places

    def _is_certain(self, worker: _Worker) -> bool:
        """Whether the place is had, and has been since the worker began; a board always is."""
        kept = self._kept.get(worker.seat)
        if kept is None:
            return True
        standing = kept.standing
        return standing.hold is Hold.HELD and standing.number == worker.hold

    def _is_sound(self, worker: _Worker, said: Ended) -> bool:
        """Whether the end of a cycle counts; one that waits for the coordinator is withheld."""
        certain = self._is_certain(worker) and not worker.broken
        if worker.seat not in self._kept or (certain and said.verdict is Verdict.SKIP):
            return True
        if said.verdict is Verdict.PASS and not said.interrupted:
            return True  # what was proven is proven, whoever came between
        if worker.broken:
            return False  # it has been told to end
        unsure = self._kept[worker.seat].standing.hold is Hold.UNSURE
        if said.interrupted and certain:
            return True
        if said.part == HOST_PART or not (certain or unsure):
            self._break(worker, said.why if said.part == HOST_PART else "")
        else:
            # What is lost together is not noticed together: the console first, or the exporter.
            worker.withheld, worker.settles_at = said, time.monotonic() + _SETTLE_S
            self._view.stage(worker.seat, self._kept[worker.seat].standing.why or "looking twice")
        return False

    def _has_ended(self, worker: _Worker, said: Ended) -> None:
        assert worker.begun is not None
        worker.withheld = None
        self._ended(worker, _of(worker.begun, said), interrupted=said.interrupted)
        if worker.broken:
            worker.start = worker.begun = None
        else:
            self._assign(worker)

    def _adopted(self, begun: Begun) -> Finished | None:
        """The end of a cycle that was not told; at a place only what is proven by itself."""
        found = adopt(begun, self._folder)
        if found is None or begun.seat not in self._seats or not self._seats[begun.seat].is_place:
            return found
        return found if found.cycle.verdict is Verdict.PASS and not found.interrupted else None

    def _adopt_or_forget(self, begun: Begun) -> None:
        """What the controller before had begun: its end, if there is one, or it is run again."""
        if (found := self._adopted(begun)) is not None:
            self._note(found)
        elif begun.seat in self._seats and self._seats[begun.seat].is_place:
            what = f"the controller ended in {cell_text(begun.cell)}"
            self._note(PlaceTold(at=now(), place=begun.seat, what=what, cell=begun.cell))

    def _look_at_places(self) -> None:
        """Begin where a place is had, stop where it is lost, give up where it is not to be had."""
        for seat, kept in list(self._kept.items()):
            worker, standing = self._workers.get(seat), kept.standing
            if worker is not None and not worker.broken and worker.leaving_since is None:
                if standing.hold is Hold.WAITING or (
                    standing.hold is Hold.HELD and standing.number != worker.hold
                ):
                    self._break(worker)
                elif standing.hold is Hold.HELD and worker.withheld is not None:
                    self._settle(worker, worker.withheld)
                elif standing.hold is Hold.HELD and worker.is_idle:
                    self._assign(worker)
            if standing.hold is Hold.UNSURE and worker is not None and not worker.broken:
                since = self._waiting.setdefault(seat, time.monotonic())
                if time.monotonic() - since > self._plan.wait:
                    self._break(worker)
            if standing.hold is Hold.HELD:
                waited_s = time.monotonic() - self._waiting.pop(seat, time.monotonic())
                if waited_s > _WORTH_TELLING_S:
                    self._tell(seat, f"had after {span_text(waited_s)}")
                if seat not in self._workers and time.monotonic() >= self._not_before[seat]:
                    self._begin_at_place(seat)
            elif worker is None:
                self._wait_for(seat, kept)

    def _settle(self, worker: _Worker, said: Ended) -> None:
        """Let an end count that was withheld, if nothing has come out meanwhile."""
        assert self._coordinator is not None
        if time.monotonic() < worker.settles_at:
            return
        with suppress(BenchError):  # it is withheld on
            if self._coordinator.is_whole(worker.seat) and self._is_certain(worker):
                self._has_ended(worker, said)

    def _begin_at_place(self, seat: str) -> None:
        if self._next(seat, None) is None:
            self._view.rests(seat, self._why_resting(seat))
            self._drop(seat)
        else:
            self._begin(seat)

    def _wait_for(self, seat: str, kept: Kept) -> None:
        """Wait for a place as long as the plan says, and while there is anything to do there."""
        since = self._waiting.setdefault(seat, time.monotonic())
        why = kept.standing.why
        self._view.waits(seat, why)
        waited_s = time.monotonic() - since
        if waited_s > _WORTH_TELLING_S:
            self._tell(seat, why)
        if waited_s > self._plan.wait:
            self._give_up(
                seat,
                f"the place {seat} was left out after {span_text(waited_s)} of waiting: {why}",
            )
        elif self._next(seat, None) is None and not self._has_busy(seat):
            self._view.rests(seat, "not needed any more")
            self._drop(seat)

    def _has_busy(self, seat: str) -> bool:
        """Whether cells that the seat shares are being run, and may be open again."""
        board = self._seats[seat].board
        return any(
            self._seats[worker.seat].board == board and worker.start is not None
            for worker in self._workers.values()
        )

    def _break(self, worker: _Worker, why: str = "") -> None:
        """The place is no longer had, or was not for a moment: its worker ends."""
        standing = self._kept[worker.seat].standing
        worker.leaving_since = time.monotonic()
        self._count_break(worker, why)
        with suppress(ProcessLookupError):
            if standing.taken_by:
                worker.process.kill()  # the board is somebody else's
            else:
                worker.process.send_signal(signal.SIGINT)

    def _count_break(self, worker: _Worker, why: str = "") -> None:
        seat = worker.seat
        said = worker.failed.message if worker.failed is not None else ""
        lost = "the place was lost for a moment, and is had again"
        worker.broken = why or self._kept[seat].standing.why or said or lost
        self._tell(seat, worker.broken)
        self._breaks[seat] += 1
        self._not_before[seat] = time.monotonic() + min(
            _LONGEST_PAUSE_S, 2 ** (self._breaks[seat] - 1) - 1
        )
        if self._breaks[seat] >= _BREAKS_IN_A_ROW:
            self._broken[seat] = (
                f"the place {seat} was left out, it was lost {_BREAKS_IN_A_ROW} times in a row: "
                f"{worker.broken}"
            )

    def _give_up(self, seat: str, why: str) -> None:
        self._broken[seat] = why
        self._view.note(f"{seat}: {why}")
        if seat in self._kept:
            self._tell(seat, why)
            self._view.rests(seat, "left out")
            self._drop(seat)
        self._again(seat)

    def _drop(self, seat: str) -> None:
        """Release a place at which nothing is left to be done."""
        if seat in self._kept and seat not in self._workers:
            assert self._coordinator is not None
            del self._kept[seat]
            self._waiting.pop(seat, None)
            self._coordinator.drop(seat)

    def _tell(self, seat: str, what: str) -> None:
        """Keep what became of a place for the report."""
        told = self._state.told.get(seat, [])
        if len(told) < _TOLD and (not told or told[-1][1] != what):
            self._note(PlaceTold(at=now(), place=seat, what=what))

    def _release_all(self) -> None:
        if self._coordinator is not None:
            for said in self._coordinator.let_go(*self._seats):
                self._view.note(said)

    def _watch(self) -> None:
        """End workers that are silent for an hour, or do not end when told to."""
        moment = time.monotonic()
        for worker in list(self._workers.values()):
            late = worker.leaving_since and moment - worker.leaving_since > _END_DEADLINE_S
            if late or moment - worker.heard_at > _SILENT_DEADLINE_S:
                self._view.note(f"{worker.seat}: its worker does not answer and is ended")
                worker.process.kill()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first Ctrl-C have the boards left safe; more of them do not disturb that."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._asked_to_stop += 1
            if self._asked_to_stop == 1:
                self._view.note("interrupted: the boards are being switched off ...")
                for worker in self._workers.values():
                    worker.leaving_since = worker.leaving_since or time.monotonic()
                    with suppress(ProcessLookupError):
                        worker.process.send_signal(signal.SIGINT)

        with handled(ENDING, stop):
            yield

    def _end_all(self) -> None:
        """After an error of the controller's own: let the workers leave their boards safe."""
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _END_DEADLINE_S
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
        for board in self._state.benches:
            if board in self._seats:
                with suppress(FarmError):
                    take_down(self._seats[board].lg_env)

    def _store(self, *, closed: bool) -> tuple[Night, dict[str, Run]]:
        """Write night.json as things stand."""
        runs: dict[str, Run] = {}
        if closed:
            read = read_runs(self._folder, self._state.runs)
            runs = read.by_folder
            for why in read.missing.values():
                self._view.note(why)
        over = "not reached yet"
        if closed:
            over = self._state.closed.ended_early if self._state.closed else over
        night = account(
            self._state,
            plan=self._plan.name,
            kernels=[self._state.kernels.get(one.name, one) for one in self._kernels.known],
            boards=self._night_boards(),
            places=[
                NightPlace(
                    name=seat.name,
                    board=seat.board,
                    set_aside=self._state.trust.get(seat.name, Trust()).set_aside,
                    told=tuple(
                        f"{at[11:19]} {what}" for at, what in self._state.told.get(seat.name, ())
                    ),
                )
                for seat in self._seats.values()
                if seat.is_place
            ],
            runs=runs,
            holes=[*self._holes, *self._found_holes(over)],
            now=now(),
        )
        write_night(self._folder, night)
        self._stored_at = time.monotonic()
        return night, runs

    def _night_boards(self) -> list[NightBoard]:
        """A board that places share is set aside when all of them are."""
        found = []
        for name, options in boards_of(self._seats).items():
            seats = self._schedule.seats_of(name)
            aside = [self._state.trust.get(seat, Trust()).set_aside for seat in seats]
            found.append(
                NightBoard(
                    name=name,
                    lg_env=str(self._seats[seats[0]].lg_env),
                    virtual=options.virtual,
                    set_aside=aside[0] if all(aside) else "",
                )
            )
        return found

    def _broken_board(self, cell: NightCell) -> str:
        """Why nothing can be run at any of the board's seats, or an empty text."""
        seats = self._schedule.seats_of(cell.board)
        if not all(seat in self._broken for seat in seats):
            return ""
        return "; ".join(dict.fromkeys(self._broken[seat] for seat in seats))

    def _found_holes(self, over: str) -> list[NightHole]:
        holes = self._schedule.holes(self._state, over=over)
        return [
            hole.model_copy(update={"reason": why})
            if (why := self._broken_board(hole.cell))
            else hole
            for hole in holes
        ]

    def _close(self) -> tuple[Night, dict[str, Run]]:
        """Say in the journal how the night ended, and write night.json for good."""
        for seat in {cycle.seat: None for cycle in self._state.cycles}:
            # A controller that was killed may not have come to it.
            self._keep_trust(seat, self._state.trust.get(seat, Trust()))
        left = [
            cell
            for cell in self._schedule.cells
            if self._schedule.is_open(cell, self._state) and not self._broken_board(cell)
        ]
        aside = [
            cell
            for cell in left
            if all(
                self._state.trust.get(seat, Trust()).set_aside or seat in self._broken
                for seat in self._schedule.seats_of(cell.board)
            )
        ]
        ended_early = ""
        if self._asked_to_stop:
            ended_early = f"interrupted with {len(left)} cells left"
        elif len(left) > len(aside) and self._schedule.budget_s is not None:
            ended_early = f"the night's budget was used up with {len(left) - len(aside)} cells left"
        self._note(
            Closed(
                at=now(),
                complete=not self._asked_to_stop,
                interrupted=bool(self._asked_to_stop),
                ended_early=ended_early,
            )
        )
        return self._store(closed=True)


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


_GAPS = ("the bench gave out", "the board's worker ended", "the place ")


def exit_verdict(night: Night) -> tuple[Verdict, bool]:
    """The night's verdict, and whether anything that was to be run was not.

    What a board cannot do is no gap, nor what the budget left for another night.
    """
    gaps = night.interrupted or any(board.set_aside for board in night.boards)
    gaps = gaps or any(hole.reason.startswith(_GAPS) for hole in night.holes)
    return night.verdict, gaps
