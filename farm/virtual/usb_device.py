"""A USB device of the board: its descriptors, and the two bulk endpoints that its program uses.

Source: USB 2.0 chapter 9 (device, configuration, interface, endpoint and string descriptors), USB
3.0 9.6.7 (companion of an endpoint of 1024-byte packets).
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from farm.virtual.usb_faults import UsbFaults
from farm.virtual.usb_pipe import BulkPipe, UnpluggedError

EP_IN = 0x81
EP_OUT = 0x01
_LAST_TRANSFER_DEADLINE_S = 0.1
_RATE_SLICE_BYTES = 1 << 16


@dataclass(frozen=True)
class Face:
    """What a device shows of itself; ``triple`` is its interface's class, subclass, protocol."""

    vendor: int
    product: int
    triple: tuple[int, int, int]
    manufacturer: str
    product_text: str
    serial_text: str = ""
    interface_text: str = ""
    packet_bytes: int = 512

    def strings(self) -> list[str]:
        """The texts by index; index 0 is the list of languages."""
        return ["", self.manufacturer, self.product_text, self.serial_text, self.interface_text]

    def device_descriptor(self) -> bytes:
        """The device descriptor."""
        fast = self.packet_bytes > 512
        return struct.pack(
            "<BBHBBBBHHHBBBB",
            *(18, 1, 0x0300 if fast else 0x0200, 0, 0, 0, 9 if fast else 64),
            *(self.vendor, self.product, 0x0000),
            *(1, 2, 3 if self.serial_text else 0, 1),
        )

    def configuration_descriptor(self) -> bytes:
        """The configuration with its one interface and two bulk endpoints."""
        companion = bytes((6, 0x30, 0, 0, 0, 0)) if self.packet_bytes > 512 else b""
        text = 4 if self.interface_text else 0
        body = bytes((9, 4, 0, 0, 2, *self.triple, text))
        for address in (EP_IN, EP_OUT):
            body += struct.pack("<BBBBHB", 7, 5, address, 2, self.packet_bytes, 0) + companion
        return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 1, 1, 0, 0x80, 250) + body

    def string_descriptor(self, index: int) -> bytes | None:
        """A string descriptor; None if there is none of that index."""
        if index == 0:
            return bytes((4, 3, 0x09, 0x04))
        texts = self.strings()
        if index >= len(texts) or not texts[index]:
            return None
        # A descriptor's length is one byte: longer texts are cut, as real devices do.
        raw = texts[index].encode("utf-16-le")[:252]
        return bytes((2 + len(raw), 3)) + raw


class Device:
    """A device that is plugged in: what its program calls, and what a host gets at.

    The program runs in a thread of its own, ``start`` to ``unplug``.
    """

    def __init__(self, face: Face, faults: UsbFaults) -> None:
        self.face = face
        self.faults = faults
        self.to_host = BulkPipe(face.packet_bytes)
        self.to_device = BulkPipe(face.packet_bytes)
        self._cancel = threading.Event()
        self._moved_bytes = 0
        self._on_unplug: Callable[[], None] = lambda: None
        self._gone = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, program: Callable[[Device], None], on_unplug: Callable[[], None]) -> None:
        """Run ``program``; ``on_unplug`` is called when a fault pulls the plug."""
        self._on_unplug = on_unplug

        def run() -> None:
            try:
                program(self)
            except (UnpluggedError, InterruptedError):
                return

        self._thread = threading.Thread(target=run, name="usb-program", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Take the device off the bus; every wait ends."""
        self._gone.set()
        self._cancel.set()
        self.to_host.unplug()
        self.to_device.unplug()

    @property
    def gone(self) -> bool:
        """Whether it is unplugged."""
        return self._gone.is_set()

    # -- the program's side

    def receive(self, size_bytes: int = 1 << 20) -> bytes:
        """The next transfer of the host's that is not empty; raises UnpluggedError."""
        while True:
            pieces = self.to_device.take(size_bytes, None, self._cancel)
            data = b"".join(pieces)
            if data:
                self._count(len(data))
                return data

    def receive_exactly(self, size_bytes: int) -> bytes:
        """So many bytes, over as many transfers as the host likes; raises UnpluggedError."""
        data = bytearray()
        packet = self.face.packet_bytes
        while len(data) < size_bytes:
            left = size_bytes - len(data)
            data += self.receive(min(1 << 20, -(-left // packet) * packet))
        return bytes(data)

    def send(self, data: bytes, *, zlp: bool = True) -> None:
        """One transfer to the host, with a ZLP if it needs one to end; raises UnpluggedError."""
        faults = self.faults
        if faults.leading_zlp:
            self.to_host.put(b"")
        if faults.missing_zlp:
            zlp = False
        for piece in faults.cut(data):
            self._paced(piece)
            last = piece is data or len(piece) % self.face.packet_bytes != 0
            self.to_host.put(piece, zlp=zlp if last else True)
        if faults.extra_zlp:
            self.to_host.put(b"")

    def send_stream(self, data: bytes) -> None:
        """A piece of a longer run of data, whose end the host knows by itself."""
        for piece in self.faults.cut(data):
            self._paced(piece)
            self.to_host.put(piece)

    def end_stream(self) -> None:
        """The end of a run of data: an extra ZLP, if that fault is on."""
        if self.faults.extra_zlp:
            self.to_host.put(b"")

    def _paced(self, piece: bytes) -> None:
        left = self.faults.left_to_unplug(self._moved_bytes)
        if left is not None and left < len(piece):
            # A packet that is cut off is dropped by the host: only whole ones count.
            if whole := left - left % self.face.packet_bytes:
                self.to_host.put(piece[:whole])
            self._moved_bytes += left
            self.to_host.wait_idle(_LAST_TRANSFER_DEADLINE_S)
            self._pull()
        self._count(len(piece))

    def _count(self, size_bytes: int) -> None:
        self._moved_bytes += size_bytes
        left = self.faults.left_to_unplug(self._moved_bytes)
        if left is not None and left < 0:
            self._pull()
        if self.faults.rate_mb_s:
            time.sleep(size_bytes / (self.faults.rate_mb_s * 1e6))

    def _pull(self) -> None:
        self.faults.unplug_at = None
        self.unplug()
        self._on_unplug()
        raise UnpluggedError
