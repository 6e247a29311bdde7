"""Bulk endpoints of a real USB device, by pyusb over libusb."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from functools import partial
from typing import Any

import usb.core
import usb.util

from farm.errors import BenchError
from farm.qualcomm.identity import Identity, Mode, identify
from farm.qualcomm.transport import PART, Bytes, UsbLostError

_LOST = frozenset({errno.ENODEV, errno.ENOENT, errno.ESHUTDOWN, errno.EIO, errno.EPIPE})


@dataclass(frozen=True)
class Seen:
    """A device on the bus: its identity and what opens it."""

    identity: Identity
    device: Any


def _text(device: Any, index: int) -> str:
    if not index:
        return ""
    try:
        return str(usb.util.get_string(device, index) or "")
    except (usb.core.USBError, ValueError, NotImplementedError):
        return ""


def _path(device: Any) -> str:
    """The bus and port path as the kernel and udev write it: 1-2.3."""
    try:
        ports = device.port_numbers
    except (usb.core.USBError, NotImplementedError):
        ports = None
    return f"{device.bus}-{'.'.join(map(str, ports))}" if ports else f"{device.bus}-?"


def _interfaces(device: Any) -> list[tuple[int, int, int, int]]:
    found = []
    with contextlib.suppress(usb.core.USBError, NotImplementedError):
        for configuration in device:
            for one in configuration:
                found.append(
                    (
                        int(one.bInterfaceNumber),
                        int(one.bInterfaceClass),
                        int(one.bInterfaceSubClass),
                        int(one.bInterfaceProtocol),
                    )
                )
    return found


def devices() -> list[Seen]:
    """Every device on the bus that is a Qualcomm boot mode or a fastboot, in order of path."""
    found = []
    try:
        listed = list(usb.core.find(find_all=True) or ())
    except usb.core.NoBackendError as error:
        raise BenchError(
            "libusb is not there", part=PART, next_step="Install libusb-1.0-0."
        ) from error
    for device in listed:
        identity = identify(
            vendor=int(device.idVendor),
            product=int(device.idProduct),
            interfaces=_interfaces(device),
            path=_path(device),
            address=int(device.address),
            product_text=partial(_text, device, int(device.iProduct)),
            serial_text=partial(_text, device, int(device.iSerialNumber)),
        )
        if identity is not None:
            found.append(Seen(identity, device))
    return sorted(found, key=lambda one: (one.identity.path, one.identity.address))


def find(*, serial: str = "", path: str = "", modes: frozenset[Mode] | None = None) -> list[Seen]:
    """The devices with this serial number and USB path, where given, in one of ``modes``."""
    return [
        one
        for one in devices()
        if one.identity.matches(serial=serial, path=path)
        and (modes is None or one.identity.mode in modes)
    ]


class UsbTransport:
    """The claimed bulk endpoints of a device; use as a context manager or close it."""

    def __init__(self, seen: Seen) -> None:
        self._identity = seen.identity
        self._device = seen.device
        self._in, self._out, self.packet_bytes = self._endpoints()
        try:
            number = self._identity.interface
            with contextlib.suppress(NotImplementedError, usb.core.USBError):
                if self._device.is_kernel_driver_active(number):
                    self._device.detach_kernel_driver(number)
            usb.util.claim_interface(self._device, number)
        except usb.core.USBError as error:
            if error.errno == errno.EBUSY:
                raise BenchError(
                    f"{self.name}: another program holds the device",
                    part=PART,
                    next_step="ModemManager and qcserial take such devices; keep them off it.",
                ) from error
            raise UsbLostError(self.name, "claiming the interface", error) from error

    @property
    def name(self) -> str:
        """Path, serial number and mode of the device."""
        return str(self._identity)

    def _endpoints(self) -> tuple[int, int, int]:
        for configuration in self._device:
            for interface in configuration:
                if int(interface.bInterfaceNumber) != self._identity.interface:
                    continue
                bulk = [one for one in interface if (int(one.bmAttributes) & 3) == 2]
                into = [one for one in bulk if int(one.bEndpointAddress) & 0x80]
                out = [one for one in bulk if not int(one.bEndpointAddress) & 0x80]
                if into and out:
                    size = int(out[0].wMaxPacketSize) & 0x7FF
                    return int(into[0].bEndpointAddress), int(out[0].bEndpointAddress), size
        raise BenchError(f"{self.name}: the device has no pair of bulk endpoints", part=PART)

    def read(self, size_bytes: int, deadline_s: float) -> Bytes:
        """One transfer, as the array of bytes that pyusb makes; TimeoutError, ConnectionError."""
        try:
            return self._device.read(self._in, size_bytes, max(1, int(deadline_s * 1000)))  # type: ignore[no-any-return]  # pyusb has no types
        except usb.core.USBTimeoutError as error:
            raise TimeoutError from error
        except usb.core.USBError as error:
            raise self._lost(error) from error

    def write(self, data: bytes, deadline_s: float) -> None:
        """Send all of ``data``; raises TimeoutError, ConnectionError."""
        try:
            sent = self._device.write(self._out, data, max(1, int(deadline_s * 1000)))
        except usb.core.USBTimeoutError as error:
            raise TimeoutError from error
        except usb.core.USBError as error:
            raise self._lost(error) from error
        if sent != len(data):
            raise ConnectionError(f"only {sent} of {len(data)} bytes were taken")

    def _lost(self, error: Any) -> ConnectionError:
        what = "it was unplugged or reset" if error.errno in _LOST else str(error)
        return ConnectionError(what)

    def close(self) -> None:
        """Let go of the device."""
        with contextlib.suppress(usb.core.USBError):
            usb.util.release_interface(self._device, self._identity.interface)
        with contextlib.suppress(usb.core.USBError):
            usb.util.dispose_resources(self._device)

    def __enter__(self) -> UsbTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_device(
    *, serial: str = "", path: str = "", modes: frozenset[Mode], step: str
) -> UsbTransport:
    """Open the one device that matches; raises BenchError for none and for several."""
    found = find(serial=serial, path=path, modes=modes)
    wanted = " or ".join(sorted(mode.value for mode in modes))
    which = " ".join(filter(None, [serial and f"serial {serial}", path and f"at {path}"]))
    if not found:
        raise BenchError(
            f"{step}: no device in {wanted} mode {which}".rstrip(),
            part=PART,
            next_step="Find out where the board is; check its USB cable.",
        )
    if len(found) > 1:
        raise BenchError(
            f"{step}: {len(found)} devices match: {', '.join(str(one.identity) for one in found)}",
            part=PART,
            next_step="Name the board's serial number or USB path.",
        )
    return UsbTransport(found[0])
