"""The daemon's control socket, the client's side: one request and its answer, JSON lines.

{"command": "status"}  →  {"ok": true, "answer": {...}}
                       or {"ok": false, "exit_code": 2, "message": "...", "next_step": "..."}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from farm.errors import BenchError, FarmError, UsageError
from farm.virtual.layout import BoardDir

ANSWER_DEADLINE_S = 20.0


def error_to_json(error: FarmError) -> dict[str, Any]:
    """An error as an answer carries it."""
    return {
        "ok": False,
        "exit_code": error.exit_code,
        "message": error.message,
        "next_step": error.next_step,
    }


def error_from_json(answer: dict[str, Any]) -> FarmError:
    """The error that an answer carries."""
    if answer["exit_code"] == UsageError.exit_code:
        return UsageError(answer["message"], answer["next_step"])
    return BenchError(answer["message"], part="board", next_step=answer["next_step"])


def ask(board: BoardDir, command: str, **fields: Any) -> Any:
    """The daemon's answer; raises its error, or BenchError when there is none in time."""
    request = json.dumps({"command": command, **fields}).encode() + b"\n"
    try:
        with board.connect(ANSWER_DEADLINE_S) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as reader:
                line = reader.readline()
    except OSError as error:
        raise BenchError(
            f"board {board.name}: its daemon does not answer: {error}",
            part="board",
            next_step=f"See {board.daemon_log}; `farm virtual down --name {board.name}` ends it.",
        ) from error
    if not line.endswith(b"\n"):
        raise BenchError(f"board {board.name}: its daemon ended meanwhile", part="board")
    answer = json.loads(line)
    if not answer["ok"]:
        raise error_from_json(answer)
    return answer["answer"]


def follow(board: BoardDir) -> Iterator[dict[str, Any]]:
    """The board's events from the first on, as they come, until its daemon ends."""
    with board.connect(ANSWER_DEADLINE_S) as connection:
        connection.sendall(b'{"command": "follow"}\n')
        # The next event may be hours away: only the daemon's end ends this.
        connection.settimeout(None)
        with connection.makefile("rb") as reader:
            for line in reader:
                yield json.loads(line)
