"""Sahara: what a Qualcomm boot ROM and its crash mode speak.

Source: the packets that linux-msm/qdl, fwupd and mainline's drivers/bus/mhi/host/sahara document.
All numbers little-endian; each packet begins with u32 command, u32 length including the header.

What the device sends is checked against the declaration of its packet: command, declared length,
real length. Memory comes as raw data without a header, so an END_OF_IMAGE with a status, which
comes instead of data when the device refuses, is looked for and is never taken for data.
Left out: streaming images, packets above version 2.9.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, TypeVar

from farm.errors import BenchError, DeadlineError
from farm.qualcomm.transport import PART, Bytes, Pipe, RefusedError, Transport, ViolationError

_HEADER = struct.Struct("<2I")

STEP_DEADLINE_S = 5.0
HELLO_DEADLINE_S = 1.0
CHUNK_BYTES = 1 << 20
# A read of 16 bytes could not be told from an END_OF_IMAGE.
SMALLEST_READ_BYTES = 64
_PACKET_LIMIT_BYTES = 4096
# Slower than any link: what is slower only pretends to go on.
_SLOWEST_BYTES_PER_S = 1 << 16
# A boot ROM reads headers twice at most, and little else again.
_UPLOAD_TIMES = 4
_QUIET_S = 0.2
_CONNECT_ATTEMPTS = 3
_VERSION = 2
_COMPATIBLE = 1


class Command(IntEnum):
    """The commands, either direction."""

    HELLO = 0x01
    HELLO_RESPONSE = 0x02
    READ_DATA = 0x03
    END_OF_IMAGE = 0x04
    DONE = 0x05
    DONE_RESPONSE = 0x06
    RESET = 0x07
    RESET_RESPONSE = 0x08
    MEMORY_DEBUG = 0x09
    MEMORY_READ = 0x0A
    COMMAND_READY = 0x0B
    SWITCH_MODE = 0x0C
    EXECUTE = 0x0D
    EXECUTE_RESPONSE = 0x0E
    EXECUTE_DATA = 0x0F
    MEMORY_DEBUG_64 = 0x10
    MEMORY_READ_64 = 0x11
    READ_DATA_64 = 0x12
    RESET_STATE = 0x13


class SaharaMode(IntEnum):
    """What the device offers in HELLO and the host asks for in its response."""

    IMAGE_PENDING = 0
    IMAGE_COMPLETE = 1
    MEMORY_DEBUG = 2
    COMMAND = 3


class Execute(IntEnum):
    """What command mode can be asked."""

    SERIAL_NUMBER = 1
    HARDWARE_ID = 2
    PUBLIC_KEY_HASH = 3


_STATUS = {
    0x01: "invalid command",
    0x02: "protocol mismatch",
    0x03: "invalid target protocol",
    0x04: "invalid host protocol",
    0x05: "invalid packet size",
    0x06: "unexpected image id",
    0x07: "invalid header size",
    0x08: "invalid data size",
    0x09: "invalid image type",
    0x0A: "invalid transmit length",
    0x0B: "invalid receive length",
    0x0C: "general transfer error",
    0x0D: "read data error",
    0x13: "image authentication failed",
    0x19: "invalid memory read",
    0x1A: "invalid data transfer size",
    0x1B: "memory debug is not supported",
    0x1C: "invalid mode switch",
    0x1D: "command execution failed",
    0x1E: "invalid command parameter",
    0x1F: "unsupported client command",
    0x20: "image failed authentication",
}


def status_text(status: int) -> str:
    """A status code in words, unknown ones in hex."""
    return f"{_STATUS[status]} ({status:#x})" if status in _STATUS else f"status {status:#x}"


@dataclass(frozen=True)
class Packet:
    """A packet; subclasses declare command and layout once, for both directions."""

    COMMAND: ClassVar[Command]
    BODY: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """The packet's bytes."""
        values = [getattr(self, field.name) for field in fields(self)]
        length = _HEADER.size + self.BODY.size
        return _HEADER.pack(self.COMMAND, length) + self.BODY.pack(*values)


def _packet(command: Command, body: str) -> Callable[[type[_P]], type[_P]]:
    def declare(kind: type[_P]) -> type[_P]:
        kind.COMMAND = command
        kind.BODY = struct.Struct(f"<{body}")
        _BY_COMMAND[command] = kind
        return kind

    return declare


_P = TypeVar("_P", bound=Packet)
_BY_COMMAND: dict[int, type[Packet]] = {}


@_packet(Command.HELLO, "4I24x")
@dataclass(frozen=True)
class Hello(Packet):
    """The device is there; ``mode`` is what it offers."""

    version: int
    compatible: int
    max_length: int
    mode: int


@_packet(Command.HELLO_RESPONSE, "4I24x")
@dataclass(frozen=True)
class HelloResponse(Packet):
    """What the host chooses."""

    version: int
    compatible: int
    status: int
    mode: int


@_packet(Command.READ_DATA, "3I")
@dataclass(frozen=True)
class ReadData(Packet):
    """The device asks for a piece of an image."""

    image: int
    offset: int
    length: int


@_packet(Command.READ_DATA_64, "3Q")
@dataclass(frozen=True)
class ReadData64(Packet):
    """The same, 64-bit."""

    image: int
    offset: int
    length: int


@_packet(Command.END_OF_IMAGE, "2I")
@dataclass(frozen=True)
class EndOfImage(Packet):
    """The image is whole, or ``status`` says why not; also the device's word for any refusal."""

    image: int
    status: int


@_packet(Command.DONE, "")
@dataclass(frozen=True)
class Done(Packet):
    """The host has no more to send."""


@_packet(Command.DONE_RESPONSE, "I")
@dataclass(frozen=True)
class DoneResponse(Packet):
    """``status`` 0: another image is wanted, 1: complete."""

    status: int


@_packet(Command.RESET, "")
@dataclass(frozen=True)
class Reset(Packet):
    """Reset the board."""


@_packet(Command.RESET_RESPONSE, "")
@dataclass(frozen=True)
class ResetResponse(Packet):
    """It will."""


@_packet(Command.RESET_STATE, "")
@dataclass(frozen=True)
class ResetState(Packet):
    """Begin again with HELLO; version 2.9 and later."""


@_packet(Command.MEMORY_DEBUG, "2I")
@dataclass(frozen=True)
class MemoryDebug(Packet):
    """Where the region table lies, 32-bit."""

    table_address: int
    table_length: int


@_packet(Command.MEMORY_DEBUG_64, "2Q")
@dataclass(frozen=True)
class MemoryDebug64(Packet):
    """Where the region table lies, 64-bit."""

    table_address: int
    table_length: int


@_packet(Command.MEMORY_READ, "2I")
@dataclass(frozen=True)
class MemoryRead(Packet):
    """Send memory, 32-bit."""

    address: int
    length: int


@_packet(Command.MEMORY_READ_64, "2Q")
@dataclass(frozen=True)
class MemoryRead64(Packet):
    """Send memory, 64-bit."""

    address: int
    length: int


@_packet(Command.COMMAND_READY, "")
@dataclass(frozen=True)
class CommandReady(Packet):
    """Command mode is on."""


@_packet(Command.SWITCH_MODE, "I")
@dataclass(frozen=True)
class SwitchMode(Packet):
    """Leave command mode."""

    mode: int


@_packet(Command.EXECUTE, "I")
@dataclass(frozen=True)
class ExecuteCommand(Packet):
    """Ask."""

    command: int


@_packet(Command.EXECUTE_RESPONSE, "2I")
@dataclass(frozen=True)
class ExecuteResponse(Packet):
    """How long the answer is."""

    command: int
    length: int


@_packet(Command.EXECUTE_DATA, "I")
@dataclass(frozen=True)
class ExecuteData(Packet):
    """Send the answer."""

    command: int


class NotAPacketError(ValueError):
    """Bytes that are no Sahara packet."""


def parse(data: Bytes) -> Packet:
    """The packet that ``data`` is, all of it; raises NotAPacketError that says what is wrong."""
    if len(data) < _HEADER.size:
        raise NotAPacketError(f"{len(data)} bytes are no packet")
    command, length = _HEADER.unpack_from(data)
    kind = _BY_COMMAND.get(command)
    if kind is None:
        raise NotAPacketError(f"command {command:#x} is unknown")
    wanted = _HEADER.size + kind.BODY.size
    if length != wanted or len(data) != wanted:
        raise NotAPacketError(
            f"{kind.COMMAND.name} has {wanted} bytes; it says {length} and came with {len(data)}"
        )
    return kind(*kind.BODY.unpack_from(data, _HEADER.size))


def refusal_at_end(data: Bytes | memoryview) -> EndOfImage | None:
    """The END_OF_IMAGE with a status other than 0 that ``data`` ends with; None if none does."""
    size = _HEADER.size + EndOfImage.BODY.size
    if len(data) < size:
        return None
    try:
        found = parse(bytes(data[-size:]))
    except NotAPacketError:
        return None
    return found if isinstance(found, EndOfImage) and found.status else None


@dataclass(frozen=True)
class MemoryTable:
    """Where the region table is; ``wide`` tells the 64-bit form."""

    address: int
    length: int
    wide: bool


Sink = Callable[[memoryview], object]


class Sahara:
    """The host's side of one Sahara session."""

    def __init__(self, transport: Transport, *, deadline_s: float = STEP_DEADLINE_S) -> None:
        self.pipe = Pipe(transport)
        self._deadline_s = deadline_s
        self.hello: Hello | None = None
        self._wide = True

    # -- packets

    def _send(self, packet: Packet, step: str) -> None:
        self.pipe.write(packet.pack(), self._deadline_s, step)

    def _receive(self, step: str, deadline_s: float | None = None) -> Packet:
        wait_s = self._deadline_s if deadline_s is None else deadline_s
        data = self.pipe.read_some(_PACKET_LIMIT_BYTES, wait_s, step)
        try:
            return parse(data)
        except NotAPacketError as error:
            raise ViolationError(
                self.pipe.name,
                step,
                f"no Sahara packet came but {bytes(data[:16]).hex(' ')}: {error}",
                next_step="A programmer may be running already, or another program has read along.",
            ) from None

    def _expect(self, kind: type[_P], step: str) -> _P:
        packet = self._receive(step)
        if isinstance(packet, kind):
            return packet
        raise self._unexpected(packet, step, kind.COMMAND.name)

    def _unexpected(self, packet: Packet, step: str, wanted: str) -> BenchError:
        if isinstance(packet, EndOfImage):
            return RefusedError(self.pipe.name, step, status_text(packet.status))
        return ViolationError(
            self.pipe.name, step, f"{packet.COMMAND.name} came instead of {wanted}"
        )

    # -- hello

    def connect(self) -> Hello | None:
        """Take the device's HELLO, whatever state an earlier program has left it in.

        Returns None when the device is silent because its HELLO was read by somebody else: then
        the response goes out unasked, which such a device waits for. Raises UsbLostError.
        """
        for attempt in range(_CONNECT_ATTEMPTS):
            try:
                data = self.pipe.read_some(
                    _PACKET_LIMIT_BYTES, HELLO_DEADLINE_S, "waiting for HELLO"
                )
            except DeadlineError:
                if attempt == _CONNECT_ATTEMPTS - 1:
                    break
                self._ask_anew()
                continue
            try:
                packet = parse(data)
            except NotAPacketError:
                # What an interrupted transfer has left in the device's queue.
                self.pipe.drain(_QUIET_S)
                self._ask_anew()
                continue
            if isinstance(packet, Hello):
                self.hello = packet
                return packet
        self.hello = None
        return None

    def _ask_anew(self) -> None:
        try:
            self._send(ResetState(), "asking for a new HELLO")
        except DeadlineError:
            return

    def _choose(self, mode: SaharaMode) -> None:
        version = _VERSION if self.hello is None else min(self.hello.version, _VERSION)
        self._send(HelloResponse(version, _COMPATIBLE, 0, mode), f"choosing {mode.name}")

    # -- memory debug

    def memory_debug(self) -> MemoryTable:
        """Enter memory debug; returns where the region table is; raises RefusedError."""
        step = "entering memory debug"
        self._choose(SaharaMode.MEMORY_DEBUG)
        packet = self._receive(step)
        if isinstance(packet, Hello):
            # It was not waiting for a response after all, and has begun again.
            self.hello = packet
            self._choose(SaharaMode.MEMORY_DEBUG)
            packet = self._receive(step)
        if isinstance(packet, MemoryDebug64):
            self._wide = True
            return MemoryTable(packet.table_address, packet.table_length, wide=True)
        if isinstance(packet, MemoryDebug):
            self._wide = False
            return MemoryTable(packet.table_address, packet.table_length, wide=False)
        raise self._unexpected(packet, step, "MEMORY_DEBUG")

    def read_into(self, address: int, length: int, sink: Sink, *, chunk_bytes: int) -> None:
        """Read memory in pieces of ``chunk_bytes``, each handed to ``sink`` when it is whole.

        Raises RefusedError with the offset from ``address``, DeadlineError, UsbLostError.
        """
        done = 0
        while done < length:
            count = min(chunk_bytes, length - done)
            sink(self._read_piece(address + done, count, done))
            done += count

    def read(self, address: int, length: int) -> bytes:
        """Memory at ``address``; raises as ``read_into`` does."""
        if length < SMALLEST_READ_BYTES:
            return self.read(address, SMALLEST_READ_BYTES)[:length]
        data = bytearray()
        self.read_into(address, length, data.extend, chunk_bytes=CHUNK_BYTES)
        return bytes(data)

    def _read_piece(self, address: int, length: int, base: int) -> memoryview:
        step = f"reading {length} bytes at {address:#x}"
        kind = MemoryRead64 if self._wide else MemoryRead
        if address + length > 1 << (64 if self._wide else 32):
            raise RefusedError(
                self.pipe.name,
                step,
                f"the device reads {64 if self._wide else 32}-bit addresses only",
                offset=base,
            )
        self._send(kind(address, length), step)
        first = self.pipe.read(length, self._deadline_s, step, offset=base)
        # Nearly always the piece comes whole, and is handed on as it is.
        view = memoryview(first)
        if len(first) < length:
            view = self._rest(view, length, step, base)
        if refusal_at_end(view) is not None and not self._tail_is_data(address, view):
            raise RefusedError(
                self.pipe.name, step, "the data ends with a refusal", offset=base + length - 16
            )
        return view

    def _rest(self, first: memoryview, length: int, step: str, base: int) -> memoryview:
        """What comes after a transfer that was shorter than asked for."""
        view = memoryview(bytearray(length))
        view[: len(first)] = first
        got = len(first)
        self._check_refusal(view[:got], length, step, base)
        allowed_s = self._deadline_s + length / _SLOWEST_BYTES_PER_S
        end = time.monotonic() + allowed_s
        while got < length:
            if time.monotonic() > end:
                raise DeadlineError(
                    f"{self.pipe.name}: {step}, {base + got} bytes into it",
                    part=PART,
                    deadline_s=round(allowed_s, 3),
                )
            data = self.pipe.read(length - got, self._deadline_s, step, offset=base + got)
            view[got : got + len(data)] = data
            got += len(data)
            self._check_refusal(view[:got], length, step, base)
        return view

    def _check_refusal(self, got: memoryview, wanted: int, step: str, base: int) -> None:
        if len(got) == wanted:
            return
        refusal = refusal_at_end(got)
        if refusal is not None:
            raise RefusedError(
                self.pipe.name,
                step,
                status_text(refusal.status),
                offset=base + len(got) - 16,
                next_step="That address is not readable; take the region table's word.",
            )

    def _tail_is_data(self, address: int, view: memoryview) -> bool:
        """Whether memory itself holds what looks like a refusal: read it again, framed anew."""
        size = min(len(view), SMALLEST_READ_BYTES)
        start = address + len(view) - size
        kind = MemoryRead64 if self._wide else MemoryRead
        step = "reading the end once more"
        again = bytearray()
        try:
            self._send(kind(start, size - 8), step)
            while len(again) < size - 8:
                again += self.pipe.read(size - 8 - len(again), self._deadline_s, step)
        except BenchError:
            return False
        return bytes(again) == bytes(view[len(view) - size : len(view) - 8])

    # -- programmer

    def upload(self, programmer: bytes, progress: Callable[[int, int], None] | None = None) -> None:
        """Give the boot ROM a programmer and let it start; raises RefusedError, ViolationError."""
        self._choose(SaharaMode.IMAGE_PENDING)
        sent = asked = hellos = 0
        while True:
            step = f"sending the programmer, {sent} of {len(programmer)} bytes"
            packet = self._receive(step)
            if isinstance(packet, Hello) and hellos < _CONNECT_ATTEMPTS:
                hellos += 1
                self.hello = packet
                self._choose(SaharaMode.IMAGE_PENDING)
            elif isinstance(packet, ReadData | ReadData64):
                asked += packet.length
                if not packet.length or asked > _UPLOAD_TIMES * len(programmer):
                    raise ViolationError(
                        self.pipe.name,
                        step,
                        f"the device asks on and on: {packet.length} bytes now, {asked} in all",
                        offset=packet.offset,
                    )
                self._send_piece(programmer, packet, step)
                sent = max(sent, packet.offset + packet.length)
                if progress is not None:
                    progress(sent, len(programmer))
            elif isinstance(packet, EndOfImage):
                if packet.status:
                    raise RefusedError(
                        self.pipe.name,
                        step,
                        status_text(packet.status),
                        offset=sent,
                        next_step="Is this the programmer for this chip, and signed for it?",
                    )
                break
            else:
                raise self._unexpected(packet, step, "READ_DATA")
        step = "starting the programmer"
        self._send(Done(), step)
        self._expect(DoneResponse, step)

    def _send_piece(self, programmer: bytes, ask: ReadData | ReadData64, step: str) -> None:
        end = ask.offset + ask.length
        if end > len(programmer):
            raise ViolationError(
                self.pipe.name,
                step,
                f"the device asks for bytes up to {end}, the programmer has {len(programmer)}",
                offset=ask.offset,
                next_step="This file is no programmer for this chip.",
            )
        piece = programmer[ask.offset : end]
        self.pipe.write(piece, self._deadline_s, step)
        if piece and len(piece) % self.pipe.transport.packet_bytes == 0:
            self.pipe.write(b"", self._deadline_s, step)

    # -- command mode

    def execute(self, command: Execute) -> bytes:
        """Ask in command mode and come back to HELLO; raises RefusedError."""
        step = f"asking for {command.name}"
        self._choose(SaharaMode.COMMAND)
        self._expect(CommandReady, step)
        self._send(ExecuteCommand(command), step)
        answer = self._expect(ExecuteResponse, step)
        if answer.command != command or answer.length > _PACKET_LIMIT_BYTES:
            raise ViolationError(
                self.pipe.name, step, f"answer {answer.command:#x} of {answer.length} bytes"
            )
        self._send(ExecuteData(command), step)
        data = bytearray()
        while len(data) < answer.length:
            data += self.pipe.read(answer.length - len(data), self._deadline_s, step)
        mode = SaharaMode.IMAGE_PENDING if self.hello is None else self.hello.mode
        self._send(SwitchMode(mode), step)
        self.hello = self._expect(Hello, step)
        return bytes(data)

    def reset(self) -> None:
        """Reset the board; a device that vanishes at once has done so too."""
        step = "resetting the board"
        self._send(Reset(), step)
        try:
            self._expect(ResetResponse, step)
        except BenchError as error:
            if isinstance(error, RefusedError | ViolationError | DeadlineError):
                raise
