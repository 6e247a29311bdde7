"""``farm-exporter``: labgrid's exporter, which has no plug-ins, plus the board's USB.

`farm exporter` runs it and looks after it; by itself it takes labgrid's own options.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attr
from labgrid.remote import exporter
from labgrid.util.proxy import proxymanager

from farm.bench.coordinator import DEFAULT_PORT
from farm.bench.qualcomm_udev import QualcommUSBDevice
from farm.bench.usb import BoardUsb

__all__ = ["main", "register"]


# Every client of labgrid's knows it, and takes what it does not know for an error.
_AS = "RemoteAndroidUSBFastboot"
_SER2NET_STARTS_S = 0.5


@attr.s(eq=False)
class QualcommUSBExport(exporter.ResourceExport):  # type: ignore[misc]  # labgrid has no types
    """Exports a QualcommUSBDevice: whatever boot mode its board is in."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.data["cls"] = _AS
        make: Any = QualcommUSBDevice
        self.local = make(target=None, name=None, **self.local_params)

    def _get_params(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "busnum": self.local.busnum,
            "devnum": self.local.devnum,
            "path": self.local.path,
            "vendor_id": self.local.vendor_id,
            "model_id": self.local.model_id,
            # A board that comes back may do so elsewhere: by its number it is known again.
            "extra": {"serial": self.local.serial or "", "path": ""}
            if self.local.serial
            else {"serial": "", "path": self.local.path or ""},
        }


@attr.s(eq=False)
class BoardUsbExport(exporter.ResourceExport):  # type: ignore[misc]  # as above
    """Exports a BoardUsb, which is there whether the board shows anything or not."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.data["cls"] = _AS
        make: Any = BoardUsb
        self.local = make(target=None, name=None, **self.local_params)

    def _get_params(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "busnum": None,
            "devnum": None,
            "path": self.local.path or None,
            "vendor_id": None,
            "model_id": None,
            "extra": {"serial": self.local.serial, "path": self.local.path},
        }


@attr.s(eq=False)
class SerialExport(exporter.SerialPortExport):  # type: ignore[misc]  # as above
    """labgrid's, whose ser2net listens on every interface; isolated, on loopback only."""

    def _get_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super()._get_params()
        if self.proxy_required:
            params["host"] = "localhost"
        return params

    def _start(self, start_params: dict[str, Any]) -> None:
        if not self.proxy_required:
            super()._start(start_params)
            return
        # labgrid's own command line, with an address before the port; ser2net 4.2 or later.
        self.port = exporter.get_free_port()
        connector = f"serialdev(nouucplock=true),{start_params['path']},{self.local.speed}n81,local"
        lines = (
            f"connection: &con01#  accepter: telnet(rfc2217,mode=server),tcp,localhost,{self.port}",
            f"  connector: {connector}",
            "  options:",
            "    max-connections: 10",
        )
        command = [self.ser2net_bin, "-d", "-n"]
        for line in lines:
            command += ["-Y", line]
        self.child = subprocess.Popen(command)
        try:
            self.child.wait(timeout=_SER2NET_STARTS_S)
        except subprocess.TimeoutExpired:
            return
        raise exporter.ExporterError(f"ser2net for {start_params['path']} ended at once")


def register() -> None:
    """Add what this farm exports to labgrid's list."""
    exporter.exports["QualcommUSBDevice"] = QualcommUSBExport
    exporter.exports["BoardUsb"] = BoardUsbExport
    exporter.exports["USBSerialPort"] = exporter.exports["RawSerialPort"] = SerialExport


def _hostname(arguments: list[str]) -> str:
    """The value of --hostname, under which other hosts reach this one."""
    for at, one in enumerate(arguments):
        if one == "--hostname" and at + 1 < len(arguments):
            return arguments[at + 1]
        if one.startswith("--hostname="):
            return one.partition("=")[2]
    return ""


def main() -> None:
    """Run labgrid's exporter; its coordinator is reached through LG_PROXY if that is set."""
    register()
    if hostname := _hostname(sys.argv[1:]):
        # Clients reach loopback ports by way of the name that labgrid asks the resolver for.
        exporter.getfqdn = lambda: hostname
    make = exporter.Exporter.__init__

    def through_proxy(self: Any, config: dict[str, Any]) -> None:
        address = proxymanager.get_grpc_address(config["coordinator"], default_port=DEFAULT_PORT)
        make(self, {**config, "coordinator": address})

    exporter.Exporter.__init__ = through_proxy
    exporter.main()


if __name__ == "__main__":
    main()
