"""What a USB device says a board is: boot ROM, crash mode or fastboot.

Source: linux-msm/qdl (usb identities, serial number in iProduct as
``QUSB_BULK_CID:..._SN:XXXXXXXX``), AOSP fastboot (interface ff/42/03).
Left out: diagnostic and modem ports; 05c6:90db, which is crash mode on some boards only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

QUALCOMM_VENDOR = 0x05C6

_SERIAL = re.compile(r"_SN:([0-9A-Fa-f]{1,16})\b")


class Mode(StrEnum):
    """What runs on the board instead of a kernel."""

    EDL = "edl"
    CRASH = "crash"
    FASTBOOT = "fastboot"


# Product id, interface protocols: 90db is left out, for there it can be a modem.
_QUALCOMM = {
    0x9008: (Mode.EDL, frozenset({0xFF, 0x10, 0x11})),
    0x900E: (Mode.CRASH, frozenset({0xFF, 0x10, 0x11, 0x13})),
    0x901D: (Mode.CRASH, frozenset({0xFF, 0x10, 0x11, 0x13})),
}
_FASTBOOT = (0xFF, 0x42, 0x03)


@dataclass(frozen=True)
class Identity:
    """One device: its mode, ``path`` (bus and ports), serial number and interface number."""

    mode: Mode
    vendor: int
    product: int
    path: str
    address: int
    serial: str
    interface: int

    def __str__(self) -> str:
        serial = f" {self.serial}" if self.serial else ""
        return f"usb {self.path}{serial} ({self.mode.value})"

    def matches(self, *, serial: str = "", path: str = "") -> bool:
        """Whether this is the board with that serial number and that path, where given."""
        return (not serial or self.serial.lower() == serial.lower()) and (
            not path or self.path == path
        )


def serial_in_product(product_text: str) -> str:
    """The serial number in a boot ROM's iProduct; empty if there is none."""
    found = _SERIAL.search(product_text)
    return found[1] if found else ""


def identify(
    *,
    vendor: int,
    product: int,
    interfaces: Iterable[tuple[int, int, int, int]],
    path: str,
    address: int,
    product_text: Callable[[], str],
    serial_text: Callable[[], str],
) -> Identity | None:
    """The identity of a device; None for one that is no boot mode.

    ``interfaces`` are (number, class, subclass, protocol); the texts are asked for only when
    needed, since that opens the device.
    """
    for number, *triple in interfaces:
        if tuple(triple) == _FASTBOOT:
            serial = serial_text()
            return Identity(Mode.FASTBOOT, vendor, product, path, address, serial, number)
        known = _QUALCOMM.get(product) if vendor == QUALCOMM_VENDOR else None
        if known is not None and triple[:2] == [0xFF, 0xFF] and triple[2] in known[1]:
            serial = serial_in_product(product_text()) or serial_text()
            return Identity(known[0], vendor, product, path, address, serial, number)
    return None
