"""``farm places``: the command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The places of a labgrid coordinator."
)

Address = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="LG_COORDINATOR",
        metavar="HOST:PORT",
        help="labgrid's coordinator; one on another host is reached through LG_PROXY=HOST, by ssh.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_places(coordinator: Address = "127.0.0.1:20408", as_json: AsJson = False) -> None:
    """Say which places there are, who has them, and what no exporter offers."""
    # labgrid takes a second to load: `--help` must not wait for it.
    from farm.hosts.coordinator import Coordinator

    with Coordinator(coordinator) as connected:
        places = connected.places()
    if as_json:
        print(json.dumps({"places": [asdict(one) for one in places.values()]}, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from farm.errors import plain_text

    table = Table(box=None, pad_edge=False)
    for column in ("place", "board", "has it", "tags"):
        table.add_column(column)
    for one in places.values():
        state = one.acquired or ("free" if not one.unmatched else f"nobody offers {one.unmatched}")
        tags = " ".join(f"{key}={value}" for key, value in sorted(one.tags.items()))
        # What other hosts say is made safe to print as an error's words are.
        cells = (one.name, one.tags.get("board", "?"), state, tags)
        table.add_row(*(escape(plain_text(cell)) for cell in cells))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    if not places:
        console.print("the coordinator knows no places; `farm places sync` makes them")


@app.command()
def sync(
    coordinator: Address = "127.0.0.1:20408",
    devices: Annotated[
        Path, typer.Option(help="The descriptions that tags are taken from.")
    ] = Path("devices"),
    do_write: Annotated[
        bool, typer.Option("--write/--dry-run", help="Change the coordinator, or only say how.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have a place, with tags, for each board that exporters offer; without --write only say so.

    A group of resources is a board when it is named after its description, devices/NAME.yaml, as
    NAME or NAME-2, or when its USB device has the description's serial number. Nothing is deleted,
    and places that somebody has are left as they are. Exit code 0 whatever there is to be changed.
    """
    from farm.errors import plain_text
    from farm.hosts.coordinator import Coordinator
    from farm.hosts.places import descriptions, plan, write

    known = descriptions(devices)
    with Coordinator(coordinator) as connected:
        wanted = plan(known, connected.resources(), connected.places())
        if do_write:
            write(connected, wanted.changes)
    if as_json:
        print(json.dumps({"written": do_write, **wanted.as_json()}, indent=1))
        return
    for change in wanted.changes:
        verb = "new" if change.is_new else "changed"
        tags = " ".join(f"{key}={value}" for key, value in sorted(change.tags.items()))
        matches = " ".join(change.matches)
        words = f"{change.place}: {verb}: {' '.join(filter(None, (tags, matches)))}"
        print(plain_text(words))
    for said in wanted.said:
        print(plain_text(said))
    count = len(wanted.changes)
    print(
        f"{len(wanted.unchanged)} places as they should be, {count} "
        + ("written" if do_write else "to be written: `--write` does it" if count else "to change")
    )
