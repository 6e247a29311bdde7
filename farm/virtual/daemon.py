"""The board's process: started by ``farm virtual up``, it survives whoever started it.

    python -m farm.virtual.daemon FOLDER OPTIONS_JSON READY_FD

One JSON line on READY_FD tells that the board is up, or why not. SIGTERM takes the board down;
SIGKILL takes QEMU along and leaves the state behind, from which others see that it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farm.errors import BenchError, FarmError, UsageError
from farm.virtual.board import Board
from farm.virtual.control import error_to_json
from farm.virtual.devicetree import prepare
from farm.virtual.events import EventLog, read_events
from farm.virtual.fastboot_links import TcpPort
from farm.virtual.flip import FlipRequest
from farm.virtual.layout import BoardDir
from farm.virtual.machine import find_qemu
from farm.virtual.options import BoardOptions
from farm.virtual.ports import bind_fastboot, bind_ports
from farm.virtual.power_port import HEAD_LIMIT_BYTES, power_handler

_REQUEST_DEADLINE_S = 10.0
_GOODBYE_DEADLINE_S = 2.0
_REQUEST_LIMIT_BYTES = 1 << 20


def _write_atomically(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class Daemon:
    """Serves one board until it is told to stop."""

    def __init__(self, folder: BoardDir, options: BoardOptions, lock: int, tcp: TcpPort) -> None:
        self._folder = folder
        self._options = options
        self._lock = lock
        self._events = EventLog(folder.events)
        self._board = Board(options, folder, self._events, self._save_state, tcp)
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def _save_state(self) -> None:
        _write_atomically(self._folder.state, self._board.status().model_dump_json())

    async def serve(
        self,
        control: socket.socket,
        serial: socket.socket,
        power: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        """Serve on three listening sockets; returns when the board is down."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        await self._board.line.serve(serial)
        servers = [
            await asyncio.start_server(
                power_handler(
                    self._board,
                    self._board.fastboot_key,
                    self._board.edl_strap,
                    self._board.power_key,
                ),
                sock=power,
                limit=HEAD_LIMIT_BYTES,
            ),
            await asyncio.start_unix_server(
                self._connected, sock=control, limit=_REQUEST_LIMIT_BYTES
            ),
        ]
        _write_atomically(self._folder.options, self._options.model_dump_json())
        self._save_state()
        self._events.add(
            "up",
            pid=os.getpid(),
            serial_port=self._options.serial_port,
            power_port=self._options.power_port,
        )
        on_ready()
        await self._stop.wait()
        for server in servers:
            server.close()
        await self._board.take_away()
        self._events.add("down")
        self._folder.forget()
        os.close(self._lock)
        self._stopped.set()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_GOODBYE_DEADLINE_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with asyncio.timeout(_REQUEST_DEADLINE_S):
                line = await reader.readline()
            if not line:
                return
            request = json.loads(line)
            if request["command"] == "follow":
                await self._follow(writer)
                return
            try:
                answer = {"ok": True, "answer": await self._execute(request)}
            except FarmError as error:
                answer = error_to_json(error)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError):
            return
        finally:
            writer.close()
            self._connections.discard(task)

    async def _execute(self, request: dict[str, Any]) -> Any:
        command = request["command"]
        if command == "power":
            await self._board.switch_relay(request["on"])
        elif command == "flip":
            self._board.arm_flip(FlipRequest(**request["flip"]))
        elif command == "silence":
            self._board.set_silence(request["on"])
        elif command == "hang":
            self._board.arm_hang()
        elif command == "stuck-relay":
            self._board.stick_relay()
        elif command == "usb":
            await self._board.set_usb_fault(request["fault"], request["value"])
        elif command == "press":
            button = {
                "fastboot": self._board.fastboot_key,
                "edl": self._board.edl_strap,
                "power": self._board.power_key,
            }
            await button[request["button"]].switch_relay(request["on"])
        elif command == "boot-with":
            self._board.boot_with(request["append"], request["ecc_size_bytes"], request["boots"])
        elif command == "reset":
            await self._board.reset()
        elif command == "clear":
            await self._board.clear_faults()
        elif command == "down":
            self._stop.set()
            await self._stopped.wait()
            return None
        elif command != "status":
            raise UsageError(f"the daemon knows no command {command!r}")
        return self._board.status().model_dump(mode="json")

    async def _follow(self, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for event in read_events(self._folder.events):
            queue.put_nowait(event)
        self._events.followers.add(queue.put_nowait)
        ending = asyncio.create_task(self._stopped.wait())
        ending.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (entry := await queue.get()) is not None:
                writer.write(json.dumps(entry).encode() + b"\n")
                await writer.drain()
        finally:
            self._events.followers.discard(queue.put_nowait)
            ending.cancel()


def _begin(folder: BoardDir, *, was_lost: bool) -> None:
    """A log tells of one life of the board, unless that did not end well."""
    if was_lost:
        log = EventLog(folder.events)
        log.add("lost", message="the daemon was killed, or the host went down; DRAM is lost")
        log.close()
    else:
        for file in (folder.events, folder.qemu_log):
            file.unlink(missing_ok=True)


async def _run(folder: BoardDir, options: BoardOptions, on_ready: Callable[[], None]) -> None:
    lock = folder.take_lock()
    if lock is None:
        raise BenchError(f"board {folder.name} is already up", part="board")
    find_qemu()
    prepare(options)
    serial, power = bind_ports(options)
    fastboot = bind_fastboot(options)
    options = options.model_copy(
        update={
            "serial_port": serial.getsockname()[1],
            "power_port": power.getsockname()[1],
            "fastboot_port": fastboot.getsockname()[1],
        }
    )
    was_lost = folder.state.exists()
    folder.forget()
    _begin(folder, was_lost=was_lost)
    control = folder.listen()
    control.setblocking(False)
    await Daemon(folder, options, lock, TcpPort(fastboot)).serve(control, serial, power, on_ready)


def main() -> None:
    """Run the daemon; the exit code is 0, or that of the error told on READY_FD."""
    folder, options = BoardDir(Path(sys.argv[1])), sys.argv[2]
    ready = os.fdopen(int(sys.argv[3]), "w")
    os.set_inheritable(ready.fileno(), False)
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def tell(answer: dict[str, Any]) -> None:
        # Who started us may be gone; the board is up all the same.
        with contextlib.suppress(OSError), ready:
            ready.write(json.dumps(answer) + "\n")

    try:
        asyncio.run(
            _run(folder, BoardOptions.model_validate_json(options), lambda: tell({"ok": True}))
        )
    except FarmError as error:
        if not ready.closed:
            tell(error_to_json(error))
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
