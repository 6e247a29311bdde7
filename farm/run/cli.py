"""``farm run`` and ``farm scenarios``: the commands."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.errors import UsageError
from farm.model import Policy
from farm.scenarios import Scenario, select


def run(
    lg_env: Annotated[
        Path | None,
        typer.Option("--lg-env", help="The board: a labgrid environment, devices/*.yaml."),
    ] = None,
    place: Annotated[
        str,
        typer.Option(
            envvar="LG_PLACE",
            metavar="NAME",
            help="Instead: the place at a coordinator that the board hangs at; acquired for the "
            "run unless you have it already.",
        ),
    ] = "",
    coordinator: Annotated[
        str,
        typer.Option(
            "--lg-coordinator",
            metavar="HOST:PORT",
            help="labgrid's coordinator; else $LG_COORDINATOR. One on another host is reached by "
            "LG_PROXY=HOST, over ssh.",
        ),
    ] = "",
    devices: Annotated[
        Path, typer.Option(help="Where a place's board is described: its tag `board` names a file.")
    ] = Path("devices"),
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATTERN|GROUP",
            help="Ways to panic (`farm scenarios`): a name, a pattern as 'lkdtm-*', a group, "
            "quick or all; several are run in turn.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often each scenario is run.")] = 1,
    channel: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="How the dumps are read back: pstorefs, sahara, ramdump, fastboot, firehose.",
        ),
    ] = "pstorefs",
    out: Annotated[Path, typer.Option(help="Where the run's folder is made.")] = Path("reports"),
    require: Annotated[
        list[str] | None,
        typer.Option(help="A driver or device that must be registered; patterns allowed."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=BYTES", help="The largest record allowed to a driver or device."
        ),
    ] = None,
    total_budget: Annotated[
        int | None,
        typer.Option(min=1, metavar="BYTES", help="The most that all records together may use."),
    ] = None,
    flash: Annotated[
        str | None,
        typer.Option(
            metavar="fastboot|edl", help="Build the board's kernel, flash it and check it runs."
        ),
    ] = None,
    before_panic: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Run on the board's shell just before the panic."),
    ] = None,
    keep_records: Annotated[
        bool,
        typer.Option(
            "--keep-records", help="Remove no dumps from pstore, neither old ones nor the new."
        ),
    ] = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Add the run to the history: $PANIC_FARM_HISTORY, or history.sqlite in --out.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's account (run.json) instead of a table.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress by stage.")] = False,
) -> None:
    """Panic a board, read its dumps back, judge every registered driver's dump, and report.

    Exit code: 0 all PASS; 1 a FAIL (the kernel); 2 wrong use or configuration; 3 no FAIL but an
    ERROR (the bench), an interruption, or nothing that could be tested.
    """
    # labgrid and numpy take a second to load: `--help` must not wait for them.
    from farm.export import write_run_exports
    from farm.history import open_history
    from farm.hosts.place import ENVIRONMENTS, acquired
    from farm.judge.totals import exit_code
    from farm.report.files import write_reports
    from farm.report.terminal import print_run
    from farm.run.channels import parse_channels
    from farm.run.flash import parse_flash
    from farm.run.progress import RunProgress
    from farm.run.session import Plan, execute

    if coordinator:
        os.environ["LG_COORDINATOR"] = coordinator
    if (lg_env is None) == (not place):
        raise UsageError(
            "name the board: --lg-env FILE, or --place NAME", "`farm run --help` tells more."
        )
    plan = Plan(
        lg_env=lg_env or Path(),
        scenarios=select(scenario or ["sysrq-c"]),
        repeat=repeat,
        out=out,
        policy=Policy(
            required=tuple(require or ()),
            budget_bytes=dict(_budget(text) for text in budget or ()),
            total_budget_bytes=total_budget,
        ),
        before_panic=before_panic,
        keep_records=keep_records,
        command=("farm", *sys.argv[1:]),
        channels=parse_channels(channel),
        flash=parse_flash(flash),
    )
    with RunProgress(len(plan.cycles), quiet=quiet) as progress:
        if lg_env is None:
            with acquired(place, devices, out / ENVIRONMENTS, coordinator) as lg_env:
                account = execute(replace(plan, lg_env=lg_env), progress)
        else:
            account = execute(plan, progress)
    folder = out / account.run_id
    report, *_ = write_reports(folder, account)
    write_run_exports(folder, account)
    if history:
        with open_history(out=out) as opened:
            opened.add_run(account, path=account.run_id)
    if as_json:
        print(account.model_dump_json(indent=1))
    else:
        print_run(account)
    Console(stderr=as_json, soft_wrap=True).print(f"Report: {escape(str(report))}", highlight=False)
    unfinished = bool(account.ended_early or account.interrupted)
    raise typer.Exit(exit_code(account.verdict, unfinished=unfinished))


def _budget(text: str) -> tuple[str, int]:
    pattern, separator, number = text.rpartition("=")
    if not separator or not pattern or not number.isdecimal():
        raise UsageError(
            f"--budget {text!r} is not PATTERN=BYTES", "For example: --budget 'panel*=4096'."
        )
    return pattern, int(number)


def scenarios(
    pattern: Annotated[
        list[str] | None, typer.Argument(help="Names, patterns or groups; all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the catalogue as JSON.")] = False,
) -> None:
    """List the ways to panic a board, what each needs, and which records must follow."""
    chosen = select(pattern or ["all"])
    if as_json:
        print(json.dumps([_as_json(entry) for entry in chosen], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "group", "records", "what it does", "needs"):
        table.add_column(column)
    for entry in chosen:
        needs = [one for one in (*entry.bench_needs, *entry.kernel_needs) if "LKDTM" not in one]
        name = f"{entry.name} *" if entry.quick else entry.name
        table.add_row(
            name, entry.group, entry.expect.value, escape(entry.summary), escape(", ".join(needs))
        )
    console = Console()
    console.print(table)
    console.print(f"{len(chosen)} scenarios; * in the quick subset", highlight=False)


def _as_json(entry: Scenario) -> dict[str, Any]:
    needs = {"bench_needs": entry.bench_needs, "kernel_needs": entry.kernel_needs}
    return {**entry.model_dump(mode="json"), **needs}
