"""Bringing boards up and down, and what they are, seen from outside of their daemons."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from farm.errors import BenchError, UsageError
from farm.virtual.control import ask, error_from_json
from farm.virtual.events import EventLog
from farm.virtual.layout import BoardDir, board_dirs, host_boot_id
from farm.virtual.options import BoardOptions
from farm.virtual.status import BoardStatus, Condition, Presence

_UP_DEADLINE_S = 30.0
_KILL_DEADLINE_S = 10.0


@dataclass(frozen=True)
class UpResult:
    """What ``up`` did; ``was_lost``: an earlier life of the board had ended without ``down``."""

    status: BoardStatus
    already: bool
    was_lost: bool


def _stored(board: BoardDir) -> BoardStatus | None:
    """What the board's daemon last wrote; None if there is nothing, or nothing sound."""
    try:
        return BoardStatus.model_validate_json(board.state.read_bytes())
    except (OSError, ValidationError):
        return None


def status(name: str) -> BoardStatus:
    """The board's status, live if its daemon is there; raises BenchError if that is mute."""
    board = BoardDir.of(name)
    if board.daemon_alive():
        return BoardStatus.model_validate(ask(board, "status"))
    last = _stored(board)
    if last is None or last.host_boot_id != host_boot_id():
        return BoardStatus(name=name, state=Presence.DOWN)
    return last.model_copy(
        update={
            "state": Presence.LOST,
            "condition": Condition.OFF,
            "relay_on": False,
            "serial_client": None,
            "qemu_pid": None,
            "message": "its daemon is gone without a word, and QEMU and the DRAM with it; "
            f"`farm virtual up --name {name}` starts afresh, "
            f"`farm virtual down --name {name}` cleans up",
        }
    )


def statuses() -> list[BoardStatus]:
    """Every board that is up or lost, by name; one that does not answer is lost."""
    found = []
    for board in board_dirs():
        try:
            now = status(board.name)
        except BenchError as error:
            now = BoardStatus(name=board.name, state=Presence.LOST, message=str(error))
        if now.state is not Presence.DOWN:
            found.append(now)
    return found


def up(options: BoardOptions) -> UpResult:
    """Bring a board up, powered off; success if it is up with the same options.

    Raises UsageError if it is up with other options or a port is taken, BenchError if its daemon
    does not start.
    """
    board = BoardDir.of(options.name)
    board.create()
    with board.turn():
        if board.daemon_alive():
            now = BoardStatus.model_validate(ask(board, "status"))
            running = BoardOptions.model_validate_json(board.options.read_bytes())
            if different := options.differences(running):
                raise UsageError(
                    f"board {options.name} is up with other options: {'; '.join(different)}",
                    f"Run `farm virtual down --name {options.name}` first.",
                )
            return UpResult(now, already=True, was_lost=False)
        was_lost = status(options.name).state is Presence.LOST
        _start_daemon(board, options)
        now = BoardStatus.model_validate(ask(board, "status"))
    return UpResult(now, already=False, was_lost=was_lost)


def _start_daemon(board: BoardDir, options: BoardOptions) -> None:
    # The bus loads what only a daemon needs; `status` is asked often.
    from farm.virtual.usb_bus import without_bus

    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    ready, tell = os.pipe()
    try:
        with board.daemon_log.open("wb") as log:
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "farm.virtual.daemon"),
                    *(str(board.root), options.model_dump_json(), str(tell)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=without_bus(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)},
                pass_fds=[tell],
                start_new_session=True,
            )
        os.close(tell)
        tell = -1
        readable, _, _ = select.select([ready], [], [], _UP_DEADLINE_S)
        # The line is shorter than PIPE_BUF: it comes at once or, from a dead daemon, never.
        line = os.read(ready, select.PIPE_BUF) if readable else b""
    finally:
        os.close(ready)
        if tell >= 0:
            os.close(tell)
    if not line:
        what = "ended" if readable else f"was not ready within {_UP_DEADLINE_S:g} s"
        raise BenchError(
            f"board {board.name}: its daemon {what}",
            part="board",
            next_step=f"See {board.daemon_log}.",
        )
    answer = json.loads(line)
    if not answer["ok"]:
        raise error_from_json(answer)


def down(name: str) -> bool:
    """Take a board down, or clean up a lost one; False if there was none.

    A daemon that does not answer is killed. Raises BenchError if even that has no effect.
    """
    board = BoardDir.of(name)
    if not board.root.is_dir():
        return False
    with board.turn():
        if board.daemon_alive():
            try:
                ask(board, "down")
                return True
            except BenchError:
                _kill_daemon(board)
        was_there = board.state.exists() or board.options.exists()
        if was_there:
            log = EventLog(board.events)
            log.add("lost", message="found by `farm virtual down`")
            log.close()
        board.forget()
        return was_there


def _kill_daemon(board: BoardDir) -> None:
    last = _stored(board)
    if last is not None and last.pid is not None and board.daemon_alive():
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(last.pid)
            try:
                os.kill(last.pid, signal.SIGKILL)
                select.select([process], [], [], _KILL_DEADLINE_S)
            finally:
                os.close(process)
    if board.daemon_alive():
        raise BenchError(f"board {board.name}: its daemon does not end", part="board")
