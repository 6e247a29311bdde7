"""The commands of an environment file that ask for, start and stop a bench.

`farm` as a command is the farm that runs, wherever it is installed, and `{board}` in one is the
board's name. A first word `@HOST` has the command run on that host, over ssh: `farm` is then the
one that exports the boards there.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from farm.errors import BenchError, DeadlineError, UsageError

# The first word of a command that is run on another host: `@bench-7`.
ON_HOST = "@"
_SSH_FAILED = 255
UP, DOWN, LOST = 0, 1, 3

_STATUS_DEADLINE_S = 15.0
_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 1.5
_WORDS = 400


def command_line(words: Sequence[str]) -> list[str]:
    """``words`` to run; raises BenchError for a host that cannot be reached."""
    if words[0].startswith(ON_HOST):
        # labgrid takes a second to load.
        from farm.bench.hosts import command_on

        return command_on(words[0].removeprefix(ON_HOST), words[1:])
    if words[0] != "farm":
        return list(words)
    script = Path(sys.executable).with_name("farm")
    if script.is_file():
        return [str(script), *words[1:]]
    return [sys.executable, "-c", "from farm.cli import main; main()", *words[1:]]


def _run(
    words: Sequence[str],
    deadline_s: float,
    stop: Sequence[str] | None = None,
    *,
    words_limit: int | None = _WORDS,
) -> tuple[int, str]:
    """Run to the end; return exit code and what it said; raises UsageError, DeadlineError.

    With ``stop``, what the command starts is stopped when it is interrupted or too late.
    """
    shown = " ".join(words)
    try:
        # A session of its own: Ctrl-C is for the farm, which then stops what it started.
        process = subprocess.Popen(
            command_line(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise UsageError(f"cannot run the bench's command `{shown}`: {error}") from error
    try:
        said, _ = process.communicate(timeout=deadline_s)
    except BaseException as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        if stop is not None and not late:
            # What is half started could not be stopped yet.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=deadline_s)
        process.kill()
        process.communicate()
        if stop is not None:
            take_down(stop)
        if late:
            raise DeadlineError(f"`{shown}`", part="board", deadline_s=deadline_s) from error
        raise
    text = said.decode(errors="replace").strip()
    if words_limit is not None:
        text = text[-words_limit:]
    if process.returncode == _SSH_FAILED and words[0].startswith(ON_HOST):
        raise BenchError(
            f"the host {words[0].removeprefix(ON_HOST)} is lost: {text or shown}",
            part="bench",
            next_step="Is it up, and does its sshd run?",
        )
    return process.returncode, text


def state(status: Sequence[str]) -> tuple[int, str]:
    """Ask whether the bench is UP, DOWN or LOST, and what it said; starts nothing."""
    return _run(status, _STATUS_DEADLINE_S)


def is_up(board: str, status: Sequence[str]) -> bool:
    """Whether the bench is up; raises BenchError(part="board") when it is lost."""
    if not status:
        return True
    code, words = state(status)
    if code == UP:
        return True
    if code == LOST:
        raise BenchError(
            f"the board {board} is lost: {words}",
            part="board",
            next_step=f"`{' '.join(status)}` says so; bring it down and up again.",
        )
    if code != DOWN:
        raise BenchError(
            f"`{' '.join(status)}` for board {board} ended with {code}: {words}", part="board"
        )
    return False


def bring_up(
    board: str, status: Sequence[str], start: Sequence[str], stop: Sequence[str] = ()
) -> bool:
    """Have the bench up; returns whether it was started here.

    An interruption while it starts stops it. Raises BenchError(part="board") when it is lost or
    does not start.
    """
    if is_up(board, status):
        return False
    if not start:
        raise BenchError(
            f"the board {board} is down, and there is no way to start it", part="board"
        )
    code, words = _run(start, _START_DEADLINE_S, stop)
    if code != 0:
        raise BenchError(
            f"the board {board} did not start: `{' '.join(start)}` ended with {code}: {words}",
            part="board",
        )
    return True


def run_command(words: Sequence[str]) -> str:
    """Run a bench's command; returns what it said; raises BenchError when it fails."""
    code, said = _run(words, _STATUS_DEADLINE_S)
    if code != 0:
        raise BenchError(f"`{' '.join(words)}` ended with {code}: {said}", part="bench")
    return said


def run_long(words: Sequence[str]) -> str:
    """As `run_command`, for one that starts or stops a bench; all that it said is returned."""
    code, said = _run(words, _START_DEADLINE_S, words_limit=None)
    if code != 0:
        raise BenchError(f"`{' '.join(words)}` ended with {code}: {said[-_WORDS:]}", part="bench")
    return said


def take_down(stop: Sequence[str]) -> None:
    """Stop the bench; waits a moment and otherwise lets the command finish by itself."""
    if not stop:
        return
    try:
        process = subprocess.Popen(
            command_line(stop),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.wait(_STOP_DEADLINE_S)
    except (BenchError, OSError, subprocess.TimeoutExpired):
        return


def filled(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """``words`` with each `{name}` of ``values`` filled in."""
    done = list(words)
    for name, value in values.items():
        done = [word.replace(f"{{{name}}}", value) for word in done]
    return done
