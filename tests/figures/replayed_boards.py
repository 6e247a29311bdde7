"""The other side of the replay: consoles that are played, and power ports that start them.

    python -m tests.figures.replayed_boards COUNT FOLDER

Every second board's line is RFC2217, by the virtual board's own server, the others are bare TCP.
While its power is on, a board says the recording again and again, at the speed at which it was
recorded; each begins at another place of it. FOLDER/boards.json names the ports when all are
there; FOLDER/sent.json tells at SIGTERM how many bytes each line carried, and their sha256.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

from farm.virtual.power_port import power_handler
from farm.virtual.serial_line import SerialLine
from tests.figures.console_recording import Piece, read_recording

_PIPE_BYTES = 1 << 20


class RawLine:
    """A serial line behind a bare TCP socket."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Start serving."""
        await asyncio.start_server(self._arrived, sock=listener)

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while await reader.read(1 << 16):
            pass

    async def say(self, data: bytes) -> None:
        """Send bytes of the board."""
        assert self._writer is not None, "the power was switched on before the console was opened"
        self._writer.write(data)
        await self._writer.drain()


class Rfc2217Line:
    """A serial line behind the virtual board's server."""

    def __init__(self, stem: Path) -> None:
        self._line = SerialLine(stem, self._no_break, self._no_event, None)
        self._uart = os.open(stem.with_suffix(".out"), os.O_WRONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._uart, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def _no_break(self) -> None:
        """Nobody listens."""

    def _no_event(self, name: str, **fields: object) -> None:
        """Nobody keeps them."""

    async def serve(self, listener: socket.socket) -> None:
        """Start serving."""
        await self._line.serve(listener)

    async def say(self, data: bytes) -> None:
        """Send bytes of the board."""
        assert self._line.client_peer is not None, "the power came before the console"
        assert os.write(self._uart, data) == len(data), "the line's buffer is full"


class ReplayedBoard:
    """A board that says what it is told while its power is on."""

    def __init__(self, line: RawLine | Rfc2217Line, pieces: list[Piece]) -> None:
        self.line = line
        self._pieces = pieces
        self._playing: asyncio.Task[None] | None = None
        self.sent_bytes = 0
        self.late_s = 0.0
        self.sha256 = hashlib.sha256()

    def relay_is_on(self) -> bool:
        """Whether the power is on."""
        return self._playing is not None

    async def switch_relay(self, on: bool) -> None:
        """Switch the power."""
        if on and self._playing is None:
            self._playing = asyncio.create_task(self._play())
        elif not on and self._playing is not None:
            playing, self._playing = self._playing, None
            playing.cancel()
            # One that has failed says so here.
            with contextlib.suppress(asyncio.CancelledError):
                await playing

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for piece in self._pieces:
                due += piece.after_s
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                self.late_s = max(self.late_s, loop.time() - due)
                # Between these there is no place at which a task can be cancelled.
                self.sha256.update(piece.data)
                self.sent_bytes += len(piece.data)
                await self.line.say(piece.data)


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def serve(count: int, folder: Path) -> None:
    """Serve until SIGTERM."""
    pieces = read_recording()
    boards: list[ReplayedBoard] = []
    said = []
    for number in range(count):
        protocol = ("raw", "rfc2217")[number % 2]
        line = RawLine() if protocol == "raw" else Rfc2217Line(folder / f"line-{number}")
        first = number * len(pieces) // count
        board = ReplayedBoard(line, [*pieces[first:], *pieces[:first]])
        serial, power = _listener(), _listener()
        ports = {"serial": serial.getsockname()[1], "power": power.getsockname()[1]}
        said.append({"protocol": protocol, **ports})
        await line.serve(serial)
        await asyncio.start_server(power_handler(board), sock=power)
        boards.append(board)
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    ready = folder / "boards.part"
    ready.write_text(json.dumps(said))
    ready.rename(folder / "boards.json")
    await ending.wait()
    sent = [
        {"bytes": one.sent_bytes, "sha256": one.sha256.hexdigest(), "late_s": round(one.late_s, 3)}
        for one in boards
    ]
    (folder / "sent.json").write_text(json.dumps(sent))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
