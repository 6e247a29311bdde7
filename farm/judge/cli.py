"""The command ``farm judge``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from farm.errors import UsageError
from farm.judge.names import shown
from farm.judge.run_folder import load_run, rejudge, write_judged
from farm.judge.totals import exit_code, summarise
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


@dataclass(frozen=True)
class _Again:
    """One of several runs, judged again; ``error`` where that could not be."""

    folder: Path
    stored: Run | None = None
    run: Run | None = None
    error: str = ""

    @property
    def changed(self) -> list[int]:
        """The numbers of the cycles whose verdict is not the stored one."""
        if self.stored is None or self.run is None:
            return []
        pairs = zip(self.stored.cycles, self.run.cycles, strict=True)
        return [one.number for one, new in pairs if one.result.verdict is not new.result.verdict]

    def as_json(self) -> dict[str, Any]:
        """What `--json` says of it."""
        said: dict[str, Any] = {"folder": str(self.folder)}
        if self.stored is None or self.run is None:
            return {**said, "error": self.error}
        return {
            **said,
            "run_id": self.run.run_id,
            "board": self.run.board,
            "stored": self.stored.verdict.value,
            "verdict": self.run.verdict.value,
            "totals": self.run.totals,
            "changed_cycles": self.changed,
        }


def _judge_again(folder: Path, *, write: bool) -> _Again:
    try:
        stored = load_run(folder)
        run = rejudge(folder)
    except UsageError as error:
        return _Again(folder, error=error.message)
    if write:
        write_judged(folder, run)
    return _Again(folder, stored, run)


def _print_many(all_runs: list[_Again], verdict: Verdict, out: Console) -> None:
    for one in all_runs:
        if one.run is None or one.stored is None:
            out.print(Text(f"no run  {one.folder}: {one.error}"), highlight=False)
            continue
        line = Text.assemble(_verdict(one.run.verdict), f"  {one.folder}  {one.run.board}")
        counts = [f"{v.value} {one.run.totals[v.value]}" for v in Verdict if one.run.totals[v]]
        line.append(f"  {', '.join(counts) or 'no cycle'}")
        if one.changed:
            line.append(f"  stored as {one.stored.verdict.value}; other verdicts in cycles ")
            line.append(", ".join(map(str, one.changed)))
        out.print(line, highlight=False, soft_wrap=True)
    judged = [one for one in all_runs if one.run is not None]
    cycles = sum(len(one.run.cycles) for one in judged if one.run is not None)
    changed = sum(len(one.changed) for one in judged)
    told = "every verdict as stored" if not changed else f"{changed} verdicts are not as stored"
    out.print(Text.assemble(_verdict(verdict), f"  {len(judged)} runs, {cycles} cycles: {told}"))


def _judge_many(folders: list[Path], *, as_json: bool, write: bool) -> int:
    """Judge several runs; returns the exit code."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        all_runs = [
            _judge_again(folder, write=write)
            for folder in progress.track(folders, description="judging runs")
        ]
    runs = [one.run for one in all_runs if one.run is not None]
    verdict, _ = summarise(run.verdict for run in runs)
    if as_json:
        print(json.dumps([one.as_json() for one in all_runs], indent=1))
    else:
        _print_many(all_runs, verdict, Console())
    if len(runs) < len(all_runs):
        return UsageError.exit_code
    unfinished = any(run.ended_early or run.interrupted for run in runs)
    return exit_code(verdict, unfinished=unfinished)


def judge_command(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Folders of runs: reports/<run-id>."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run, judged anew, as JSON.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Store the new verdicts in the run's folder.")
    ] = False,
) -> None:
    """Judge runs again from their captures, offline; changes nothing unless --write is given.

    One run is shown with all its devices, of several (reports/*) each has a line, which tells
    where a verdict is not the stored one. The exit code is that of all runs together; 2 when a
    folder holds no run.
    """
    if len(run_dirs) > 1:
        raise typer.Exit(_judge_many(run_dirs, as_json=as_json, write=write))
    (run_dir,) = run_dirs
    stored = load_run(run_dir)
    run = rejudge(run_dir)
    if write:
        write_judged(run_dir, run)
    if as_json:
        print(run.model_dump_json(indent=1))
    else:
        _print(run, stored, Console())
    raise typer.Exit(exit_code(run.verdict, unfinished=bool(run.ended_early) or run.interrupted))
