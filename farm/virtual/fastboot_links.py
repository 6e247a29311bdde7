"""The two ways to a bootloader: a USB device and a TCP port.

Source: AOSP, system/core/fastboot/README.md: over TCP both sides send ``FB01``, then each packet
is preceded by its length, 64-bit big-endian; a download's data may come in several packets.
Left out: UDP.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from farm.virtual.fastboot_device import Fastboot
from farm.virtual.usb_device import Device

_COMMAND_BYTES = 64
_PACKET_LIMIT_BYTES = 64 << 20
_UPLOAD_PIECE_BYTES = 1 << 20


class UsbLink:
    """A bootloader's USB device."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def receive(self, size_bytes: int = 4096) -> bytes:
        """The next packet."""
        return self._device.receive(size_bytes)

    def receive_exactly(self, size_bytes: int) -> bytes:
        """The data of a download."""
        return self._device.receive_exactly(size_bytes)

    def send(self, data: bytes) -> None:
        """An answer."""
        self._device.send(data)
        self._device.to_host.wait_idle(1.0)

    def send_data(self, data: bytes) -> None:
        """The data of an upload: the host knows its length."""
        for at in range(0, len(data), _UPLOAD_PIECE_BYTES):
            self._device.send_stream(data[at : at + _UPLOAD_PIECE_BYTES])
        self._device.end_stream()


def serve_usb(device: Device, fastboot: Fastboot) -> None:
    """Serve commands until the device is unplugged."""
    link = UsbLink(device)
    while True:
        packet = link.receive()
        fastboot.command(link, packet[:_COMMAND_BYTES].decode("utf-8", "replace").rstrip("\0"))


class _TcpLink:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._connection.recv(min(1 << 20, size - len(data)))
            if not piece:
                raise ConnectionError
            data += piece
        return bytes(data)

    def handshake(self) -> bool:
        self._connection.sendall(b"FB01")
        return self._exactly(4)[:2] == b"FB"

    def receive(self, size_bytes: int = 4096) -> bytes:
        size = struct.unpack(">Q", self._exactly(8))[0]
        if size > _PACKET_LIMIT_BYTES:
            raise ConnectionError
        return self._exactly(size)

    def receive_exactly(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            data += self.receive()
        return data[:size_bytes]

    def send(self, data: bytes) -> None:
        self._connection.sendall(struct.pack(">Q", len(data)) + data)

    def send_data(self, data: bytes) -> None:
        self.send(data)


class TcpPort:
    """The bootloader's TCP port: there all the time, answered only while a bootloader runs."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(True)
        self._listener = listener
        self._fastboot: Fastboot | None = None
        self._connection: socket.socket | None = None
        threading.Thread(target=self._run, name="fastboot-tcp", daemon=True).start()

    def serve(self, fastboot: Fastboot | None) -> None:
        """Answer with ``fastboot`` from now on; None hangs up."""
        self._fastboot = fastboot
        connection = self._connection
        if fastboot is None and connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more."""
        self.serve(None)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._connection = connection
                self._talk(connection)
            self._connection = None

    def _talk(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _TcpLink(connection)
        if self._fastboot is None or not link.handshake():
            return
        while (fastboot := self._fastboot) is not None:
            text = link.receive()[:_COMMAND_BYTES].decode("utf-8", "replace")
            fastboot.command(link, text)
