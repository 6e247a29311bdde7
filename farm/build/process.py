"""Runs the tools of a build: their output goes to a log, their failure becomes a BuildError.

Every tool gets a process group of its own, so that Ctrl-C ends make with all its compilers.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from farm.errors import BuildError

SETUP_HINT = "`make setup` installs everything a build needs"

_STOP_TIMEOUT_S = 10.0
_TAIL_LINES = 12
_MARKS_OF_FAILURE = (
    " error:",
    "Error ",
    "fatal:",
    "FAILED",
    "undefined reference",
    "No space left",
)


def require_tools(names: Sequence[str]) -> None:
    """Raise ``BuildError`` naming every tool of ``names`` that is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise BuildError(
            f"not installed: {', '.join(missing)}",
            next_step=SETUP_HINT,
        )


def run(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``command``; both its streams go to ``log`` (appended) and line by line to ``on_line``.

    ``env`` is added to the environment. Raises ``BuildError`` naming ``what``, the log and the
    lines that tell why.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError:
            raise BuildError(
                f"{what}: {command[0]} is not installed", log=str(log), next_step=SETUP_HINT
            ) from None
        stdout = process.stdout
        if stdout is None:  # cannot happen with stdout=PIPE; said for the type checker
            raise BuildError(f"{what}: {command[0]} gave no output stream", log=str(log))
        try:
            for line in stdout:
                out.write(line)
                lines.append(line.rstrip("\n"))
                if on_line is not None:
                    on_line(line)
            code = process.wait()
        except BaseException:
            _stop_group(process)
            raise
    if code != 0:
        raise failure(what, f"{command[0]} ended with {code}", "\n".join(lines), log)


def output(
    command: Sequence[str], *, what: str, cwd: Path | None = None, data: bytes = b""
) -> bytes:
    """Return what ``command`` writes to standard output; ``data`` is its standard input.

    Raises ``BuildError`` with its standard error. For short commands only.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            input=data,
            capture_output=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise BuildError(f"{what}: {command[0]} is not installed", next_step=SETUP_HINT) from None
    except subprocess.CalledProcessError as error:
        told = (error.stderr or error.stdout).decode(errors="replace").strip()
        raise BuildError(
            f"{what}: {told or f'{command[0]} ended with {error.returncode}'}"
        ) from None
    return done.stdout


def failure(what: str, why: str, text: str, log: Path) -> BuildError:
    """Return the error for a tool that failed, with the lines of ``text`` that tell the reason."""
    lines = text.splitlines()
    if "No space left on device" in text:
        why = "the disk is full (No space left on device)"
    telling = [line for line in lines if any(mark in line for mark in _MARKS_OF_FAILURE)]
    shown = (telling or lines)[:_TAIL_LINES] if telling else lines[-_TAIL_LINES:]
    return BuildError(
        "\n".join([f"{what} failed: {why}", *(f"    {line}" for line in shown)]),
        log=str(log),
        next_step=f"the whole log is {log}",
    )


def _stop_group(process: subprocess.Popen[str]) -> None:
    """End a tool and all it started; it is the leader of its own group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
