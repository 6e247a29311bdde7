"""What a build shows while it works: a bar on a terminal, plain lines at intervals elsewhere.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_INTERVAL_S = 10.0


class BuildProgress:
    """Reports the stages of one build and how far each one is."""

    def __init__(self, *, live: bool = True) -> None:
        """Without ``live`` there are plain lines on a terminal, too: one of several at once."""
        self._live = live and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._stage_began_s = 0.0
        self._last_line_s = 0.0
        self.stages_s: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_stage(ok=kind is None)
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str) -> None:
        """Begin the stage ``name``; the one before it has ended well."""
        self._end_stage(ok=True)
        self._stage = name
        self._stage_began_s = self._last_line_s = time.monotonic()
        if self._live:
            self._begin_bar(name)
        else:
            self.say(f"{name} ...")

    def advance(self, done: int, total: int | None) -> None:
        """Say that ``done`` of ``total`` steps (``None``: nobody knows) of the stage are done."""
        if self._bar is not None and self._task is not None:
            shown = total if total is None else max(total, done)
            self._bar.update(self._task, completed=done, total=shown)
            return
        now_s = time.monotonic()
        if now_s - self._last_line_s >= _PLAIN_INTERVAL_S:
            self._last_line_s = now_s
            part = f"{min(100, 100 * done // total):3d} %" if total else f"{done} steps"
            self.say(f"{self._stage}: {part}, {now_s - self._stage_began_s:.0f} s")

    def say(self, text: str) -> None:
        """Print one line."""
        if self._bar is not None:
            self._bar.console.print(f"build: {text}", markup=False, highlight=False)
        else:
            print(f"build: {text}", file=sys.stderr, flush=True)

    def _begin_bar(self, name: str) -> None:
        if self._bar is None:
            # Only here: a cached build shows no bar and must not wait for the import.
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                SpinnerColumn,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        self._task = self._bar.add_task(name, total=None)

    def _end_stage(self, *, ok: bool) -> None:
        if not self._stage:
            return
        seconds = time.monotonic() - self._stage_began_s
        self.stages_s[self._stage] = round(seconds, 2)
        if self._bar is not None and self._task is not None:
            if ok:
                self._bar.update(self._task, total=1, completed=1)
            self._bar.stop_task(self._task)
            self._task = None
        elif ok and seconds >= _PLAIN_INTERVAL_S:
            self.say(f"{self._stage}: done, {seconds:.0f} s")
        self._stage = ""
