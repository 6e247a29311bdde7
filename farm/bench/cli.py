"""``farm where``, where a board is; ``farm schema``, what its environment file may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXIT_UNKNOWN = 3


def where(
    lg_env: Annotated[
        Path, typer.Option("--lg-env", help="The board: a labgrid environment, devices/*.yaml.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where the board is: off, EDL, crash mode, fastboot, booting, shell, panicking, hung ...

    The bench is opened but not started or stopped; a shell that runs a command is interrupted.
    Exit code 3 for unknown.
    """
    # labgrid takes a second to load: `--help` must not wait for it.
    from farm.bench.environment import open_bench
    from farm.bench.whereabouts import Place

    with open_bench(lg_env) as bench:
        bench.started_here = False
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
