"""pytactl's own service, with a pty in place of a debug board's serial port.

Run by the Python of `make alpaca`: PATH_OF_PTY SERIAL PORT. Only how pytactl finds a port and a USB
device is replaced; what it says to the port is its own.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import serial.tools.list_ports
import usb.core


def main() -> None:
    from pytactl import cli
    from pytactl.debugboard import Board

    path, number, port = sys.argv[1:]
    there = SimpleNamespace(
        device=path, serial_number=number, vid=Board.ID_VENDOR_QCOM, pid=Board.ID_PRODUCT_QCOM
    )
    device = SimpleNamespace(
        idVendor=there.vid, idProduct=there.pid, serial_number=number, bus=1, address=2
    )
    serial.tools.list_ports.comports = lambda *_, **__: [there]
    usb.core.find = lambda *_, serial_number=None, **__: device if serial_number == number else None
    cli.main(["service", "--serial", number, "--hostname", "127.0.0.1", "--port", port])


if __name__ == "__main__":
    main()
