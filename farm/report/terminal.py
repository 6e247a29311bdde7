"""A run as tables on a terminal.

Rich decides about colour: none when the output is no terminal or NO_COLOR is set. Nothing from
a board is ever handed to rich as markup, only as `Text` of visible characters.
"""

from __future__ import annotations

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from farm.model import Cycle, DeviceVerdict, Run, Verdict
from farm.report.printable import duration_text, ratio_text, size_text, visible
from farm.report.summary import (
    board_label,
    channel_text,
    confidence,
    finding_label,
    finding_text,
    headline,
    in_full,
    recovery_text,
    shown_findings,
    verdict_counts,
)

__all__ = ["print_run"]

_STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold yellow",
    Verdict.SKIP: "cyan",
}
_WIDE = 120  # columns from which driver and device get a column each


def _plain(text: str) -> Text:
    return Text(visible(text, ascii_only=True), overflow="fold")


def _verdict(verdict: Verdict) -> Text:
    return Text(verdict.value, style=_STYLES[verdict])


def _device_cell(row: DeviceVerdict) -> Text:
    cell = _plain(row.device)
    if row.required:
        cell.append(" (required)", style="dim")
    if not row.device.startswith(row.driver):
        cell.append("\n").append_text(_plain(f"driver {row.driver}"))
    return cell


def _device_table(rows: tuple[DeviceVerdict, ...], width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
    if wide:
        table.add_column("device", ratio=3, overflow="fold")
        table.add_column("driver", ratio=2, overflow="fold")
    else:
        table.add_column("device", ratio=5, overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why", ratio=5, overflow="fold")
    for row in rows:
        names = [_plain(row.device), _plain(row.driver)] if wide else [_device_cell(row)]
        if wide and row.required:
            names[0].append(" (required)", style="dim")
        budget = "-" if row.budget_bytes is None else str(row.budget_bytes)
        table.add_row(
            *names,
            Text(str(row.record_bytes)),
            Text(budget),
            _verdict(row.verdict),
            _plain(row.why),
        )
    return table


def _cycle_title(cycle: Cycle) -> Text:
    title = Text.assemble(
        f"Cycle {cycle.number}: ",
        _plain(cycle.scenario),
        f" #{cycle.repeat}  ",
        _verdict(cycle.result.verdict),
        "  ",
    )
    return title.append_text(_plain(cycle.result.why))


def _cycle(cycle: Cycle, width: int) -> Group:
    parts: list[Text | Table] = [_cycle_title(cycle)]
    if cycle.result.devices:
        parts.append(_device_table(cycle.result.devices, width))
    for finding in shown_findings(cycle.result.findings):
        line = Text.assemble("  ", _verdict(finding.verdict), f" {finding_label(finding)}: ")
        parts.append(line.append_text(_plain(finding_text(finding))))
    if len(cycle.input.channels) > 1:
        parts += [Text(f"  {line}", style="dim") for line in channel_text(cycle)]
    tail = f"  {duration_text(cycle.wall_s)} wall, {duration_text(cycle.board_s)} board"
    if cycle.result.capacity_bytes:
        tail += (
            f"; {size_text(cycle.result.used_bytes)} of "
            f"{size_text(cycle.result.capacity_bytes)} capacity used"
        )
    parts.append(Text(tail, style="dim"))
    return Group(*parts)


def _cycles_table(run: Run) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("scenario", ratio=2, overflow="fold")
    table.add_column("repeat", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("wall", justify="right", no_wrap=True)
    table.add_column("why", ratio=5, overflow="fold")
    for cycle in run.cycles:
        table.add_row(
            Text(str(cycle.number)),
            _plain(cycle.scenario),
            Text(str(cycle.repeat)),
            _verdict(cycle.result.verdict),
            Text(duration_text(cycle.wall_s)),
            _plain(cycle.result.why),
        )
    return table


def print_run(run: Run, *, console: Console | None = None) -> None:
    """Print the first cycle, and each that went wrong, in full; then the summary across cycles."""
    out = console if console is not None else Console()

    def show(*renderables: Text | Table | Group) -> None:
        for renderable in renderables:
            out.print(renderable, highlight=False, markup=False, emoji=False)

    for cycle in run.cycles:
        if in_full(run, cycle):
            show(_cycle(cycle, out.width), Text())
    if len(run.cycles) > 1:
        show(_cycles_table(run))
    for line in recovery_text(run):
        show(Text(line, style="dim"))
    counts = "  ".join(f"{verdict.value} {n}" for verdict, n in verdict_counts(run.cycles).items())
    show(Text.assemble(_verdict(run.verdict), "  ", _plain(headline(run))))
    if note := confidence(run):
        show(Text(note))
    release = run.kernel_release or "unknown"
    show(
        Text.assemble("board   ", _plain(board_label(run))),
        Text.assemble("kernel  ", _plain(release), " build id ", _plain(run.build_id or "unknown")),
        Text(
            f"time    {duration_text(run.wall_s)} wall, {duration_text(run.board_s)} board, "
            f"ratio {ratio_text(run.wall_to_board)}"
        ),
        Text(f"cycles  {counts}"),
    )
