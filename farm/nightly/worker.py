"""A board's worker: a process of its own, as a session's signals and labgrid's state are.

It does what the controller says, cycle by cycle, and ends with the controller, however that ends:
the kernel kills it (`farm.nightly.workers`), so that no board is worked on by two.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farm.bench.environment import read_options
from farm.bench.hosts import leave_hosts
from farm.bench.options import Deadlines
from farm.bench.whereabouts import Place
from farm.errors import BenchError, FarmError, UsageError
from farm.nightly.benches import ensure_up, let_go
from farm.nightly.messages import Began, Ended, Failed, Note, Order, Report, Task, Work
from farm.run.flash import BootImage
from farm.run.progress import RunProgress
from farm.run.session import Session, signals_held
from farm.scenarios import scenario_named
from farm.signals import termination_as_interrupt

__all__ = ["Reports", "board_lock", "main"]

_LOCK_DEADLINE_S = 15.0
_STAGES = {
    "boot": Place.BOOTING,
    "arm": Place.SHELL,
    "panic": Place.PANICKING,
    "reset": Place.BOOTING,
    "collect": Place.SHELL,
    "flash": Place.SHELL,
    "report": Place.OFF,
}
# What is read or flashed this way finds the board there.
_MODES = {
    "crash mode": Place.CRASH,
    "sahara": Place.CRASH,
    "ramdump": Place.CRASH,
    "firehose": Place.EDL,
    "edl": Place.EDL,
    "fastboot": Place.FASTBOOT,
}
_MOVED_EVERY_S = 1.0


@contextmanager
def board_lock(lg_env: Path) -> Iterator[None]:
    """Hold the board of an environment; raises BenchError when another night has it.

    Only within this machine: labgrid's reservations are for boards that several share.
    """
    name = hashlib.sha256(str(lg_env.resolve()).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"panic-farm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / f"board-{name}.lock").open("a") as lock:
        deadline = time.monotonic() + _LOCK_DEADLINE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"the board of {lg_env} is in the hands of another `farm nightly`",
                        part="controller",
                    ) from None
                time.sleep(0.2)
        yield


class Reports:
    """The way to the controller; what anything else prints goes to the log, not between them."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, report: Report) -> None:
        """Tell the controller."""
        self._file.write(report.model_dump_json() + "\n")
        self._file.flush()


def _where(stage: str, detail: str) -> Place:
    """Where a board is by what a session does with it."""
    if stage in ("collect", "flash") and detail in _MODES:
        return _MODES[detail]
    if stage == "boot" and detail:
        return Place.UNKNOWN  # the bench is being opened, or the board is being got back
    return _STAGES.get(stage, Place.UNKNOWN)


class _Told(RunProgress):
    """Tells the controller what a session would show."""

    def __init__(self, reports: Reports, deadlines_s: Deadlines) -> None:
        super().__init__(0, quiet=True)
        self._say = reports.say
        self._deadlines_s = deadlines_s
        self._moved_at = 0.0

    def begin_cycle(self, name: str) -> None:
        """The controller knows."""

    def stage(self, stage: str, detail: str = "") -> None:
        """Say what the cycle does now."""
        name = "script" if stage == "arm" else stage
        self._now = Note(
            text=f"{stage}: {detail}" if detail else stage,
            where=_where(stage, detail),
            deadline_s=getattr(self._deadlines_s, name, None),
        )
        self._say(self._now)

    def found(self, where: str) -> None:
        """Say where the board was found when the bench had failed."""
        self._now = Note(text="found", where=where)
        self._say(self._now)

    def moved(self, done_bytes: int, total_bytes: int, words: str = "") -> None:
        """Say how far a transfer is, now and then."""
        now = time.monotonic()
        if now - self._moved_at >= _MOVED_EVERY_S:
            self._moved_at = now
            part = f"{100 * done_bytes // total_bytes} %" if total_bytes else words
            self._say(self._now.model_copy(update={"text": f"{self._now.text} {part}"}))

    def bytes_collected(self, done_bytes: int, total_bytes: int) -> None:
        """Say how far the read-back is."""
        self.moved(done_bytes, total_bytes)

    def end_cycle(self, name: str, verdict: str, why: str) -> None:
        """The controller gets it with the verdict."""

    def note(self, text: str) -> None:
        """Say something that the night's log keeps."""
        self._say(Note(text=text, lasting=True))


class _Board:
    """The board's session: one for each kernel in turn, and another when the board was lost."""

    def __init__(self, work: Work, reports: Reports) -> None:
        self._work = work
        self._say = reports.say
        self._progress = _Told(reports, read_options(work.lg_env).deadlines_s)
        self._session: Session | None = None
        self._kernel = ""
        self._number = 0
        self._afresh = work.afresh

    def run(self, task: Task) -> bool:
        """Run a cycle and report it; False when it was interrupted."""
        session = self._session_for(task)
        self._number += 1
        run = f"{self._work.out.name}/{session.folder.run_id}"
        self._say(Began(run=run, number=self._number))
        future, fault = session.cycle(
            scenario_named(task.scenario), task.repeat, channels=task.channels
        )
        cycle = future.result()
        interrupted = session.interrupted
        self._say(
            Ended(
                run=run,
                number=self._number,
                started=cycle.started,
                wall_s=cycle.wall_s,
                verdict=cycle.result.verdict,
                blame=cycle.result.blame,
                why=cycle.result.why,
                interrupted=interrupted,
                part=fault.part if fault is not None else "",
            )
        )
        if fault is not None and fault.place:
            self._progress.found(fault.place)
        if fault is not None and not interrupted and not session.recover(fault):
            # A session anew begins with the power.
            self.leave()
        return not interrupted

    def _session_for(self, task: Task) -> Session:
        if self._session is not None and self._kernel == task.kernel:
            return self._session
        self.leave()
        ensure_up(self._work.lg_env)
        image = None
        if task.boot_image is not None and task.build_id is not None:
            image = BootImage(task.boot_image, task.build_id)
        session = Session(
            self._work.lg_env,
            self._work.out,
            self._progress,
            policy=self._work.policy,
            command=self._work.command,
            planned_cycles=0,
            flash=self._work.flash,
            boot_image=image,
        )
        session.__enter__()
        self._session, self._kernel, self._number = session, task.kernel, 0
        if self._afresh:
            # Where the bench fails in this it fails in the cycle too, which tells of it.
            with suppress(BenchError):
                let_go(session.bench)
                self._afresh = False
        return session

    def leave(self) -> None:
        """Switch the board off and store the run."""
        session, self._session = self._session, None
        if session is not None:
            session.__exit__(None, None, None)


def _orders() -> Iterator[Task]:
    for line in sys.stdin:
        task = Order.model_validate_json(line).task
        if task is None:
            return
        yield task


def main() -> int:
    """Work on a board as standard input says; reports go to standard output."""
    reports = Reports()
    work = Work.model_validate_json(sys.stdin.readline())
    try:
        with termination_as_interrupt(), board_lock(work.lg_env):
            board = _Board(work, reports)
            try:
                for task in _orders():
                    if not board.run(task):
                        break
            finally:
                with signals_held():
                    board.leave()
                    leave_hosts()
    except KeyboardInterrupt:
        return 130
    except FarmError as error:
        reports.say(Failed(message=str(error), usage=isinstance(error, UsageError)))
        return error.exit_code
    return 0
