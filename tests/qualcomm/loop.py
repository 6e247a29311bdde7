"""The host's protocols wired to the board's boot programs, packet by packet, without a bus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from farm.virtual.usb_device import Device, Face
from farm.virtual.usb_faults import UsbFaults
from farm.virtual.usb_pipe import OverflowedError, UnpluggedError


class LoopTransport:
    """What libusb gives, over the endpoints of a device in this process."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.packet_bytes = device.face.packet_bytes
        self.read_bytes = 0

    @property
    def name(self) -> str:
        return "loop"

    def read(self, size_bytes: int, deadline_s: float) -> bytes:
        pipe = self._device.to_host
        try:
            pieces = pipe.take(size_bytes, time.monotonic() + deadline_s, threading.Event())
        except TimeoutError:
            # libusb hands on what has come before the timeout.
            pieces = pipe.take_part(size_bytes)
            if not pieces:
                raise
        except OverflowedError as error:
            raise ConnectionError("babble") from error
        except UnpluggedError as error:
            raise ConnectionError("unplugged") from error
        data = b"".join(pieces)
        self.read_bytes += len(data)
        return data

    def write(self, data: bytes, deadline_s: float) -> None:
        try:
            if not self._device.to_device.offer(data):
                raise TimeoutError
        except UnpluggedError as error:
            raise ConnectionError("unplugged") from error

    def close(self) -> None:
        return


def plugged(
    program: Callable[[Device], None], faults: UsbFaults, product: int = 0x900E
) -> tuple[Device, LoopTransport]:
    face = Face(
        vendor=0x05C6,
        product=product,
        triple=(0xFF, 0xFF, 0x10),
        manufacturer="Qualcomm CDMA Technologies MSM",
        product_text="QUSB_BULK_CID:0001_SN:0BADCAFE",
        packet_bytes=faults.packet_bytes,
    )
    device = Device(face, faults)
    device.start(program, lambda: None)
    return device, LoopTransport(device)
