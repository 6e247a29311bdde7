"""``farm top``: the command."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farm.top.view import NightNow, State


EXIT_GONE = 3


def top(
    night: Annotated[
        Path,
        typer.Argument(
            metavar="[NIGHT_DIR|REPORTS_DIR]",
            help="A night's folder, or the one with nights/ in it: then its newest night.",
        ),
    ] = Path("reports"),
    coordinator: Annotated[
        str,
        typer.Option(
            envvar="LG_COORDINATOR",
            metavar="HOST:PORT",
            help="labgrid's coordinator: its places, and who has them.",
        ),
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Say it once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, once.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep a page there that loads itself again, and beside it FILE-still.html that "
            "does not.",
        ),
    ] = None,
    serve: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="Serve that page on 127.0.0.1; 0: a free port."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
) -> None:
    """Show what every board of a night does now, how far the night is, and who has the places.

    It only reads, from the night's folder: of a night that another process works on, of one that
    was taken up again, of one whose controller was killed, which it says. It ends with the night,
    or with Ctrl-C; with --html and --serve it stays, and goes on with the next night of a reports
    folder. Exit code 3: the night's controller is gone.
    """
    # labgrid takes its time to load, and only --coordinator needs it.
    from farm.top.page import page, write_pages
    from farm.top.terminal import as_text, screen
    from farm.top.view import OVER, NightWatch, newest

    watch = NightWatch(newest(night))
    with ExitStack() as opened:
        connected = None
        if coordinator:
            from farm.hosts.coordinator import Coordinator

            connected = opened.enter_context(Coordinator(coordinator))
        lock = threading.Lock()

        def look() -> NightNow:
            nonlocal watch
            with lock:
                folder = newest(night)
                if folder != watch.folder:
                    watch = NightWatch(folder)
                now = watch.look()
            if connected is None:
                return now
            from farm.top.places import with_places

            return with_places(now, connected)

        if as_json or (once and html is None):
            now = look()
            if as_json:
                print(now.model_dump_json(indent=1))
            else:
                as_text(now)
            raise typer.Exit(_exit_code(now.state))
        interval_s = max(1, round(every))
        if serve is not None:
            from farm.top.serve import serving

            def make(refreshing: bool) -> str:
                refresh_s, other = (interval_s, "still") if refreshing else (None, "./")
                return page(look(), refresh_s=refresh_s, other=other, interval_s=interval_s)

            print(f"serving {opened.enter_context(serving(serve, make))}", file=sys.stderr)
        stays = html is not None or serve is not None
        show = opened.enter_context(screen()) if not stays else None
        try:
            while True:
                now = look()
                if html is not None:
                    write_pages(now, html, interval_s)
                if show is not None:
                    show(now)
                if once or (now.state in OVER and not stays):
                    raise typer.Exit(_exit_code(now.state))
                threading.Event().wait(every)
        except KeyboardInterrupt:
            return  # that is how one leaves it


def _exit_code(state: State) -> int:
    return EXIT_GONE if state.value.startswith("controller") else 0
