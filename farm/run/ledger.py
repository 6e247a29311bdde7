"""The run's account: judges finished cycles in the background and keeps ``run.json`` true.

Judging must not keep the board waiting, so a single worker does it while the next cycle runs.
After each cycle ``run.json`` is replaced as a whole: a killed controller leaves a valid one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from farm import __version__
from farm.errors import masked
from farm.judge.judge import judge
from farm.judge.run_folder import INPUT_NAME, RESULT_NAME, RUN_NAME, reader_for
from farm.judge.totals import summarise
from farm.model import Cycle, CycleInput, Recovery, Run
from farm.run.store import RunFolder, timestamp, write_model


class Ledger:
    """Collects cycles in their order; ``on_verdict`` is called as each one is judged."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        board: str,
        virtual: bool,
        lg_env: str,
        command: tuple[str, ...],
        planned_cycles: int,
        on_verdict: Callable[[Cycle], None],
    ) -> None:
        self.folder = folder
        self.board = board
        self.virtual = virtual
        self._lg_env = lg_env
        self._command = tuple(map(masked, command))
        self._planned_cycles = planned_cycles
        self._on_verdict = on_verdict
        self._started = timestamp()
        self._clock = time.monotonic()
        self._cycles: list[Cycle] = []
        self._pending: list[Future[Cycle]] = []
        self._recoveries: list[Recovery] = []
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")

    def __enter__(self) -> Self:
        self._store(finished=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.shutdown(wait=True)

    def submit(
        self,
        number: int,
        path: Path,
        cycle: CycleInput,
        *,
        started: str,
        stages_s: dict[str, float],
        wall_s: float,
        board_s: float,
    ) -> Future[Cycle]:
        """Store what judging ``cycle`` needs at once, and have it judged."""
        write_model(path / INPUT_NAME, cycle)

        def work() -> Cycle:
            before = time.monotonic()
            result = judge(cycle, reader_for(path))
            write_model(path / RESULT_NAME, result)
            stages = {**stages_s, "judge": round(time.monotonic() - before, 3)}
            judged = Cycle(
                number=number,
                scenario=cycle.scenario,
                repeat=cycle.repeat,
                folder=path.relative_to(self.folder.path).as_posix(),
                started=started,
                stages_s=stages,
                wall_s=round(wall_s, 3),
                board_s=round(board_s, 3),
                input=cycle,
                result=result,
            )
            self._cycles.append(judged)
            self._store(finished=None)
            self._on_verdict(judged)
            return judged

        future = self._worker.submit(work)
        self._pending.append(future)
        return future

    def add_recovery(self, recovery: Recovery) -> None:
        """Note how the board was brought back after a cycle."""
        self._recoveries.append(recovery)

    def finish(self, *, ended_early: str = "", interrupted: bool = False) -> Run:
        """Wait for every verdict and store the final ``run.json``; judging errors surface here."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()
        return self._store(finished=timestamp(), ended_early=ended_early, interrupted=interrupted)

    def _store(
        self, *, finished: str | None, ended_early: str = "", interrupted: bool = False
    ) -> Run:
        cycles = tuple(self._cycles)
        verdict, totals = summarise(cycle.result.verdict for cycle in cycles)
        wall_s = time.monotonic() - self._clock
        board_s = sum(cycle.board_s for cycle in cycles)
        manifest = next((c.input.manifest for c in cycles if c.input.manifest), None)
        run = Run(
            run_id=self.folder.run_id,
            farm_version=__version__,
            started=self._started,
            finished=finished,
            board=self.board,
            virtual=self.virtual,
            lg_env=self._lg_env,
            kernel_release=manifest.kernel_release if manifest else None,
            build_id=manifest.build_id if manifest else None,
            command=self._command,
            wall_s=round(wall_s, 3),
            board_s=round(board_s, 3),
            wall_to_board=round(wall_s / board_s, 3) if board_s else None,
            verdict=verdict,
            totals=totals,
            planned_cycles=self._planned_cycles,
            ended_early=ended_early,
            interrupted=interrupted,
            recoveries=tuple(self._recoveries),
            cycles=cycles,
        )
        self.folder.write(RUN_NAME, run)
        return run
