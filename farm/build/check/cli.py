"""``farm kernel-check``: the command, and the table at its end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from farm.build import cache, pipeline, process
from farm.build.check import plan
from farm.build.check.ledger import Ledger, Result
from farm.build.check.together import together
from farm.build.kernel import TOOLS, default_jobs
from farm.build.progress import BuildProgress
from farm.errors import BuildError, UsageError
from farm.signals import termination_as_interrupt

_FAILED = 1
_TOOLS = (
    *TOOLS,
    *("python3", "qemu-system-aarch64", "x86_64-linux-gnu-gcc", "ccache", "sparse", "yamllint"),
)
_BASE = re.compile(r"\d+\.\d+")
_SHOWN_FAULTS = 12
_ALL = "all"


def kernel_check(
    base: Annotated[
        list[str] | None,
        typer.Option(help="Kernel version to check the series for; may be given again; or all."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this part; may be given again: " + ", ".join(plan.PARTS) + ".",
            metavar="PART",
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Compilers at once, of each version; 0: one per processor.",
            show_default=False,
        ),
    ] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Check also what has passed and not changed since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check the series the way a maintainer would; exit code 1 if something is wrong with it.

    Several versions are checked side by side. What has passed is not checked again as long as
    nothing that decides it has changed: patches, base source, configuration, tools.
    """
    project = pipeline.project_folder()
    bases = _bases(base or [_ALL], project)
    parts = _parts(only or [])
    try:
        process.require_tools(_TOOLS)
    except BuildError as error:
        raise BuildError(
            error.message, next_step="`make kernel-check` installs what it needs"
        ) from None
    begin = time.monotonic()
    with termination_as_interrupt():
        if len(bases) == 1:
            results = _check(bases[0], project, parts, jobs, again)
        else:
            works = [partial(_check, one, project, parts, jobs, again, live=False) for one in bases]
            results = [result for found in together(works) for result in found]
    seconds = time.monotonic() - begin
    passed = all(result.passed for result in results)
    if as_json:
        told = {
            "verdict": "PASS" if passed else "FAIL",
            "seconds": round(seconds, 1),
            "steps": [result.as_dict() for result in results],
        }
        print(json.dumps(told, indent=1))
    else:
        _show(results, bases, seconds)
    if not passed:
        raise typer.Exit(_FAILED)


def _check(
    base: str, project: Path, parts: Sequence[str], jobs: int, again: bool, *, live: bool = True
) -> list[Result]:
    """Check the series for ``base``; only one process at a time does."""
    root = cache.root() / "check"
    request = pipeline.Request(
        board="virtual",
        base=base,
        jobs=jobs or default_jobs(),
        force=False,
        project=project,
        cache=root,
    )
    with (
        BuildProgress(live=live) as progress,
        cache.locked(root / "locks" / base, f"farm kernel-check --base {base}", progress.say),
    ):
        work = plan.open_workshop(request, progress)
        ledger = Ledger(work.store / "passed", root / "logs", again=again)
        return list(plan.take(work, ledger, parts))


def _bases(asked: Sequence[str], project: Path) -> list[str]:
    """Return the base versions, newest first; ``all`` are those with a series."""
    wrong = [one for one in asked if one != _ALL and _BASE.fullmatch(one) is None]
    if wrong:
        raise UsageError(f"--base: {wrong[0]!r} is no version of a kernel", "Such as 6.12, or all.")
    if _ALL not in asked:
        return list(dict.fromkeys(asked))
    folder = project / "kernel-patches"
    found = [
        path.parent.name
        for path in folder.glob("*/series")
        if _BASE.fullmatch(path.parent.name) is not None
    ]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


def _parts(only: Sequence[str]) -> list[str]:
    wrong = [name for name in only if name not in plan.PARTS]
    if wrong:
        raise UsageError(
            f"--only: there is no part {wrong[0]!r}", f"The parts: {', '.join(plan.PARTS)}."
        )
    return list(only) or list(plan.PARTS)


def _show(results: Sequence[Result], bases: Sequence[str], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), title="kernel-check", title_justify="left")
    for column in ("base", "part", "passed", "what", "time", "CPU", ""):
        right = column in ("passed", "time", "CPU")
        table.add_column(column, justify="right" if right else "left")
    all_cpu_s = sum(result.cpu_s for result in results if not result.known)
    for one in bases:
        for part in dict.fromkeys(result.part for result in results if result.base == one):
            rows = [r for r in results if (r.base, r.part) == (one, part)]
            good = [row for row in rows if row.passed]
            details = ", ".join(
                f"{row.what}: {row.detail}" if len(rows) > 1 else row.detail
                for row in rows
                if row.detail
            )
            fresh = [row for row in rows if not row.known]
            cpu_s = sum(row.cpu_s for row in fresh)
            ok = len(good) == len(rows)
            table.add_row(
                one,
                part,
                f"{len(good)} of {len(rows)}",
                details or plan.PARTS.get(part, ""),
                f"{sum(row.seconds for row in fresh):.0f} s" if fresh else "known",
                f"{cpu_s:.0f} s, {cpu_s / all_cpu_s:.0%}" if fresh and all_cpu_s else "",
                Text("PASS" if ok else "FAIL", style="green" if ok else "bold red"),
            )
    console.print(table)
    for result in results:
        if result.passed:
            continue
        console.print(Text(f"\nFAIL {result.base} {result.part}: {result.what}", style="bold red"))
        for fault in result.faults[:_SHOWN_FAULTS]:
            console.print(Text(f"    {fault}"), soft_wrap=True)
        if len(result.faults) > _SHOWN_FAULTS:
            console.print(f"    and {len(result.faults) - _SHOWN_FAULTS} more")
        console.print(Text(f"    log: {result.log}"), soft_wrap=True)
    console.print(
        f"\n{len(results)} steps in {seconds / 60:.1f} min, "
        f"{all_cpu_s / 60:.1f} min of processor time"
    )
