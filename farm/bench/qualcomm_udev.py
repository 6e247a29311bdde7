"""The board's USB device as labgrid's udev manager finds it on this host.

A board shows no device at all while a kernel runs, and its cable is there all the same: the
resource is always available, and what the board shows is asked for when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attr
from labgrid.factory import target_factory
from labgrid.resource.udev import USBResource

from farm.qualcomm.identity import identify


def _interfaces(device: Any) -> list[tuple[int, int, int, int]]:
    """The interfaces of the device's configuration, out of its raw descriptors."""
    try:
        # libudev ends an attribute at its first NUL byte.
        raw = Path(device.sys_path, "descriptors").read_bytes()
    except OSError:
        return []
    found = []
    at = 0
    while at + 2 <= len(raw) and raw[at] >= 2:
        if raw[at + 1] == 4 and at + 9 <= len(raw):
            found.append((raw[at + 2], raw[at + 5], raw[at + 6], raw[at + 7]))
        at += raw[at]
    return found


def _text(device: Any, name: str) -> str:
    value = device.attributes.get(name)
    return value.decode("utf-8", "replace").strip() if value else ""


@target_factory.reg_resource
@attr.s(eq=False)
class QualcommUSBDevice(USBResource):  # type: ignore[misc]  # labgrid has no types
    """A Qualcomm boot mode or fastboot on this host, by ``serial`` or labgrid's ``match``.

    The serial number of EDL and crash mode is the one inside iProduct.
    """

    serial: str = attr.ib(default="", converter=str)
    host: str = attr.ib(default="", converter=str)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.match.setdefault("DEVTYPE", "usb_device")
        self.avail = True

    def filter_match(self, device: Any) -> bool:
        """Whether a udev device is a boot mode, and this board."""
        try:
            vendor = int(_text(device, "idVendor"), 16)
            product = int(_text(device, "idProduct"), 16)
        except ValueError:
            return False
        identity = identify(
            vendor=vendor,
            product=product,
            interfaces=_interfaces(device),
            path=str(device.sys_name),
            address=0,
            product_text=lambda: _text(device, "product"),
            serial_text=lambda: _text(device, "serial"),
        )
        return identity is not None and identity.matches(serial=self.serial)

    def try_match(self, device: Any) -> bool:
        """See labgrid."""
        self.avail = self.device is not None
        try:
            return bool(super().try_match(device))
        finally:
            self.avail = True
