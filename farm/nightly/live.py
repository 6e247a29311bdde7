"""What a night shows while it works: a table on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from farm.model import NightCell, NightCycle, Purpose, Verdict
from farm.nightly.pulse import PulseWriter, SeatPulse, wall_clock
from farm.nightly.schedule import Start

__all__ = ["LiveView", "cell_text", "span_text"]

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.SKIP: "yellow",
}


def cell_text(cell: NightCell) -> str:
    """A cell in a few words, its board left out."""
    return f"{cell.kernel} {cell.scenario} #{cell.repeat} {','.join(cell.channels)}"


def span_text(seconds: float) -> str:
    """``1 h 05 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


@dataclass
class _Row:
    doing: str = "waiting"
    stage: str = ""
    since: float = field(default_factory=time.monotonic)
    where: str = ""
    stage_since: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    counts: Counter[Verdict] = field(default_factory=Counter)


class LiveView:
    """Shows boards and cycles; ``quiet`` keeps only the line that ends each cycle.

    What it shows goes to ``pulse`` too, for those who look from outside.
    """

    def __init__(
        self,
        boards: Iterable[str],
        total: int,
        *,
        quiet: bool = False,
        pulse: PulseWriter | None = None,
    ) -> None:
        self._pulse = pulse
        self._console = Console(stderr=True)
        self._is_live = self._console.is_terminal and not quiet
        self._plain = not self._is_live and not quiet
        self._rows = {board: _Row() for board in boards}
        self._total = total
        self._done = 0
        self._budget_s: float | None = None
        self._began = time.monotonic()
        self._spent_s = 0.0
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def resumed(self, cycles: Iterable[NightCycle], spent_s: float, budget_s: float | None) -> None:
        """Say what was done before: nothing, or what a journal tells."""
        self._spent_s, self._budget_s = spent_s, budget_s
        for cycle in cycles:
            self._count(cycle)

    def begins(self, start: Start) -> None:
        """Say that a cycle begins."""
        row = self._rows[start.seat]
        row.doing, row.stage, row.since = _start_text(start), "", time.monotonic()
        row.stage_since, row.deadline_s = row.since, None
        if self._plain:
            self._line(f"{start.seat}: {row.doing}")
        self.refresh()

    def stage(
        self, board: str, text: str, where: str = "", deadline_s: float | None = None
    ) -> None:
        """Say what a board does now, how long that may take, and where it is, if that is known."""
        row = self._rows[board]
        # How far a transfer is follows its stage's name.
        if not row.stage or not text.startswith(row.stage.partition(":")[0]):
            row.stage_since = time.monotonic()
        row.stage, row.deadline_s = text, deadline_s
        row.where = where or row.where
        self.refresh()

    def ended(self, cycle: NightCycle, *, interrupted: bool) -> None:
        """Say how a cycle ended."""
        row = self._rows[cycle.seat]
        row.doing, row.stage, row.since = "waiting", "", time.monotonic()
        row.stage_since, row.deadline_s = row.since, None
        if not interrupted:
            self._count(cycle)
        verdict = Text(f"{cycle.verdict.value:<5}", style=_COLOURS[cycle.verdict])
        start = Start(cycle.cell, cycle.attempt, cycle.purpose)
        words = f" {cycle.seat}: {_start_text(start)}: {cycle.why}"
        self._console.print(verdict.append(words, style="not bold default"), soft_wrap=True)
        self.refresh()

    def rests(self, board: str, why: str) -> None:
        """Say that a board has nothing more to do."""
        row = self._rows[board]
        row.doing, row.stage, row.where, row.deadline_s = why, "", "", None
        if self._plain:
            self._line(f"{board}: {why}")
        self.refresh()

    def waits(self, seat: str, why: str) -> None:
        """Say what a place is waited for."""
        row = self._rows[seat]
        if (row.doing, row.stage) == ("waiting", why):
            return
        row.doing, row.stage, row.since = "waiting", why, time.monotonic()
        if self._plain:
            self._line(f"{seat}: waiting: {why}")
        self.refresh()

    def note(self, text: str) -> None:
        """Say something that is to stay in sight."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw the table anew."""
        if self._is_live:
            self._live.update(self._table(), refresh=True)
        if self._pulse is not None and self._pulse.is_due():
            self._pulse.beat(
                [
                    SeatPulse(
                        seat=seat,
                        where=row.where,
                        doing=row.doing,
                        stage=row.stage,
                        since=wall_clock(row.since),
                        stage_since=wall_clock(row.stage_since),
                        deadline_s=row.deadline_s,
                    )
                    for seat, row in self._rows.items()
                ],
                self._total,
                self._budget_s,
            )

    def _count(self, cycle: NightCycle) -> None:
        # A place of an earlier controller's may be gone.
        self._rows.setdefault(cycle.seat, _Row()).counts[cycle.verdict] += 1
        if cycle.purpose is Purpose.PLAN and cycle.attempt == 1:
            self._done += 1

    def _line(self, text: str) -> None:
        elapsed_s = time.monotonic() - self._began
        self._console.print(
            f"[{elapsed_s:7.1f}] {text}", markup=False, highlight=False, soft_wrap=True
        )

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("board", "does", "", "for", *(one.value for one in Verdict)):
            table.add_column(column, no_wrap=True)
        now = time.monotonic()
        for board, row in self._rows.items():
            counts = [str(row.counts[one] or "") for one in Verdict]
            table.add_row(
                escape(board),
                escape(row.doing),
                escape(row.stage),
                f"{now - row.since:.0f} s",
                *(f"[{_COLOURS[one]}]{n}[/]" for one, n in zip(Verdict, counts, strict=True)),
            )
        spent_s = self._spent_s + now - self._began
        words = f"{self._done} of {self._total} cells, {span_text(spent_s)}"
        if self._budget_s is not None:
            words += f" of {span_text(self._budget_s)}"
        return Group(table, Text(words))


def _start_text(start: Start) -> str:
    text = cell_text(start.cell)
    if start.purpose is Purpose.TRAINING:
        return f"training: {text}"
    return f"{text}, attempt {start.attempt}" if start.attempt > 1 else text
