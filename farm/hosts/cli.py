"""``farm exporter``: the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def exporter(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="What this host exports: docs/hosts.md.")
    ],
    coordinator: Annotated[
        str,
        typer.Option(
            envvar="LG_COORDINATOR",
            metavar="HOST:PORT",
            help="labgrid's coordinator; one on another host is reached through LG_PROXY=HOST, "
            "by ssh.",
        ),
    ] = "127.0.0.1:20408",
    name: Annotated[
        str, typer.Option(help="The exporter's name at the coordinator; else this host's.")
    ] = "",
    hostname: Annotated[
        str,
        typer.Option(help="What other hosts give to ssh to reach this one; else its full name."),
    ] = "",
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated/--open",
            help="Have clients reach this host's loopback ports through ssh, or ports directly.",
        ),
    ] = True,
) -> None:
    """Export this host's boards until Ctrl-C: labgrid's exporter, plus what the farm has.

    Virtual boards that the configuration names are started, and taken down at the end unless they
    were up before.
    """
    # labgrid takes a second to load: `--help` must not wait for it.
    from socket import gethostname

    from farm.hosts.exporter import Exporter, default_hostname, read_config

    named = name or gethostname()
    reached = hostname or default_hostname()
    read = read_config(config, name=named, hostname=reached, isolated=isolated)
    Exporter(
        read,
        name=named,
        hostname=reached,
        coordinator=coordinator,
        isolated=isolated,
        say=lambda line: print(f"farm: {line}", flush=True),
    ).run()
