"""The command ``farm export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import UsageError
from farm.export.files import FORMS, form_files, write_forms
from farm.export.results import load_results


def export_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run or of a night.", exists=True)
    ],
    form: Annotated[
        list[str],
        typer.Option(metavar="|".join((*FORMS, "all")), help="What to write; several are allowed."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to, by default into DIR itself; - prints a single form."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An earlier run or night: regressions and fixes (mail)."),
    ] = None,
    origin: Annotated[
        str, typer.Option(help="The name of the CI system that KCIDB knows you by.")
    ] = "panic_farm",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the paths that were written as JSON.")
    ] = False,
) -> None:
    """Write a run or a night in the forms that other programs read, offline.

    junit is JUnit XML, kcidb a KCIDB 5.3 submission, squad the tests, metrics and metadata of a
    SQUAD submission, csv the sizes of all records, ktap KTAP, mail a text for a mailing list.
    ERROR (the bench), SKIP and holes are in no form a failure of the kernel.
    """
    forms = FORMS if "all" in form else tuple(dict.fromkeys(form))
    results = load_results(folder)
    before = load_results(against) if against is not None else None
    if str(out) == "-":
        if len(forms) != 1 or forms[0] == "squad":
            raise UsageError("--out - prints one form only, and not squad, which has many files")
        for text in form_files(results, forms[0], before=before, origin=origin).values():
            sys.stdout.write(text)
        return
    written = write_forms(out or folder, results, forms, before=before, origin=origin)
    if as_json:
        print(json.dumps({"verdict": results.verdict.value, "written": [str(p) for p in written]}))
        return
    for path in written:
        print(f"wrote {path}")
