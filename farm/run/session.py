"""One run on one board: boot, arm, panic, reset, collect, cycle by cycle; judging runs beside it.

Whatever ends a cycle early, what was captured until then is stored and judged; the board is left
powered off, and a bench that this run started is stopped.
"""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from farm.bench.environment import Bench, open_bench, read_options
from farm.bench.features import missing_bench, prepare
from farm.bench.inject import inject, watch_bite, watch_panic, watch_reset
from farm.bench.manifest import arm
from farm.bench.pstorefs import PREFIX, collect_pstorefs, unlink_records
from farm.bench.recovery import find, recover
from farm.bench.strategy import Status
from farm.bench.whereabouts import Place
from farm.errors import BenchError, DeadlineError, FarmError, FormatError
from farm.model import (
    BenchFault,
    Capture,
    ChannelRead,
    Cycle,
    CycleInput,
    Manifest,
    PanicAccount,
    Policy,
    Recovery,
    Run,
)
from farm.run.boots import Boots
from farm.run.channels import (
    PSTOREFS,
    ChannelReader,
    features_needed,
    needs_crash_mode,
    read_table,
)
from farm.run.flash import BootImage, Flashed, check, flash
from farm.run.ledger import Ledger
from farm.run.progress import RunProgress
from farm.run.store import RunFolder, new_run_id, timestamp
from farm.scenarios import Before, ResetPath, Scenario, Trigger
from farm.signals import ENDING, handled, termination_as_interrupt

CAPTURE_FOLDER = "captures/pstorefs"
OLD_FOLDER = "old-records"
RESCUE_FOLDER = "rescued"


@dataclass(frozen=True)
class Plan:
    """What ``farm run`` was asked for; ``policy`` is added to the environment's own."""

    lg_env: Path
    scenarios: tuple[Scenario, ...]
    repeat: int
    out: Path
    policy: Policy
    before_panic: str | None
    keep_records: bool
    command: tuple[str, ...]
    channels: tuple[str, ...] = (PSTOREFS,)
    flash: str | None = None

    @property
    def cycles(self) -> list[tuple[int, Scenario]]:
        """(repeat from 1, scenario) in the order they run: every scenario once, then again."""
        return [(n, scenario) for n in range(1, self.repeat + 1) for scenario in self.scenarios]


@dataclass
class CycleEvidence:
    """What one cycle has brought so far."""

    manifest: Manifest | None = None
    panic: PanicAccount | None = None
    captures: list[Capture] = field(default_factory=list)
    channels: list[ChannelRead] = field(default_factory=list)
    stage: str = "boot"
    stages_s: dict[str, float] = field(default_factory=dict)
    board_s: float = 0.0
    fault: BenchFault | None = None
    unsupported: tuple[str, ...] = ()


def merged(first: Policy, second: Policy) -> Policy:
    """Return both policies as one; the second's numbers win."""
    return Policy(
        required=(*first.required, *second.required),
        static=(*first.static, *second.static),
        budget_bytes={**first.budget_bytes, **second.budget_bytes},
        total_budget_bytes=second.total_budget_bytes or first.total_budget_bytes,
    )


def panic_cycle(
    bench: Bench,
    scenario: Scenario,
    folder: Path,
    progress: RunProgress,
    evidence: CycleEvidence,
    *,
    before_panic: str | None = None,
    keep_records: bool = False,
    channels: tuple[str, ...] = (PSTOREFS,),
    flashed: Flashed | None = None,
    boots: Boots,
) -> None:
    """Panic the board once and capture what it left, filling ``evidence`` as it comes.

    Raises BenchError at the point where the bench failed; ``evidence`` holds what there is.
    """

    @contextmanager
    def stage(name: str, detail: str = "") -> Iterator[None]:
        evidence.stage = name
        progress.stage(name, detail)
        before = time.monotonic()
        try:
            yield
        finally:
            spent_s = time.monotonic() - before
            evidence.stages_s[name] = round(evidence.stages_s.get(name, 0.0) + spent_s, 3)

    options, shell = bench.options, bench.shell
    if not scenario.panics:
        channels = (PSTOREFS,)
    missing = {*missing_bench(scenario, options), *features_needed(channels) - options.features}
    evidence.unsupported = tuple(sorted(missing))
    if evidence.unsupported:
        return
    in_crash_mode = needs_crash_mode(channels) or scenario.table
    bench.console.record_to(folder)
    with stage("boot"):
        running, before = bench.strategy.status is Status.shell, time.monotonic()
        boots.be_plain(bench)
        evidence.unsupported = boots.features(bench).missing(scenario)
        if evidence.unsupported:
            return
        if scenario.boot is not None and scenario.trigger is not Trigger.BOOT:
            running = False
            boots.be_special(bench, scenario.boot)
        if not running:
            evidence.board_s += time.monotonic() - before
    if scenario.before is not None:
        with stage("panic", "the first of two"):
            earlier = inject(scenario, bench.console, shell)
            first = watch_panic(earlier, scenario, bench.console, options.deadlines_s)
            watch_reset(first, earlier, bench.console, shell, options.deadlines_s)
    with stage("arm"):
        prepare(shell, scenario, options)
        evidence.manifest = arm(
            shell, options.board, scenario, secrets.randbits(64), options.deadlines_s.script
        )
        if flashed is not None:
            check(flashed, evidence.manifest)
        raw = None
        if set(channels) != {PSTOREFS}:
            raw = ChannelReader(
                bench,
                folder,
                evidence.manifest,
                evidence.captures,
                evidence.channels,
                lambda channel: progress.stage("collect", channel),
            )
        if in_crash_mode:
            bench.strategy.driver("download").set(True)
        # What is not panicdump's is left to who may want it.
        if old := [one.name for one in evidence.manifest.old_records if one.sha256]:
            progress.stage("arm", f"{len(old)} records from before are kept aside")
            collect_pstorefs(shell, folder, deadline_s=options.deadlines_s.collect, into=OLD_FOLDER)
            if not keep_records and scenario.before is not Before.UNCOLLECTED:
                unlink_records(shell, old, options.deadlines_s.script)
        if before_panic:
            shell.run_script(before_panic, options.deadlines_s.script, what="--before-panic")
        if scenario.trigger is Trigger.BOOT and scenario.boot is not None:
            bench.boot_with(scenario.boot)
            evidence.manifest = evidence.manifest.model_copy(
                update={"next_boot": True, "nonce": 0, "sequence": 0}
            )
    with stage("panic", scenario.name):
        reboot = bench.strategy.reboot.format("").strip()
        injection = inject(
            scenario, bench.console, shell, reboot, armed_boot=evidence.manifest.boot_id
        )
        if scenario.table:
            panic = watch_bite(injection, scenario)
        else:
            panic = watch_panic(injection, scenario, bench.console, options.deadlines_s)
    if in_crash_mode and (panic.line or panic.gone):
        with stage("collect", "crash mode"):
            bench.strategy.wait_crash()
            if scenario.table:
                read_table(bench, folder, evidence.captures, evidence.channels)
            elif raw is not None:
                raw.in_crash_mode(channels)
    with stage("reset"):
        if panic.line and not in_crash_mode:
            mode = bench.strategy.leave_unasked_mode(options.deadlines_s.reset)
            if mode is not None:
                progress.stage("reset", f"left {mode.value} mode, which no channel asked for")
        if scenario.reset is ResetPath.BENCH and panic.line:
            bench.console.stream.wait_quiet(scenario.reset_after_s * options.deadlines_s.factor)
            bench.warm_reset()
        evidence.panic, listing = watch_reset(
            panic, injection, bench.console, shell, options.deadlines_s
        )
        boots.came_back(scenario.boot, evidence.panic.reset)
        evidence.board_s += evidence.panic.panic_to_reset_s or 0.0
        evidence.board_s += evidence.panic.reset_to_shell_s or 0.0
    if evidence.panic.reset == "none":
        return
    before = time.monotonic()
    with stage("collect"):
        if PSTOREFS in channels:
            collect_pstorefs(
                shell,
                folder,
                deadline_s=options.deadlines_s.collect,
                into=CAPTURE_FOLDER,
                progress=progress.bytes_collected,
                captures=evidence.captures,
                listing=listing,
            )
            files = [one for one in evidence.captures if one.channel == PSTOREFS]
            size = sum(one.size_bytes for one in files)
            evidence.channels.append(
                ChannelRead(
                    channel=PSTOREFS,
                    wanted_bytes=size,
                    received_bytes=size,
                    seconds=round(time.monotonic() - before, 3),
                )
            )
        if raw is not None:
            raw.after_shell(channels)
        if not keep_records:
            files = [one for one in evidence.captures if one.channel == PSTOREFS]
            names = [one.board_name for one in files if one.complete]
            if PSTOREFS not in channels and listing is not None:
                names = [one.name for one in listing.files if one.name.startswith(PREFIX)]
            unlink_records(shell, names, options.deadlines_s.script)


class Session:
    """One run in progress: the bench, opened when the first cycle needs it, and the account.

    Use as a context manager: leaving it powers the board off, stops a bench that was started for
    the run, and waits for the verdicts; ``run`` is complete then.
    """

    def __init__(
        self,
        lg_env: Path,
        out: Path,
        progress: RunProgress,
        *,
        policy: Policy,
        command: tuple[str, ...],
        planned_cycles: int,
        channels: tuple[str, ...] = (PSTOREFS,),
        flash: str | None = None,
        boot_image: BootImage | None = None,
    ) -> None:
        self.options = read_options(lg_env)
        self._boot_image = boot_image
        self._channels = channels
        self._flash = flash
        self._flashed: Flashed | None = None
        self.policy = merged(self.options.policy, policy)
        self.folder = RunFolder(out, new_run_id())
        self.interrupted = False
        self.ended_early = ""
        self.run: Run | None = None
        self._lg_env = lg_env
        self._progress = progress
        self._planned_cycles = planned_cycles
        self._bench: Bench | None = None
        self._opened = ExitStack()
        self._boots = Boots()
        self._number = 0
        self._place = Place.UNKNOWN
        self._ledger = Ledger(
            self.folder,
            board=self.options.board,
            virtual=self.options.virtual,
            lg_env=str(lg_env),
            command=command,
            planned_cycles=planned_cycles,
            on_verdict=self._announce,
        )

    def __enter__(self) -> Self:
        self._ledger.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # From here on a second Ctrl-C must not leave the board powered.
        with signals_held():
            try:
                self._leave_bench()
            finally:
                self._ledger.__exit__(kind, error, trace)
            self.run = self._ledger.finish(
                ended_early=self.ended_early, interrupted=self.interrupted
            )

    @property
    def bench(self) -> Bench:
        """The bench, opened now if it is not yet; raises BenchError when it cannot be."""
        if self._bench is None:
            self._progress.stage("boot", "opening the bench")
            self._bench = self._opened.enter_context(open_bench(self._lg_env))
            self._bench.strategy.rescue_to = self.folder.path / RESCUE_FOLDER
            self._bench.strategy.progress = self._progress.moved
        return self._bench

    def cycle(
        self,
        scenario: Scenario,
        repeat: int,
        *,
        before_panic: str | None = None,
        keep_records: bool = False,
        policy: Policy | None = None,
        channels: tuple[str, ...] | None = None,
    ) -> tuple[Future[Cycle], BenchFault | None]:
        """Run one cycle; return its verdict to come, and the fault that ended it if one did.

        An interruption is noted in ``interrupted`` and ends the cycle as a fault of the
        controller. ``channels`` are the session's where none are given. Raises UsageError for a
        wrong configuration.
        """
        self._number += 1
        number = self._number
        self._progress.begin_cycle(self._title(number, scenario.name))
        path = self.folder.cycle(number, scenario.name)
        evidence = CycleEvidence()
        started, before = timestamp(), time.monotonic()
        try:
            if self._flash is not None and self._flashed is None:
                evidence.stage = "flash"
                self._flash_board(self._flash, evidence)
            panic_cycle(
                self.bench,
                scenario,
                path,
                self._progress,
                evidence,
                before_panic=before_panic,
                keep_records=keep_records,
                channels=channels or self._channels,
                flashed=self._flashed,
                boots=self._boots,
            )
        except (BenchError, FormatError) as error:
            evidence.fault = self._placed(fault_of(self._blamed(error), evidence.stage))
        except KeyboardInterrupt:
            self.interrupted = True
            self.ended_early = f"interrupted in cycle {number}, stage {evidence.stage}"
            evidence.fault = BenchFault(
                part="controller",
                stage=evidence.stage,
                message="interrupted by the user",
                next_step="The captures so far are kept; run again for a verdict.",
            )
        future = self._ledger.submit(
            number,
            path,
            CycleInput(
                board=self.options.board,
                virtual=self.options.virtual,
                scenario=scenario.name,
                expect=scenario.expect,
                exceptions=scenario.exceptions,
                repeat=repeat,
                manifest=evidence.manifest,
                panic=evidence.panic,
                captures=tuple(evidence.captures),
                channels=tuple(evidence.channels),
                policy=self.policy if policy is None else merged(self.policy, policy),
                fault=evidence.fault,
                unsupported=evidence.unsupported,
            ),
            started=started,
            stages_s=evidence.stages_s,
            wall_s=time.monotonic() - before,
            board_s=evidence.board_s,
        )
        return future, evidence.fault

    def _blamed(self, error: FarmError) -> FarmError:
        """``error``, or the loss of another host that lies behind it."""
        if self._bench is None or not isinstance(error, BenchError):
            return error
        try:
            return self._bench.blamed(error)
        except KeyboardInterrupt:
            self.interrupted = True
            self.ended_early = f"interrupted in cycle {self._number}: {error.message}"
            return error

    def _placed(self, fault: BenchFault) -> BenchFault:
        """Find out where the board is now: the next cycle's recovery starts from there."""
        self._place = Place.UNKNOWN
        if self._bench is None:
            return fault
        try:
            self._place = find(self._bench, self._progress.note)
        except KeyboardInterrupt:
            self.interrupted = True
            self.ended_early = f"interrupted after cycle {self._number}: {fault.message}"
            return fault
        return fault.model_copy(update={"place": self._place.value})

    def _flash_board(self, way: str, evidence: CycleEvidence) -> None:
        """Flash the board once per run; what is found on the way is saved."""
        self._progress.stage("flash", way)
        before = time.monotonic()
        self._flashed = flash(self.bench, way, self.folder.path, self._boot_image)
        evidence.stages_s["flash"] = round(time.monotonic() - before, 3)
        self._progress.stage(
            "flash", f"{self._flashed.image_bytes} bytes by {self._flashed.tool}, booted"
        )

    def recover(self, fault: BenchFault) -> bool:
        """Get the board back after ``fault``; False, noting why, when nothing does."""
        self._progress.stage("boot", "the bench failed: getting the board back")
        try:
            self._boots.drop(self.bench)
            found = recover(self.bench, self._place, self._progress.note)
        except BenchError as error:
            self.ended_early = fault.message
            self._progress.note(f"the board does not come back: {error.message}")
            return False
        self._ledger.add_recovery(Recovery(cycle=self._number, steps=found.steps))
        for folder in self.bench.strategy.rescued:
            self._progress.note(f"its memory was saved: {folder}")
        self.bench.strategy.rescued.clear()
        if found.place is Place.SHELL:
            return True
        if found.place is Place.EDL and self._flash is not None:
            self._progress.note("it will be flashed again")
            self._flashed = None
            return True
        self.ended_early = fault.message
        self._progress.note(f"the board does not come back: {found.steps[-1].outcome}")
        return False

    def _leave_bench(self) -> None:
        with self._opened:
            if self._bench is None:
                return
            self._progress.stage("report", "powering the board off")
            self._boots.leave(self._bench)
            error = self._bench.safe_state()
            if (unfinished := self._bench.strategy.unfinished) is not None:
                # Taking the bench down would lose what the board still holds.
                self._bench.started_here = False
                self._progress.note(
                    "the board keeps its power: its memory is read in part. Go on with "
                    f"`farm dump --lg-env {self._lg_env} --to {unfinished}`, or give it up "
                    "by switching the power off."
                )
            if error is not None and not self.ended_early:
                self._progress.note(f"the board may still be powered: {error.message}")

    def _title(self, number: int, name: str) -> str:
        return f"{number}/{self._planned_cycles} {name}" if self._planned_cycles else name

    def _announce(self, cycle: Cycle) -> None:
        self._progress.end_cycle(
            self._title(cycle.number, cycle.scenario), cycle.result.verdict, cycle.result.why
        )


def execute(plan: Plan, progress: RunProgress) -> Run:
    """Run ``plan`` and return its account; a failing bench ends in ERROR, not in an exception.

    Raises UsageError for a wrong configuration, BenchError only when nothing can be stored.
    """
    cycles = plan.cycles
    with termination_as_interrupt():
        session = Session(
            plan.lg_env,
            plan.out,
            progress,
            policy=plan.policy,
            command=plan.command,
            planned_cycles=len(cycles),
            channels=plan.channels,
            flash=plan.flash,
        )
        try:
            with session:
                for done, (repeat, scenario) in enumerate(cycles, 1):
                    _, fault = session.cycle(
                        scenario,
                        repeat,
                        before_panic=plan.before_panic,
                        keep_records=plan.keep_records,
                    )
                    if session.interrupted:
                        break
                    if fault and done < len(cycles) and not session.recover(fault):
                        break
        except KeyboardInterrupt:
            session.interrupted = True
            session.ended_early = session.ended_early or "interrupted between cycles"
    assert session.run is not None
    return session.run


def fault_of(error: FarmError, stage: str) -> BenchFault:
    """Return what ``error`` says of the bench, as it is stored."""
    return BenchFault(
        part=error.part if isinstance(error, BenchError) else "board",
        stage=stage,
        message=error.message,
        next_step=error.next_step,
        silent=isinstance(error, DeadlineError) and error.silent,
    )


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back interrupts while the board is brought into its safe state; they follow after it.

    A mask of this thread would not do: another thread takes the signal then, and Python runs the
    handler here all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    try:
        with handled(ENDING, note):
            yield
    finally:
        for late in dict.fromkeys(came):
            signal.raise_signal(late)
