"""QMP, QEMU's control protocol (docs/interop/qmp-spec.txt): commands, answers and events.

Left out: out-of-band execution and capability choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from farm.errors import BenchError

Event = dict[str, Any]


class QmpConnection:
    """One QMP session over a connected socket; ``on_event`` gets each event, in order."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()

    async def open(self, connection: socket.socket, deadline_s: float) -> None:
        """Take the greeting and enter command mode; raises BenchError when QEMU is not there."""
        try:
            async with asyncio.timeout(deadline_s):
                reader, self._writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
                greeting = await reader.readline()
        except (OSError, TimeoutError) as error:
            raise BenchError(f"QEMU did not answer on QMP: {error!r}", part="board") from error
        if b'"QMP"' not in greeting:
            raise BenchError("QEMU ended before its QMP greeting", part="board")
        self._task = asyncio.create_task(self._read(reader))
        await self.execute("qmp_capabilities", deadline_s)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                message = json.loads(line)
                if "event" in message:
                    self._on_event(message)
                    continue
                waiting = self._answers.pop(message.get("id", 0), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(BenchError("QEMU closed QMP", part="board"))
        self._answers.clear()
        self.closed.set()

    async def execute(self, command: str, deadline_s: float, **arguments: Any) -> Any:
        """The command's return value; raises BenchError on refusal, loss or a passed deadline."""
        if self._writer is None or self.closed.is_set():
            raise BenchError(f"QMP {command}: QEMU is gone", part="board")
        self._number += 1
        number = self._number
        request = {"execute": command, "id": number}
        if arguments:
            request["arguments"] = arguments
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(deadline_s):
                message = await answer
        except TimeoutError:
            raise BenchError(
                f"QMP {command}: no answer within {deadline_s:g} s", part="board"
            ) from None
        finally:
            self._answers.pop(number, None)
        if "error" in message:
            raise BenchError(f"QMP {command}: {message['error'].get('desc')}", part="board")
        return message["return"]

    def close(self) -> None:
        """Close the session."""
        if self._writer is not None:
            self._writer.close()
