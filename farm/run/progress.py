"""What the run shows while it works: one live line on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_COLOURS = {"PASS": "green", "FAIL": "bold red", "ERROR": "bold magenta", "SKIP": "yellow"}


class RunProgress:
    """Reports cycles and stages; ``quiet`` keeps only the line that ends each cycle."""

    def __init__(self, total_cycles: int, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._plain_stages = not self._live and not quiet
        self._started = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("panic cycles", total=total_cycles, stage="")
        self._cycle = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin_cycle(self, name: str) -> None:
        """Say that the cycle ``name`` begins."""
        self._cycle = name
        self._bar.update(self._task, description=escape(name))

    def stage(self, stage: str, detail: str = "") -> None:
        """Say what the cycle does now."""
        text = f"{stage}: {detail}" if detail else stage
        self._bar.update(self._task, stage=escape(text))
        if self._plain_stages:
            elapsed_s = time.monotonic() - self._started
            self._console.print(f"[{elapsed_s:7.2f}] {self._cycle}: {text}", markup=False)

    def bytes_collected(self, done_bytes: int, total_bytes: int) -> None:
        """Say how far the read-back is; only the live line shows it."""
        if self._live:
            self._bar.update(
                self._task, stage=f"collect: {done_bytes / 1024:.0f}/{total_bytes / 1024:.0f} KiB"
            )

    def end_cycle(self, name: str, verdict: str, why: str) -> None:
        """Say how the cycle ended."""
        self._bar.advance(self._task)
        colour = _COLOURS[verdict]
        self._console.print(
            f"[{colour}]{verdict:<5}[/] {escape(name)}: {escape(why)}", highlight=False
        )

    def note(self, text: str) -> None:
        """Say something that belongs to no stage."""
        self._console.print(text, markup=False, highlight=False)
