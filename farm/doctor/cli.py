"""``farm doctor``: the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXIT_WRONG = 3


def doctor(
    lg_env: Annotated[
        Path, typer.Option("--lg-env", help="The board: a labgrid environment, devices/*.yaml.")
    ],
    channel: Annotated[
        str, typer.Option(metavar="A,B,...", help="The channels that will be wanted.")
    ] = "pstorefs",
    boot: Annotated[
        bool, typer.Option("--boot", help="Bring the board to its shell, and back off if it was.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask neither bench nor board: files and host only.")
    ] = False,
    build_id: Annotated[
        str | None, typer.Option(help="The kernel that must run; else the newest `farm build`.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs will be stored.")] = Path("reports"),
    least_free: Annotated[
        int, typer.Option(min=0, metavar="MIB", help="The room that must be free there.")
    ] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Find what would make a night fail: in the environment file, on this host, bench and board.

    A board at its shell is asked, not changed; a command that runs on its console is interrupted.
    What could not be checked is listed as such. Exit code: 0 nothing is wrong; 2 the environment
    file is; 3 something else is.
    """
    # labgrid takes a second to load: `--help` must not wait for it.
    from rich.console import Console
    from rich.text import Text

    from farm.doctor.answers import State
    from farm.doctor.examine import Question, examine

    styles = {
        State.OK: "green",
        State.WARNING: "yellow",
        State.WRONG: "bold red",
        State.UNKNOWN: "cyan",
    }
    question = Question(
        lg_env=lg_env,
        channels=tuple(one.strip() for one in channel.split(",") if one.strip()),
        out=out,
        least_free_mib=least_free,
        build_id=build_id,
        boot=boot,
        offline=offline,
    )
    console = Console(soft_wrap=True)
    answers = []
    for one in examine(question):
        answers.append(one)
        if as_json:
            continue
        line = Text(f"{one.state.value:<12}", style=styles[one.state])
        console.print(line.append(f"{one.check:<12} {one.what}", style="default"))
        if one.remedy and one.state is not State.OK:
            console.print(Text(f"{'':<25}{one.remedy}", style="default"))
    counts = {state: sum(one.state is state for one in answers) for state in State}
    if as_json:
        print(json.dumps([one.as_json() for one in answers], indent=1))
    else:
        said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        console.print(said, highlight=False)
    if counts[State.WRONG]:
        raise typer.Exit(EXIT_WRONG)
