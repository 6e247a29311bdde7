"""The live view on a terminal, and as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from farm.model import Verdict
from farm.report.printable import duration_text, visible
from farm.top.view import BoardNow, NightNow, State
from farm.top.words import board_text, cell_text, progress_text, totals_text

__all__ = ["PlainView", "as_text", "screen", "table_of"]

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.SKIP: "yellow",
}
_WIDE = 240
_STATES = {
    State.RUNNING: "green",
    State.FINISHED: "bold",
    State.INTERRUPTED: "yellow",
    State.NOT_BEGUN: "yellow",
    State.GONE: "bold red",
    State.SILENT: "bold red",
}


def _show(text: str, limit: int = 120) -> str:
    return escape(visible(text, limit=limit))


def _times(one: BoardNow) -> tuple[str, str]:
    spent = "" if one.for_s is None or one.cell is None else duration_text(one.for_s)
    if one.stage_s is None or not one.stage:
        return spent, ""
    limit = f" of {duration_text(one.deadline_s)}" if one.deadline_s else ""
    text = f"{duration_text(one.stage_s)}{limit}"
    return spent, f"[bold red]{text}[/]" if one.late else text


def _boards(night: NightNow) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("board", "where", "does", "for", "stage", "since"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for verdict in Verdict:
        table.add_column(verdict.value, justify="right", no_wrap=True)
    for one in night.boards:
        counts = (
            f"[{_COLOURS[verdict]}]{one.counts.get(verdict.value) or ''}[/]" for verdict in Verdict
        )
        spent, stage = _times(one)
        table.add_row(
            _show(one.name, 40),
            _show(one.where),
            _show(board_text(one)),
            spent,
            _show(one.stage, 60),
            stage,
            *counts,
        )
    return table


def _places(night: NightNow) -> list[RenderableType]:
    if not night.coordinator:
        return []
    if night.coordinator_says:
        return [Text(visible(night.coordinator_says), style="bold red")]
    table = Table(box=None, pad_edge=False)
    for column in ("place", "has it", "tags"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for one in night.places:
        holder = "this night" if one.by_this_night else one.holder or "nobody"
        lacks = f", nobody offers {one.lacks}" if one.lacks else ""
        tags = " ".join(f"{key}={value}" for key, value in sorted(one.tags.items()))
        table.add_row(_show(one.name, 40), _show(holder + lacks), _show(tags))
    return [Text(""), table]


def table_of(night: NightNow) -> Group:
    """All of it, for a terminal."""
    head = Text(f"{visible(night.night_id)} ", style="bold")
    head.append(f"{night.state.value}: {visible(night.told)}", style=_STATES[night.state])
    parts: list[RenderableType] = [head, Text(progress_text(night)), Text(totals_text(night))]
    parts += [Text(""), _boards(night)]
    for aside in night.set_aside:
        parts.append(Text(visible(f"{aside.name} is set aside: {aside.why}"), style="magenta"))
    for hole in night.holes:
        parts.append(Text(visible(f"{hole.cells} cells without a cycle: {hole.reason}")))
    return Group(*parts, *_places(night))


def as_text(night: NightNow) -> None:
    """Print it once, whole where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(table_of(night))


class PlainView:
    """Prints what has changed, a line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, str] = {}

    def show(self, night: NightNow) -> None:
        """Print what is news."""
        self._say(night, "", f"{night.state.value}: {night.told}; {totals_text(night)}")
        for one in night.boards:
            words = ", ".join(text for text in (one.where, board_text(one), one.stage) if text)
            self._say(night, one.name, words)
        for cycle in reversed(night.last):
            key = f"{cycle.run} {cycle.number}"
            why = f"{cycle.verdict.value} {cell_text(cycle.cell)}: {cycle.why}"
            self._say(night, key, why, name=cycle.seat)
        for place in night.places:
            self._say(night, f"place {place.name}", f"is had by {place.holder or 'nobody'}")
        if night.coordinator_says:
            self._say(night, "coordinator", night.coordinator_says)

    def _say(self, night: NightNow, key: str, text: str, *, name: str | None = None) -> None:
        if self._said.get(key) == text:
            return
        self._said[key] = text
        who = key if name is None else name
        line = f"{night.at[11:19]} {f'{who}: ' if who else ''}{text}"
        self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def screen() -> Iterator[Callable[[NightNow], None]]:
    """What shows a night each time it is called: a live table, or lines where that is no terminal.

    The last table stays on the screen.
    """
    console = Console()
    if not console.is_terminal:
        yield PlainView(console).show
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda night: live.update(table_of(night), refresh=True)
