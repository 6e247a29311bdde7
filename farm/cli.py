"""The command ``farm``: every stage of the data flow by itself, and all of them in one run."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from farm import __version__
from farm.errors import FarmError

EXIT_INTERRUPTED = 130

# numpy's OpenBLAS starts a thread per processor as soon as it is imported, which takes a third of
# that import, and nothing here multiplies matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A command's module is imported when the command is used: `farm --help` and a cached
# `farm build` must not pay for labgrid and numpy.
_COMMANDS = {
    "build": ("farm.build.cli", "build", "Build kernel, device tree and initramfs for a board."),
    "kernel-check": ("farm.build.check.cli", "kernel_check", "Check the kernel series."),
    "virtual": (
        "farm.virtual.cli",
        "app",
        "Virtual boards: up, down, list, status, fault, events.",
    ),
    "run": ("farm.run.cli", "run", "Panic a board, read its dumps back, judge and report."),
    "nightly": ("farm.nightly.cli", "nightly", "Run a plan on many boards; resumable."),
    "exporter": ("farm.hosts.cli", "exporter", "Export this host's boards to a coordinator."),
    "places": (
        "farm.hosts.places_cli",
        "app",
        "The places of a labgrid coordinator: list, sync with devices/.",
    ),
    "top": ("farm.top.cli", "top", "Show what every board of a night does now, and who has it."),
    "scenarios": ("farm.run.cli", "scenarios", "List the ways to panic a board."),
    "where": ("farm.bench.cli", "where", "Say where a board is: off, EDL, crash mode, shell ..."),
    "doctor": ("farm.doctor.cli", "doctor", "Say what is wrong with a bench, before a night is."),
    "schema": ("farm.bench.cli", "schema_command", "Print the schema of a board's environment."),
    "dump": ("farm.bench.cli", "dump", "Save the memory of a board that is in crash mode."),
    "board": (
        "farm.boards.cli",
        "app",
        "Real boards: new, check, dtb, sweep: descriptions, and where ramoops lies.",
    ),
    "decode": ("farm.decode.cli", "decode_command", "Show a pstore file or a raw region."),
    "judge": ("farm.judge.cli", "judge_command", "Judge a run again, offline."),
    "report": ("farm.report.cli", "report_command", "Write the reports of runs and nights again."),
    "export": ("farm.export.cli", "export_command", "Write JUnit, KCIDB, SQUAD, CSV, KTAP, mail."),
    "signoff": ("farm.signoff.cli", "app", "GO / NO-GO of a release, with evidence; sign, verify."),
}


def _help_text() -> str:
    width = max(map(len, _COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, (_, _, text) in _COMMANDS.items())
    return f"""Usage: farm COMMAND [OPTIONS]

Crash a board on purpose and prove that every registered driver's dump survived.

Commands:
{commands}

`farm COMMAND --help` tells more; `farm --version` tells the version.

Exit codes: 0 all PASS; 1 a FAIL (the kernel); 2 wrong use or configuration;
3 no FAIL but an ERROR (the bench); 130 interrupted."""


def _interruptible(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Let Ctrl-C end with 130: typer's own way ends with 1, which here means a failing kernel."""

    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except KeyboardInterrupt:
            print("farm: interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return wrapped


def _application(name: str) -> typer.Typer:
    module, attribute, _ = _COMMANDS[name]
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        app = found
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(found)
    app.pretty_exceptions_enable = False
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _interruptible(command.callback)
    return app


def main() -> None:
    """Run ``farm``; a FarmError becomes its message and its exit code."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help_text())
        return
    if name == "--version":
        print(f"farm {__version__}")
        return
    if name not in _COMMANDS:
        print(f"farm: there is no command {name!r}\n\n{_help_text()}", file=sys.stderr)
        sys.exit(2)
    try:
        # There is no garbage in what is imported: looking for it takes a tenth of a short command.
        gc.disable()
        application = _application(name)
        gc.freeze()
        gc.enable()
        application(args=rest, prog_name=f"farm {name}")
    except FarmError as error:
        print(f"farm: {error.message}", file=sys.stderr)
        if error.next_step:
            print(f"  {error.next_step}", file=sys.stderr)
        sys.exit(error.exit_code)
