"""The command ``farm report``."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.judge.night_folder import NIGHT_NAME
from farm.judge.run_folder import load_run
from farm.report.files import write_reports
from farm.report.night_summary import load_summary
from farm.report.printable import visible
from farm.report.terminal import print_run

if TYPE_CHECKING:
    from farm.history import History


def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR|NIGHT_DIR...",
            help="Folders of runs (reports/<run-id>) and of nights (<out>/nights/<night-id>).",
        ),
    ],
    history: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The history that nights are held against; by default history.sqlite of the "
            "folder that the nights lie under, if it is there.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON, a line per folder.")
    ] = False,
) -> None:
    """Write the reports of finished runs and nights again, from their folders, offline.

    Of a run report.html and report.txt, of a night its pages and the index of all nights.
    """
    for folder in folders:
        if (folder / NIGHT_NAME).is_file():
            _night(folder, history, as_json=as_json)
        else:
            _run(folder, as_json=as_json)


def _run(folder: Path, *, as_json: bool) -> None:
    run = load_run(folder)
    written = write_reports(folder, run)
    if as_json:
        print(json.dumps({"verdict": run.verdict.value, "written": [str(p) for p in written]}))
        return
    print_run(run)
    for path in written:
        print(f"wrote {path}")


def _night(folder: Path, url: str | None, *, as_json: bool) -> None:
    from farm.report.night import write_night_report

    with ExitStack() as stack:
        path = write_night_report(folder, _history(folder, url, stack))
    night = load_summary(folder)
    if as_json:
        print(json.dumps({"verdict": night.verdict.value, "written": [str(path)]}))
        return
    print(f"{night.verdict.value} night {visible(night.night_id)}: {visible(night.headline)}")
    print(f"wrote {path}")


def _history(folder: Path, url: str | None, stack: ExitStack) -> History | None:
    """The history to hold a night against; none is made where there is none."""
    from farm.history import open_history
    from farm.history.database import FILE_NAME, URL_VARIABLE

    out = folder.resolve().parent.parent
    if url is None and URL_VARIABLE not in os.environ and not (out / FILE_NAME).is_file():
        return None
    return stack.enter_context(open_history(url, out=out))
