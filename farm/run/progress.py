"""What the run shows while it works: one live line on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

# How often plain lines tell of a long transfer.
_PLAIN_EVERY_S = 5.0
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
        )
        self._bytes = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
            console=self._console,
        )
        self._live_area = Live(Group(self._bar, self._bytes), console=self._console, transient=True)
        self._transfer = self._bytes.add_task("", total=None, words="", visible=False)
        self._told_at = 0.0
        self._began: tuple[float, int] | None = None
        self._stage = ""
        self._task = self._bar.add_task("panic cycles", total=total_cycles, stage="")
        self._cycle = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live_area.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live_area.stop()

    def begin_cycle(self, name: str) -> None:
        """Say that the cycle ``name`` begins."""
        self._cycle = name
        self._bar.update(self._task, description=escape(name))

    def stage(self, stage: str, detail: str = "") -> None:
        """Say what the cycle does now."""
        text = f"{stage}: {detail}" if detail else stage
        self._stage, self._began = text, None
        self._bytes.update(self._transfer, visible=False)
        self._bar.update(self._task, stage=escape(text))
        if self._plain_stages:
            elapsed_s = time.monotonic() - self._started
            self._console.print(f"[{elapsed_s:7.2f}] {self._cycle}: {text}", markup=False)

    def moved(self, done_bytes: int, total_bytes: int, words: str = "") -> None:
        """Say how far a transfer of this stage is; of an unknown total, what a tool says."""
        now = time.monotonic()
        if self._began is None or done_bytes < self._began[1]:
            self._began, self._told_at = (now, done_bytes), now
            self._bytes.reset(
                self._transfer,
                description=escape(self._stage),
                completed=done_bytes,
                words=escape(words),
                visible=True,
            )
        self._bytes.update(
            self._transfer,
            completed=done_bytes,
            total=total_bytes or None,
            words=escape(words),
        )
        if self._plain_stages and now - self._told_at >= _PLAIN_EVERY_S:
            self._told_at = now
            text = words
            if total_bytes:
                rate = (done_bytes - self._began[1]) / (now - self._began[0])
                text = (
                    f"{done_bytes / (1 << 20):.1f} of {total_bytes / (1 << 20):.1f} MiB, "
                    f"{rate / (1 << 20):.1f} MiB/s {words}"
                ).strip()
            elapsed_s = now - self._started
            self._console.print(
                f"[{elapsed_s:7.2f}] {self._cycle}: {self._stage}: {text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

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
        """Say something that belongs to no stage; a command in it can be copied whole."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
