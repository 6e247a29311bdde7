"""labgrid's own machinery finds the board's USB: by udev on this host, and over an exporter."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.virtual.bench import MakeBoard, farm_virtual_command
from tests.virtual.test_boot_modes import held, seen, wait_condition

pytestmark = pytest.mark.virtual

MANAGED = """
import sys, time
from labgrid import Target
from farm.bench.qualcomm_udev import QualcommUSBDevice
from farm.bench.usb import UsbBoot
target = Target("main")
resource = QualcommUSBDevice(target, name=None, serial=sys.argv[1])
boot = UsbBoot(target, name=None)
target.activate(boot)
target.update_resources()
print(resource.path, f"{resource.vendor_id:04x}:{resource.model_id:04x}", boot.find().mode.value)
target.deactivate(boot)
"""


def test_a_board_is_found_by_udev_with_the_serial_number_in_its_product(
    make_board: MakeBoard,
) -> None:
    boards = [held(make_board, f"udev{number}", "edl") for number in range(2)]
    for board in boards:
        status = board.status()
        done = seen(None, sys.executable, "-c", MANAGED, status["usb_serial"])
        assert done.stdout.split() == [status["usb_path"], "05c6:9008", "edl"], done.stderr


def test_an_exporter_of_ours_exports_it(make_board: MakeBoard, tmp_path: Path) -> None:
    board = held(make_board, "export", "edl")
    status = board.status()
    (tmp_path / "exporter.yaml").write_text(
        f"bench:\n  QualcommUSBDevice:\n    serial: '{status['usb_serial']}'\n"
    )
    bin_folder = Path(sys.executable).parent
    address = "127.0.0.1:20499"
    coordinator = subprocess.Popen(
        [str(bin_folder / "labgrid-coordinator"), "-l", address],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    exporter = subprocess.Popen(
        farm_virtual_command(
            *("exec", "--", str(bin_folder / "farm-exporter")),
            *("-c", address, "--name", "host", "--hostname", "localhost"),
            str(tmp_path / "exporter.yaml"),
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while True:
            listed = subprocess.run(
                [str(bin_folder / "labgrid-client"), "-x", address, "-v", "resources"],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            ).stdout
            if "RemoteAndroidUSBFastboot" in listed and status["usb_path"] in listed:
                break
            assert time.monotonic() < end, listed
        assert status["usb_serial"] in listed
    finally:
        for process in (exporter, coordinator):
            process.terminate()
            process.wait(10)
    wait_condition(board, "edl")
