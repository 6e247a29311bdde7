"""The night: a worker per board, a journal, and who runs what next.

The controller alone writes the journal and decides; workers run cycles. Whatever ends it, the
journal and the run folders hold all that the next one needs:

* a cycle counts once its verdict is in its run's run.json. When the journal was not written any
  more, the next controller finds it there;
* a cycle without a verdict is run again, under a new number;
* workers die with their controller, so that nobody works on a board beside the next one.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from pydantic import ValidationError

from farm.bench.options import BenchOptions
from farm.errors import BenchError, FarmError, UsageError
from farm.history import BoardState, History
from farm.judge.night_folder import read_runs
from farm.judge.run_folder import load_run
from farm.model import Cycle, Night, NightBoard, NightCycle, NightHole, Run, Verdict
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
)
from farm.nightly.kernels import Kernels
from farm.nightly.live import LiveView, cell_text
from farm.nightly.messages import REPORT, Began, Ended, Failed, Note, Order, Task, Work
from farm.nightly.plan import NightPlan
from farm.nightly.schedule import Schedule, Start
from farm.nightly.state import NightState
from farm.nightly.trust import Trust

__all__ = ["Controller", "adopt", "now"]

# A cycle's own deadlines end it long before.
_SILENT_DEADLINE_S = 3600.0
_END_DEADLINE_S = 180.0
_DEATHS_IN_A_ROW = 4
_TICK_S = 0.5
_STORE_EVERY_S = 15.0
_RUNS = "runs"
_LOGS = "workers"


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
    """A board's worker process, and the cycle that it is at."""

    board: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    kernel: str | None = None
    start: Start | None = None
    begun: Begun | None = None
    heard_at: float = field(default_factory=time.monotonic)
    leaving_since: float | None = None
    unread: bytes = b""
    failed: Failed | None = None


class Controller:
    """Runs what is left of a night; use `run` once."""

    def __init__(
        self,
        plan: NightPlan,
        folder: Path,
        journal: Journal,
        state: NightState,
        schedule: Schedule,
        boards: Mapping[str, tuple[Path, BenchOptions]],
        kernels: Kernels,
        holes: list[NightHole],
        history: History,
        view: LiveView,
        command: tuple[str, ...],
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._journal = journal
        self._state = state
        self._schedule = schedule
        self._boards = boards
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
            if (found := adopt(begun, self._folder)) is not None:
                self._note(found)
        self._view.resumed(self._state.cycles, self._spent_before_s, self._schedule.budget_s)
        self._store(closed=False)
        with self._signals(), ExitStack() as ending:
            ending.callback(self._end_all)
            for board in self._schedule.boards:
                if not self._asked_to_stop and self._next(board, None) is not None:
                    self._begin_board(board)
            while self._workers:
                self._listen()
                self._watch()
                if time.monotonic() - self._stored_at > _STORE_EVERY_S:
                    self._store(closed=False)
        return self._close()

    def _note(self, entry: Entry) -> None:
        """Write what happened; only then may anything follow from it."""
        self._journal.append(entry)
        self._state.add(entry)

    def _spent_s(self) -> float:
        return self._spent_before_s + time.monotonic() - self._opened

    def _next(self, board: str, current: str | None) -> Start | None:
        if self._asked_to_stop or board in self._broken:
            return None
        return self._schedule.next_for(board, self._state, current, self._spent_s())

    def _begin_board(self, board: str) -> None:
        """Have the bench up and a worker at it."""
        lg_env, _ = self._boards[board]
        self._view.stage(board, "opening the bench")
        try:
            ensure_up(lg_env, lambda: self._note(BenchStarted(at=now(), board=board)))
            self._spawn(board)
        except BenchError as error:
            self._broken[board] = error.message
            self._view.note(f"{board}: {error.message}")
            self._view.rests(board, "its bench does not start")
            return
        self._assign(self._workers[board])

    def _spawn(self, board: str) -> None:
        lg_env, _ = self._boards[board]
        log = (self._folder / _LOGS / f"{board}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "farm.nightly.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C is for the controller, which then tells its workers.
            start_new_session=True,
        )
        worker = _Worker(board, process, log)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._workers[board] = worker
        work = Work(
            lg_env=lg_env,
            out=self._folder / _RUNS,
            flash=None if self._plan.flash == "none" else self._plan.flash,
            policy=self._plan.policy,
            command=self._command,
            afresh=board in self._unclean,
        )
        self._unclean.discard(board)
        self._send(worker, work.model_dump_json())

    def _send(self, worker: _Worker, line: str) -> None:
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed by what it no longer says
            worker.process.stdin.write(line.encode() + b"\n")
            worker.process.stdin.flush()

    def _assign(self, worker: _Worker) -> None:
        """Give the worker its next cycle, or let it go."""
        start = self._next(worker.board, worker.kernel)
        worker.start, worker.begun, worker.heard_at = start, None, time.monotonic()
        if start is None:
            self._let_go(worker)
            return
        worker.kernel = start.cell.kernel
        image = self._kernels.images.get((start.cell.kernel, worker.board))
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
            self._view.stage(worker.board, "switching the board off")
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
                    self._view.note(f"{worker.board}: {said.text}")
                else:
                    self._view.stage(worker.board, said.text)
            case Began():
                assert worker.start is not None
                begun = Begun(
                    at=now(),
                    cell=worker.start.cell,
                    attempt=worker.start.attempt,
                    purpose=worker.start.purpose,
                    run=said.run,
                    number=said.number,
                )
                worker.begun = begun
                self._note(begun)
            case Ended():
                assert worker.begun is not None
                self._ended(worker, _of(worker.begun, said), interrupted=said.interrupted)
                self._assign(worker)
            case Failed():
                worker.failed = said

    def _ended(self, worker: _Worker, cycle: NightCycle, *, interrupted: bool) -> None:
        before = self._state.trust.get(worker.board, Trust())
        self._note(Finished(at=now(), cycle=cycle, interrupted=interrupted))
        self._view.ended(cycle, interrupted=interrupted)
        after = self._state.trust.get(worker.board, Trust())
        worker.start = worker.begun = None
        self._deaths[worker.board] = 0
        if after != before:
            self._keep_trust(worker.board, after)
        if after.set_aside and not before.set_aside:
            self._view.note(f"{worker.board} is set aside: {after.set_aside}")
        elif before.set_aside and not after.set_aside:
            self._view.note(f"{worker.board} has come back: it trained without a bench failure")

    def _keep_trust(self, board: str, trust: Trust) -> None:
        """Keep it for the next nights; the journal holds it should the history fail."""
        own = [cycle for cycle in self._state.cycles if cycle.cell.board == board]
        last = f"{self._state.night_id}/{own[-1].run}/{own[-1].number}"
        try:
            self._history.set_board_state(
                BoardState(
                    board,
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
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        code = worker.process.wait()
        worker.log.close()
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        del self._workers[worker.board]
        start, begun = worker.start, worker.begun
        if start is not None:
            self._unclean.add(worker.board)
        if worker.failed is not None and worker.failed.usage:
            raise UsageError(f"{worker.board}: {worker.failed.message}")
        if begun is not None and (found := adopt(begun, self._folder)) is not None:
            self._ended(worker, found.cycle, interrupted=found.interrupted)
        elif start is not None and not self._asked_to_stop:
            why = worker.failed.message if worker.failed else _ending(code)
            log = self._folder / _LOGS / f"{worker.board}.log"
            self._view.note(
                f"{worker.board}: its worker ended in {cell_text(start.cell)}: {why} (see {log})"
            )
            self._note(Died(at=now(), cell=start.cell, why=why))
            self._deaths[worker.board] += 1
            if self._deaths[worker.board] >= _DEATHS_IN_A_ROW:
                self._broken[worker.board] = f"its worker keeps ending: {why}"
        if self._next(worker.board, None) is not None and worker.leaving_since is None:
            self._begin_board(worker.board)
        else:
            self._view.rests(worker.board, self._why_resting(worker.board))

    def _why_resting(self, board: str) -> str:
        if self._asked_to_stop:
            return "interrupted, off"
        if self._state.trust.get(board, Trust()).set_aside:
            return "set aside, off"
        return "done, off"

    def _watch(self) -> None:
        """End workers that are silent for an hour, or do not end when told to."""
        moment = time.monotonic()
        for worker in list(self._workers.values()):
            late = worker.leaving_since and moment - worker.leaving_since > _END_DEADLINE_S
            if late or moment - worker.heard_at > _SILENT_DEADLINE_S:
                self._view.note(f"{worker.board}: its worker does not answer and is ended")
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

        held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, stop) for number in held}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

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
            if board in self._boards:
                with suppress(FarmError):
                    take_down(self._boards[board][0])

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
            boards=[
                NightBoard(name=name, lg_env=str(lg_env), virtual=options.virtual)
                for name, (lg_env, options) in self._boards.items()
            ],
            runs=runs,
            holes=[*self._holes, *self._found_holes(over)],
            now=now(),
        )
        write_night(self._folder, night)
        self._stored_at = time.monotonic()
        return night, runs

    def _found_holes(self, over: str) -> list[NightHole]:
        holes = self._schedule.holes(self._state, over=over)
        return [
            hole.model_copy(
                update={"reason": f"the bench gave out: {self._broken[hole.cell.board]}"}
            )
            if hole.cell.board in self._broken
            else hole
            for hole in holes
        ]

    def _close(self) -> tuple[Night, dict[str, Run]]:
        """Say in the journal how the night ended, and write night.json for good."""
        for board in {cycle.cell.board: None for cycle in self._state.cycles}:
            # A controller that was killed may not have come to it.
            self._keep_trust(board, self._state.trust.get(board, Trust()))
        left = [
            cell
            for cell in self._schedule.cells
            if self._schedule.is_open(cell, self._state) and cell.board not in self._broken
        ]
        aside = [cell for cell in left if self._state.trust.get(cell.board, Trust()).set_aside]
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


def exit_verdict(night: Night) -> tuple[Verdict, bool]:
    """The night's verdict, and whether anything that was to be run was not.

    What a board cannot do is no gap, nor what the budget left for another night.
    """
    gaps = night.interrupted or any(board.set_aside for board in night.boards)
    gaps = gaps or any(
        hole.reason.startswith(("the bench gave out", "the board's worker ended"))
        for hole in night.holes
    )
    return night.verdict, gaps
