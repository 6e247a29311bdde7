"""Byte links to a serial port: each reads in a thread of its own and pushes what arrives.

RFC2217 (with telnet, RFC 854) is pyserial's client, whose thread hands on single bytes through a
queue: about 0.3 MB/s. Only its read loop is replaced here by one that works in bulk. Source:
pyserial-labgrid 3.5, serial/rfc2217.py. Left out: modem lines.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

import serial
from serial import rfc2217

from farm.errors import BenchError, UsageError

OnBytes = Callable[[bytes], None]
OnLost = Callable[[str], None]

_CHUNK_BYTES = 1 << 16
_CONNECT_DEADLINE_S = 5.0
_JOIN_DEADLINE_S = 1.0
_SUBNEGOTIATION_LIMIT_BYTES = 1 << 12
_CLOSED = "the connection was closed"


class Link(Protocol):
    """An open serial port; the callbacks come from its thread."""

    def write(self, data: bytes) -> None:
        """Send all of ``data``; raises BenchError(part="serial")."""

    def set_break(self, on: bool) -> None:
        """Begin or end a BREAK; raises BenchError(part="serial") or UsageError."""

    def close(self) -> None:
        """Close; returns within 2 s and never raises."""


def cannot_open(name: str, reason: object, next_step: str = "") -> BenchError:
    """The error of a serial port that does not open."""
    return BenchError(
        f"cannot open the serial port {name}: {reason}",
        part="serial",
        next_step=next_step or "Check that the port exists and that nothing else has it open.",
    )


def _write_failed(name: str, reason: object) -> BenchError:
    return BenchError(f"the serial port {name} is gone: {reason}", part="serial")


def _keep_alive(connection: socket.socket) -> None:
    """Notice within about ten seconds that the other host has died without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class _BulkSerial(rfc2217.Serial):  # type: ignore[misc]  # pyserial has no types
    """pyserial's RFC2217 client with a read loop that hands on whole chunks."""

    _socket: Any
    _thread: Any
    _rfc2217_options: Any

    def __init__(self, on_bytes: OnBytes, on_lost: OnLost) -> None:
        self._on_bytes = on_bytes
        self._on_lost = on_lost
        super().__init__()

    def reset_input_buffer(self) -> None:
        """Nothing: what the server holds back is evidence."""

    def rfc2217_set_control(self, value: bytes) -> None:
        """Send without the 0.1 s that pyserial waits where it does not wait for an answer."""
        self._rfc2217_options["control"].set(value)

    def reset_output_buffer(self) -> None:
        """Nothing: nobody has sent anything yet."""

    def close(self) -> None:
        """Close; pyserial's own closes the socket under its reader, who may then sleep on."""
        self.is_open = False
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(_JOIN_DEADLINE_S)
            self._thread = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _telnet_read_loop(self) -> None:
        reason = _CLOSED
        pending = b""
        try:
            _keep_alive(self._socket)
            while self.is_open:
                try:
                    data = self._socket.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                plain, pending = self._decode(pending + data)
                if plain:
                    self._on_bytes(plain)
        except (OSError, ValueError, serial.SerialException) as error:
            reason = str(error)
        finally:
            self._on_lost(reason)

    def _decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Act on telnet commands in ``data``; return the plain bytes and the unfinished rest."""
        at = data.find(rfc2217.IAC)
        if at < 0:
            return data, b""
        plain = bytearray(data[:at])
        while at < len(data):
            if data[at : at + 1] != rfc2217.IAC:
                end = data.find(rfc2217.IAC, at)
                end = len(data) if end < 0 else end
                plain += data[at:end]
                at = end
                continue
            used = self._command(data, at, plain)
            if used == 0:
                return bytes(plain), data[at:]
            at += used
        return bytes(plain), b""

    def _command(self, data: bytes, at: int, plain: bytearray) -> int:
        """Act on the command at ``at``; return its length in bytes, 0 when it is unfinished."""
        command = data[at + 1 : at + 2]
        if not command:
            return 0
        if command == rfc2217.IAC:
            plain += rfc2217.IAC
            return 2
        if command == rfc2217.SB:
            end = data.find(rfc2217.IAC + rfc2217.SE, at + 2)
            while end > 0 and _is_doubled(data, end, at + 2):
                end = data.find(rfc2217.IAC + rfc2217.SE, end + 1)
            if end < 0:
                if len(data) - at > _SUBNEGOTIATION_LIMIT_BYTES:
                    raise ValueError("the server sent a telnet subnegotiation without an end")
                return 0
            option = data[at + 2 : end].replace(rfc2217.IAC_DOUBLED, rfc2217.IAC)
            # pySerial falls over the answer to a question that it has not asked.
            with contextlib.suppress(TypeError):
                self._telnet_process_subnegotiation(option)
            return end + 2 - at
        if command in (rfc2217.DO, rfc2217.DONT, rfc2217.WILL, rfc2217.WONT):
            option = data[at + 2 : at + 3]
            if not option:
                return 0
            self._telnet_negotiate_option(command, option)
            return 3
        self._telnet_process_command(command)
        return 2


def _is_doubled(data: bytes, iac: int, start: int) -> bool:
    """Whether the IAC at ``iac`` is the second half of a doubled one."""
    run = 0
    while iac - run > start and data[iac - run - 1 : iac - run] == rfc2217.IAC:
        run += 1
    return run % 2 == 1


class Rfc2217Link:
    """A serial port on a network server; ``timeout_s`` bounds the negotiation."""

    def __init__(
        self,
        host: str,
        port: int,
        speed: int,
        on_bytes: OnBytes,
        on_lost: OnLost,
        timeout_s: float = 3.0,
    ) -> None:
        self.name = f"rfc2217://{host}:{port}"
        greeting = bytearray()
        opened = False

        def hand_on(data: bytes) -> None:
            if not opened:
                greeting.extend(data[:200])
            on_bytes(data)

        def lost(reason: str) -> None:
            if opened:
                on_lost(reason)

        self._serial = _BulkSerial(hand_on, lost)
        # Many servers answer SET-CONTROL late, differently or not at all.
        self._serial.port = f"{self.name}?ign_set_control&timeout={timeout_s}"
        self._serial.baudrate = speed
        try:
            self._serial.open()
        except (serial.SerialException, OSError, ValueError) as error:
            words = greeting.decode("ascii", errors="backslashreplace").strip()
            raise cannot_open(
                self.name,
                f"the server says {words!r}" if words else error,
                "Check that the serial server runs and that nothing else is connected to it.",
            ) from error
        opened = True
        if not self._serial._thread.is_alive():
            self.close()
            raise cannot_open(self.name, _CLOSED)

    def write(self, data: bytes) -> None:
        """Send all of ``data``; raises BenchError."""
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError, AttributeError) as error:
            raise _write_failed(self.name, error) from error

    def set_break(self, on: bool) -> None:
        """Begin or end a BREAK; raises BenchError."""
        try:
            self._serial.break_condition = on
        except (serial.SerialException, OSError, AttributeError) as error:
            raise _write_failed(self.name, error) from error

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(serial.SerialException, OSError):
            self._serial.close()


class SocketLink:
    """A serial port behind a bare TCP socket, which has no way to send a BREAK."""

    def __init__(self, host: str, port: int, on_bytes: OnBytes, on_lost: OnLost) -> None:
        self.name = f"{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=_CONNECT_DEADLINE_S)
        except OSError as error:
            raise cannot_open(self.name, error) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(self._socket)
        self._socket.settimeout(None)
        self._on_bytes = on_bytes
        self._on_lost = on_lost
        self._thread = threading.Thread(target=self._read, name=f"serial {self.name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        reason = _CLOSED
        try:
            while data := self._socket.recv(_CHUNK_BYTES):
                self._on_bytes(data)
        except OSError as error:
            reason = str(error)
        finally:
            self._on_lost(reason)

    def write(self, data: bytes) -> None:
        """Send all of ``data``; raises BenchError."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise _write_failed(self.name, error) from error

    def set_break(self, on: bool) -> None:
        """Raise UsageError: bare TCP carries bytes only."""
        raise UsageError(
            f"the serial port {self.name} has the protocol raw, which cannot send a BREAK",
            "Serve it with protocol rfc2217, or take `break` off the board's features.",
        )

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(_JOIN_DEADLINE_S)


class TtyLink:
    """A serial port of this computer, opened for this process alone."""

    def __init__(self, path: str, speed: int, on_bytes: OnBytes, on_lost: OnLost) -> None:
        self.name = path
        try:
            self._serial: Any = serial.Serial(path, baudrate=speed, timeout=None, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise cannot_open(path, error) from error
        self._on_bytes = on_bytes
        self._on_lost = on_lost
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._read, name=f"serial {path}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        port = self._serial.fileno()
        reason = _CLOSED
        try:
            while True:
                ready, _, _ = select.select([port, self._wake_read], [], [])
                if self._wake_read in ready:
                    break
                data = os.read(port, _CHUNK_BYTES)
                if not data:
                    reason = "the device has disappeared"
                    break
                self._on_bytes(data)
        except OSError as error:
            reason = str(error)
        finally:
            self._on_lost(reason)

    def write(self, data: bytes) -> None:
        """Send all of ``data``; raises BenchError."""
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError) as error:
            raise _write_failed(self.name, error) from error

    def set_break(self, on: bool) -> None:
        """Begin or end a BREAK; raises BenchError."""
        try:
            self._serial.break_condition = on
        except (serial.SerialException, OSError) as error:
            raise _write_failed(self.name, error) from error

    def close(self) -> None:
        """Close the port."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")
        self._thread.join(_JOIN_DEADLINE_S)
        with contextlib.suppress(serial.SerialException, OSError):
            self._serial.close()
        os.close(self._wake_write)
        os.close(self._wake_read)
