"""The chip's own half of Sahara: the boot ROM that wants a programmer, and crash mode.

Source: the packet tables of linux-msm/qdl and mainline's drivers/bus/mhi/host/sahara.c (lengths and
offsets written out here, word by word), the region table of Qualcomm's ramdump tools.
Left out: image authentication beyond a magic number, command 8 and above of command mode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from farm.virtual.usb_device import Device

IMAGE_PROGRAMMER = 13
ELF_MAGIC = b"\x7fELF"
_IMAGE_PIECE_BYTES = 4096
_DATA_PIECE_BYTES = 1 << 20
_GOODBYE_S = 0.3
_TABLE_ADDRESS = 0x0146_B000
_PROGRAMMER_LIMIT_BYTES = 4 << 20

_STATUS_INVALID_COMMAND = 0x01
_STATUS_READ_ERROR = 0x0D
_STATUS_INVALID_MEMORY_READ = 0x19
_STATUS_NO_MEMORY_DEBUG = 0x1B
_STATUS_INVALID_IMAGE = 0x09


class Memory(Protocol):
    """The board's memory, by physical address."""

    def spans(self) -> Sequence[tuple[int, int, str, str]]:
        """(base, length, description, file name) of what crash mode offers."""

    def read(self, address: int, length: int) -> bytes | None:
        """So many bytes, None where nothing is."""


@dataclass(frozen=True)
class ChipIdentity:
    """What command mode tells."""

    serial: int
    hardware_id: int
    public_key_hash: bytes


class _Restart(Exception):
    """The session begins again with HELLO."""


class SaharaDevice:
    """One session after another, until ``on_reset`` or ``on_programmer`` is called.

    ``memory`` is None in the boot ROM, which wants a programmer; crash mode has it.
    """

    def __init__(
        self,
        identity: ChipIdentity,
        memory: Memory | None,
        *,
        on_reset: Callable[[], None],
        on_programmer: Callable[[bytes], None],
    ) -> None:
        self._identity = identity
        self._memory = memory
        self._on_reset = on_reset
        self._on_programmer = on_programmer
        self._table = b""
        self._reads = 0
        self._ended = False

    def run(self, device: Device) -> None:
        """Serve ``device`` until it is reset or unplugged."""
        self._table = self._make_table(device)
        swallow = device.faults.swallow_hello
        while not self._ended:
            try:
                if not swallow:
                    self._hello(device)
                swallow = False
                self._session(device)
            except _Restart:
                continue

    # -- packets, word by word

    def _hello(self, device: Device) -> None:
        offered = 0 if self._memory is None else 2
        version = 1 if device.faults.narrow else 3
        words = [0x01, 0x30, version, 1, 0x400, offered, 1, 2, 3, 4, 5, 6]
        device.send(struct.pack("<12I", *words))

    def _refuse(self, device: Device, status: int) -> None:
        device.send(struct.pack("<4I", 0x04, 0x10, IMAGE_PROGRAMMER, status))

    def _session(self, device: Device) -> None:
        packet = device.receive(4096)
        command = self._command(device, packet)
        if command != 0x02 or len(packet) != 0x30:
            self._other(device, command)
            raise _Restart
        mode = struct.unpack_from("<I", packet, 20)[0]
        if mode == 2:
            self._memory_debug(device)
        elif mode == 3:
            self._command_mode(device)
        elif mode == 0 and self._memory is None:
            self._want_programmer(device)
        else:
            self._refuse(device, 0x1C)
            raise _Restart

    def _command(self, device: Device, packet: bytes) -> int:
        if len(packet) < 8 or struct.unpack_from("<I", packet, 4)[0] != len(packet):
            self._refuse(device, 0x05)
            raise _Restart
        return int(struct.unpack_from("<I", packet)[0])

    def _other(self, device: Device, command: int) -> None:
        """RESET and RESET_STATE are heard in every state."""
        if command == 0x07:
            device.send(struct.pack("<2I", 0x08, 0x08))
            self._ended = True
            device.to_host.wait_idle(_GOODBYE_S)
            self._on_reset()
        elif command == 0x13 and not device.faults.narrow:
            return
        else:
            self._refuse(device, _STATUS_INVALID_COMMAND)

    # -- crash mode

    def _make_table(self, device: Device) -> bytes:
        spans = [] if self._memory is None else list(self._memory.spans())
        table = b""
        for number, (base, length, description, name) in enumerate(spans):
            raw = name.encode()
            if device.faults.hostile_names:
                evil = (b"../../../../etc/pwn", b"/dev/null", b"a\x1b[2J\xff\n;rm", b"", b"..")
                raw = evil[number % len(evil)]
            text = description.encode()
            if device.faults.narrow:
                table += struct.pack("<III20s20s", 1, base, min(length, 0xFFFF_F000), text, raw)
            else:
                table += struct.pack("<QQQ20s20s", 1, base, length, text, raw)
        return table

    def _memory_debug(self, device: Device) -> None:
        if self._memory is None:
            self._refuse(device, _STATUS_NO_MEMORY_DEBUG)
            raise _Restart
        size = len(self._table)
        if device.faults.narrow:
            device.send(struct.pack("<4I", 0x09, 0x10, _TABLE_ADDRESS, size))
        else:
            device.send(struct.pack("<2I2Q", 0x10, 0x18, _TABLE_ADDRESS, size))
        while True:
            packet = device.receive(4096)
            command = self._command(device, packet)
            if command == 0x0A and len(packet) == 0x10:
                address, length = struct.unpack_from("<2I", packet, 8)
            elif command == 0x11 and len(packet) == 0x18 and not device.faults.narrow:
                address, length = struct.unpack_from("<2Q", packet, 8)
            else:
                self._other(device, command)
                raise _Restart
            self._send_memory(device, address, length)

    def _send_memory(self, device: Device, address: int, length: int) -> None:
        self._reads += 1
        refused = device.faults.refuse_read_at == self._reads
        if refused:
            granted = min(device.faults.refuse_after, length)
            for at in range(0, granted, _DATA_PIECE_BYTES):
                size = min(_DATA_PIECE_BYTES, granted - at)
                device.send_stream(self._read(address + at, size) or bytes(size))
            self._refuse(device, _STATUS_READ_ERROR)
            raise _Restart
        if not length or self._read(address, 1) is None:
            self._refuse(device, _STATUS_INVALID_MEMORY_READ)
            raise _Restart
        if self._read(address + length - 1, 1) is None:
            self._refuse(device, _STATUS_INVALID_MEMORY_READ)
            raise _Restart
        for at in range(0, length, _DATA_PIECE_BYTES):
            piece = self._read(address + at, min(_DATA_PIECE_BYTES, length - at))
            if piece is None:
                self._refuse(device, _STATUS_INVALID_MEMORY_READ)
                raise _Restart
            device.send_stream(piece)
        device.end_stream()

    def _read(self, address: int, length: int) -> bytes | None:
        # The table may be asked for together with what lies behind it.
        offset = address - _TABLE_ADDRESS
        if 0 <= offset < 0x1000 and offset + length <= 0x1000:
            return self._table.ljust(0x1000, b"\0")[offset : offset + length]
        return None if self._memory is None else self._memory.read(address, length)

    # -- boot ROM

    def _want_programmer(self, device: Device) -> None:
        head = self._ask_image(device, 0, 64)
        if not head.startswith(ELF_MAGIC):
            self._refuse(device, _STATUS_INVALID_IMAGE)
            raise _Restart
        # e_phoff, e_phentsize, e_phnum of a 64-bit ELF; then the segments in the file.
        table, entry, count = (
            struct.unpack_from("<Q", head, 32)[0],
            *struct.unpack_from("<2H", head, 54),
        )
        size = table + entry * count
        if entry != 56 or not 0 < count <= 32 or size > _PROGRAMMER_LIMIT_BYTES:
            self._refuse(device, _STATUS_INVALID_IMAGE)
            raise _Restart
        segments = self._ask_image(device, table, entry * count)
        for number in range(count):
            offset = struct.unpack_from("<Q", segments, number * entry + 8)[0]
            length = struct.unpack_from("<Q", segments, number * entry + 32)[0]
            size = max(size, offset + length)
        if size > _PROGRAMMER_LIMIT_BYTES:
            self._refuse(device, _STATUS_INVALID_IMAGE)
            raise _Restart
        image = b""
        while len(image) < size:
            piece = min(_IMAGE_PIECE_BYTES, size - len(image))
            image += self._ask_image(device, len(image), piece)
        device.send(struct.pack("<4I", 0x04, 0x10, IMAGE_PROGRAMMER, 0))
        packet = device.receive(4096)
        if self._command(device, packet) != 0x05 or len(packet) != 0x08:
            self._other(device, struct.unpack_from("<I", packet)[0])
            raise _Restart
        device.send(struct.pack("<3I", 0x06, 0x0C, 1))
        self._ended = True
        self._on_programmer(image)

    def _ask_image(self, device: Device, offset: int, length: int) -> bytes:
        if device.faults.narrow:
            words = struct.pack("<5I", 0x03, 0x14, IMAGE_PROGRAMMER, offset, length)
        else:
            words = struct.pack("<2I3Q", 0x12, 0x20, IMAGE_PROGRAMMER, offset, length)
        device.send(words)
        data = device.receive_exactly(length)
        # A RESET instead of data: a program that starts over.
        if len(data) == 8 and length != 8 and data == struct.pack("<2I", 0x07, 0x08):
            self._other(device, 0x07)
        return data

    # -- command mode

    def _command_mode(self, device: Device) -> None:
        device.send(struct.pack("<2I", 0x0B, 0x08))
        while True:
            packet = device.receive(4096)
            command = self._command(device, packet)
            if command == 0x0C:
                raise _Restart
            if command != 0x0D:
                self._other(device, command)
                raise _Restart
            asked = struct.unpack_from("<I", packet, 8)[0]
            answers = {
                1: struct.pack("<I", self._identity.serial),
                2: struct.pack("<Q", self._identity.hardware_id) * 3,
                3: self._identity.public_key_hash,
            }
            if asked not in answers:
                self._refuse(device, 0x1F)
                raise _Restart
            device.send(struct.pack("<4I", 0x0E, 0x10, asked, len(answers[asked])))
            if self._command(device, device.receive(4096)) != 0x0F:
                self._refuse(device, _STATUS_INVALID_COMMAND)
                raise _Restart
            device.send(answers[asked])
