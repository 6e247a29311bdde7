"""The command ``farm judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.judge.names import shown
from farm.judge.run_folder import load_run, rejudge, write_judged
from farm.judge.totals import exit_code
from farm.model import Cycle, Run, Verdict

_STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold yellow",
    Verdict.SKIP: "cyan",
}


def _verdict(verdict: Verdict) -> Text:
    return Text(verdict.value, style=_STYLES[verdict])


def _table(cycle: Cycle) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("device", ratio=3, overflow="fold")
    table.add_column("driver", ratio=2, overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why", ratio=5, overflow="fold")
    for row in cycle.result.devices:
        # Text, because a name from a board must not become markup.
        table.add_row(
            Text(row.device),
            Text(row.driver),
            Text(str(row.record_bytes)),
            Text("-" if row.budget_bytes is None else str(row.budget_bytes)),
            _verdict(row.verdict),
            Text(row.why),
        )
    return table


def _print(run: Run, stored: Run, out: Console) -> None:
    for cycle, before in zip(run.cycles, stored.cycles, strict=True):
        title = Text.assemble(
            f"Cycle {cycle.number}: {shown(cycle.scenario)} #{cycle.repeat}  ",
            _verdict(cycle.result.verdict),
            f"  {cycle.result.why}",
        )
        if before.result.verdict is not cycle.result.verdict:
            title.append(f" (stored as {before.result.verdict.value})")
        out.print(title, highlight=False)
        if cycle.result.devices:
            out.print(_table(cycle), highlight=False)
    counts = "  ".join(f"{verdict.value} {run.totals[verdict.value]}" for verdict in Verdict)
    out.print(Text.assemble(_verdict(run.verdict), f"  {len(run.cycles)} cycles: {counts}"))


def judge_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run: reports/<run-id>.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run, judged anew, as JSON.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Store the new verdicts in the run's folder.")
    ] = False,
) -> None:
    """Judge a run again from its captures, offline; changes nothing unless --write is given."""
    stored = load_run(run_dir)
    run = rejudge(run_dir)
    if write:
        write_judged(run_dir, run)
    if as_json:
        print(run.model_dump_json(indent=1))
    else:
        _print(run, stored, Console())
    raise typer.Exit(exit_code(run.verdict, unfinished=bool(run.ended_early) or run.interrupted))
