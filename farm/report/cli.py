"""The command ``farm report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from farm.judge.run_folder import load_run
from farm.report.files import write_reports
from farm.report.terminal import print_run


def report_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run: reports/<run-id>.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the paths that were written as JSON.")
    ] = False,
) -> None:
    """Write all report forms of a finished run again, from its run.json, offline."""
    run = load_run(run_dir)
    written = write_reports(run_dir, run)
    if as_json:
        print(json.dumps({"verdict": run.verdict.value, "written": [str(p) for p in written]}))
        return
    print_run(run)
    for path in written:
        print(f"wrote {path}")
