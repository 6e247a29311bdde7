"""The board's serial line as an RFC2217 server: telnet, COM port control and BREAK over TCP.

The telnet and RFC2217 states are pyserial's ``PortManager``. What it does byte by byte, this
module does in bulk: a megabyte per second of console must pass. One client at a time: another one
gets the line when the first is gone, dead peers are found by TCP keepalive. What the board sends
while nobody is connected is lost, as on a real line. Left out: modem lines, which the board has
not got, and line parameters, which are accepted and change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from serial import rfc2217

_IAC = b"\xff"
_CHUNK_BYTES = 1 << 18
_CLIENT_BUFFER_BYTES = 64 << 20
_PIPE_BYTES = 1 << 20
_PIPE_AT_BAUD_BYTES = 4096
_INPUT_QUEUE_BYTES = 1 << 20
_BAUD_SLICE_S = 0.01
_BITS_PER_CHARACTER = 10
# QEMU writes single bytes: waking up for each takes more time than the guest has for itself.
_GATHER_S = 0.002
_TAKEOVER_S = 0.5
_DRAIN_DEADLINE_S = 1.0
_DRAIN_STEP_S = 0.002


class Break:
    """A BREAK condition between the bytes that a client sends."""


@dataclass
class _Port:
    """The serial port that PortManager believes to control; collects what the client sends."""

    baudrate: int = 115200
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1
    xonxoff: bool = False
    rtscts: bool = False
    dtr: bool = True
    rts: bool = True
    cts: bool = True
    dsr: bool = True
    ri: bool = False
    cd: bool = True
    sent: list[bytearray | Break] = field(default_factory=list)

    def add(self, data: bytes) -> None:
        if not self.sent or isinstance(self.sent[-1], Break):
            self.sent.append(bytearray())
        cast(bytearray, self.sent[-1]).extend(data)

    @property
    def break_condition(self) -> bool:
        return False

    @break_condition.setter
    def break_condition(self, on: bool) -> None:
        if on:
            self.sent.append(Break())

    def reset_input_buffer(self) -> None:
        """Nothing: what was sent is on its way to the client, who drops it himself."""

    def reset_output_buffer(self) -> None:
        """Nothing: what was received is on its way to the UART."""


class _Client(asyncio.Protocol):
    """One TCP connection to the serial line."""

    def __init__(self, line: SerialLine) -> None:
        self._line = line
        self._port = _Port()
        self._manager: Any = None
        self.transport: asyncio.Transport | None = None
        self.peer = "?"
        self.active = False
        self.writable = True
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        self.transport.set_write_buffer_limits(high=_CLIENT_BUFFER_BYTES)
        self.transport.pause_reading()
        self._line.arrived(self)

    def begin(self) -> None:
        """Become the line's client."""
        assert self.transport is not None
        self.active = True
        self._manager = rfc2217.PortManager(self._port, self.transport)
        self.transport.resume_reading()

    def refuse(self, reason: str) -> None:
        """Tell the client why not, and hang up."""
        assert self.transport is not None
        self.transport.write(reason.encode() + b"\r\n")
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.active:
            return
        manager = self._manager
        if _IAC in data or manager.mode != rfc2217.M_NORMAL or manager.suboption is not None:
            for byte in manager.filter(data):
                self._port.add(byte)
        else:
            self._port.add(data)
        sent, self._port.sent = self._port.sent, []
        self._line.received(self, sent)

    def send(self, data: bytes) -> None:
        """Send bytes of the board to the client."""
        if self.transport is not None:
            self.transport.write(data.replace(_IAC, _IAC + _IAC))

    def pause_writing(self) -> None:
        self.writable = False
        self._line.update_reading()

    def resume_writing(self) -> None:
        self.writable = True
        self._line.update_reading()

    def eof_received(self) -> bool:
        if self.transport is not None:
            self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._line.left(self)


class SerialLine:
    """Carries bytes between QEMU's UART, by two FIFOs, and one RFC2217 client at a time.

    ``on_break`` sends a BREAK into the UART and returns when it is there; ``on_event`` is called
    with an event's name and fields. ``baud`` bounds what the board can send; None does not.
    """

    def __init__(
        self,
        stem: Path,
        on_break: Callable[[], Awaitable[None]],
        on_event: Callable[..., None],
        baud: int | None,
    ) -> None:
        self._on_break = on_break
        self._on_event = on_event
        self._baud = baud
        self._client: _Client | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._input: asyncio.Queue[bytearray | Break] = asyncio.Queue()
        self._input_size_bytes = 0
        self._reading = False
        self._resting = False
        self.powered = False
        self.silent = False
        self._to_uart = self._fifo(stem.with_suffix(".in"))
        self._from_uart = self._fifo(stem.with_suffix(".out"))
        size = _PIPE_BYTES if baud is None else _PIPE_AT_BAUD_BYTES
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._from_uart, fcntl.F_SETPIPE_SZ, size)

    @staticmethod
    def _fifo(path: Path) -> int:
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def serve(self, listener: socket.socket) -> None:
        """Start serving on a listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), sock=listener)
        self._spawn(self._feed_uart())
        self.update_reading()

    def close(self) -> None:
        """Hang up and serve no more."""
        if self._server is not None:
            self._server.close()
        self.hang_up()
        for task in self._tasks:
            task.cancel()

    def hang_up(self) -> None:
        """Disconnect the client: the board died under it."""
        if self._client is not None and self._client.transport is not None:
            self._client.transport.abort()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def arrived(self, client: _Client) -> None:
        """A connection was made; it becomes the client when the line is free."""
        if self._client is None:
            self._take(client)
        else:
            self._spawn(self._take_over(client, self._client))

    def _take(self, client: _Client) -> None:
        self._client = client
        self._on_event("client-connected", peer=client.peer)
        client.begin()
        self.update_reading()

    async def _take_over(self, client: _Client, owner: _Client) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TAKEOVER_S):
                await owner.gone.wait()
        if self._client is None and not client.gone.is_set():
            self._take(client)
            return
        self._on_event("client-refused", peer=client.peer)
        client.refuse(f"this serial line is in use by {owner.peer}")

    def left(self, client: _Client) -> None:
        """A connection is gone."""
        if client is self._client:
            self._client = None
            self._on_event("client-disconnected", peer=client.peer)
            self.update_reading()

    @property
    def client_peer(self) -> str | None:
        """Who is connected, as host:port."""
        return None if self._client is None else self._client.peer

    def update_reading(self) -> None:
        """Read from the UART unless the client is behind, or the line's speed says wait."""
        wanted = not self._resting and (self._client is None or self._client.writable)
        if wanted == self._reading:
            return
        self._reading = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(self._from_uart, self._read_uart)
        else:
            loop.remove_reader(self._from_uart)

    def _read_uart(self) -> None:
        limit = _CHUNK_BYTES
        if self._baud is not None:
            limit = max(1, int(self._baud / _BITS_PER_CHARACTER * _BAUD_SLICE_S))
        try:
            data = os.read(self._from_uart, limit)
        except BlockingIOError:
            return
        if self._client is not None and not self.silent:
            self._client.send(data)
        self._resting = True
        self.update_reading()
        rest_s = _GATHER_S
        if self._baud is not None:
            rest_s = len(data) * _BITS_PER_CHARACTER / self._baud
        asyncio.get_running_loop().call_later(rest_s, self._rested)

    def say(self, text: str) -> None:
        """What a boot program writes to the UART, QEMU not being there."""
        if self._client is not None and not self.silent:
            self._client.send(text.replace("\n", "\r\n").encode())

    def _rested(self) -> None:
        self._resting = False
        self.update_reading()

    def received(self, client: _Client, sent: list[bytearray | Break]) -> None:
        """What a client sent, in order."""
        for piece in sent:
            self._input.put_nowait(piece)
            self._input_size_bytes += len(piece) if isinstance(piece, bytearray) else 0
        if self._input_size_bytes > _INPUT_QUEUE_BYTES and client.transport is not None:
            client.transport.pause_reading()

    async def _feed_uart(self) -> None:
        while True:
            piece = await self._input.get()
            if isinstance(piece, Break):
                if self.powered:
                    await self._wait_taken()
                    self._on_event("break")
                    await self._on_break()
                continue
            await self._write_uart(bytes(piece))
            self._input_size_bytes -= len(piece)
            if self._input_size_bytes <= _INPUT_QUEUE_BYTES and self._client is not None:
                transport = self._client.transport
                if transport is not None and not transport.is_closing():
                    transport.resume_reading()

    async def _write_uart(self, data: bytes) -> None:
        """Write, as fast as the UART takes it; bytes to a board without power are lost."""
        while data and self.powered:
            try:
                data = data[os.write(self._to_uart, data) :]
            except BlockingIOError:
                await self._wait_writable()

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._to_uart, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._to_uart)

    async def _wait_taken(self) -> None:
        """Wait until QEMU has read all that was sent: a pipe has no event for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_DEADLINE_S):
                while self._unread_size_bytes():
                    await asyncio.sleep(_DRAIN_STEP_S)

    def _unread_size_bytes(self) -> int:
        answer = fcntl.ioctl(self._to_uart, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def reset_input(self) -> None:
        """Lose what the UART had not read: it was reset, or lost its power."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._to_uart, _CHUNK_BYTES):
                pass
