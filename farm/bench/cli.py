"""``farm where``, ``farm dump`` and ``farm schema``: where a board is, saving what it holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

EXIT_UNKNOWN = 3

LgEnv = Annotated[
    Path, typer.Option("--lg-env", help="The board: a labgrid environment, devices/*.yaml.")
]


def where(
    lg_env: LgEnv,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where the board is: off, EDL, crash mode, fastboot, booting, shell, panicking, hung ...

    The bench is opened but not started or stopped; a shell that runs a command is interrupted.
    Exit code 3 for unknown, and for a bench that is down or lost.
    """
    # labgrid takes a second to load: `--help` must not wait for it.
    from farm.bench.environment import open_bench
    from farm.bench.whereabouts import Place

    with open_bench(lg_env, start=False) as bench:
        found = bench.strategy.where()
    if as_json:
        print(
            json.dumps(
                {
                    "place": found.place.value,
                    "evidence": list(found.evidence),
                    "seconds": found.seconds,
                }
            )
        )
    else:
        print(f"{bench.options.board}: {found}, {found.seconds:.1f} s")
    if found.place is Place.UNKNOWN:
        raise typer.Exit(EXIT_UNKNOWN)


def schema_command() -> None:
    """Print the JSON schema of the farm's part of a labgrid environment file.

    It is also devices/environment.schema.json, which an editor can check devices/*.yaml with.
    """
    from farm.bench.environment_file import schema

    print(json.dumps(schema(), indent=1))


def dump(
    lg_env: LgEnv,
    to: Annotated[Path, typer.Option(help="The folder of the dump, new or begun earlier.")],
    reset: Annotated[
        bool, typer.Option("--reset", help="Let the board boot again afterwards.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the dump's account (ramdump.json).")
    ] = False,
) -> None:
    """Save all memory of a board that is in crash mode; go on with a dump that was interrupted.

    Each region becomes a file with zeros as holes; `ramdump.json` tells addresses and sha256. The
    board stays in crash mode unless --reset is given; Ctrl-C leaves it there, and the same command
    goes on. What a dump of another panic has left in the folder is set aside, not mixed in.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from farm.bench.environment import open_bench
    from farm.errors import BenchError
    from farm.qualcomm.identity import Mode
    from farm.qualcomm.ramdump import ACCOUNT

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with open_bench(lg_env, start=False) as bench, bar:
        strategy = bench.strategy
        crash = strategy.driver("crash")
        found = strategy.driver("usb").find()
        if found is None or found.mode is not Mode.CRASH:
            seen = "shows no USB device" if found is None else f"is in {found.mode.value} mode"
            raise BenchError(
                f"the board {bench.options.board} is not in crash mode: it {seen}",
                part="board",
                next_step=f"See `farm where --lg-env {lg_env}`.",
            )
        task = bar.add_task(bench.options.board, total=None)
        said = crash.dump(
            to, lambda done, total, _: bar.update(task, completed=done, total=total or None)
        )
        if reset:
            crash.reset()
    if as_json:
        print((to / ACCOUNT).read_text(), end="")
        return
    for one in said["files"]:
        print(f"{to / one['file']}: {one['length_bytes']} bytes at {one['base']:#x}")
        print(f"  sha256 {one['sha256']}")
