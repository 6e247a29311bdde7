"""The real fastboot program against a bootloader with faults, step by step.

At each step it ends well with the right bytes, or it ends badly, or it is killed at its deadline;
it never ends well with wrong ones. The combinations are generated.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.virtual.board_memory import BoardMemory
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.disk import Disk
from farm.virtual.fastboot_device import Fastboot, Ramoops
from farm.virtual.fastboot_links import serve_usb
from farm.virtual.personality import Personality
from farm.virtual.usb_device import Device, Face
from farm.virtual.usb_faults import UsbFaults
from farm.virtual.usbfs import Plugged, Port, Tree

pytestmark = pytest.mark.virtual

DRAM_BYTES = 1 << 20
RAMOOPS = Ramoops(RAM_BASE_PADDR + 4096, 65536)
IMAGE = os.urandom(150_000)
DEADLINE_S = 3.0

PACKETS: dict[str, dict[str, object]] = {
    "missing-zlp": {"missing_zlp": True},
    "extra-zlp": {"extra_zlp": True},
    "leading-zlp": {"leading_zlp": True},
    "short-reads": {"short_reads": 1000},
    "packets-of-1024": {"packet_bytes": 1024},
    "packets-of-64": {"packet_bytes": 64},
    "slow-link": {"rate_mb_s": 20.0},
}
# fastboot reads right through these; an upload it wants in one transfer.
HARMLESS = {"missing-zlp", "packets-of-1024", "packets-of-64", "slow-link"}
PULLED = [0, 30, 200, 1000, 70_000, 150_000, 151_000, 190_000, 215_000]
SETS = [
    (),
    *((name,) for name in PACKETS),
    *(
        pair
        for pair in itertools.combinations(PACKETS, 2)
        if not all(one.startswith("packets") for one in pair)
    ),
]


@dataclass
class Bootloader:
    """A bootloader on a bus of its own."""

    folder: Path
    dram: Path
    disk: Disk

    def fastboot(self, *words: str) -> int | None:
        """The exit code; None when it had to be killed."""
        environment = os.environ | {
            "LD_PRELOAD": "libumockdev-preload.so.0",
            "UMOCKDEV_DIR": str(self.folder),
        }
        process = subprocess.Popen(
            ["fastboot", "-s", "AB12", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def work(self, tmp_path: Path) -> list[int | None]:
        """Flash, stage, read back; asserts that what ends well is right."""
        image, staged = tmp_path / "image", tmp_path / "staged"
        image.write_bytes(IMAGE)
        codes = [self.fastboot("flash", "boot_b", str(image))]
        boot = self.disk.partition("boot_b")
        assert boot is not None
        if codes[-1] is None:
            # It waits for a device that does not come back.
            return codes
        if codes[-1] == 0:
            assert self.disk.read(boot.first * 4096, len(IMAGE)) == IMAGE
        codes.append(self.fastboot("oem", "ramoops", "raw"))
        codes.append(self.fastboot("get_staged", str(staged)))
        if codes[-1] == 0:
            wanted = self.dram.read_bytes()[4096 : 4096 + 65536]
            assert staged.read_bytes() == wanted
        return codes


@pytest.fixture
def folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="farm-fb-"))
    yield root
    shutil.rmtree(root)


def bootloader(folder: Path, faults: UsbFaults) -> tuple[Bootloader, Plugged, BoardMemory]:
    tree = Tree(folder)
    tree.prepare()
    dram = folder / "dram"
    dram.write_bytes(os.urandom(DRAM_BYTES))
    disk = Disk(folder / "disk")
    disk.create()
    memory = BoardMemory(dram, DRAM_BYTES)
    program = Fastboot(
        disk,
        memory,
        personality=Personality.LK2ND,
        serial="AB12",
        ramoops=RAMOOPS,
        on_leave=lambda way, image: None,
    )
    face = Face(
        *(0x18D1, 0xD00D, (0xFF, 0x42, 0x03), "Google", "Android"),
        serial_text="AB12",
        interface_text="fastboot",
        packet_bytes=faults.packet_bytes,
    )
    device = Device(face, faults)
    plugged = Plugged([tree], Port(1, 1, 2), device)
    device.start(lambda one: serve_usb(one, program), plugged.unplug)
    return Bootloader(folder, dram, disk), plugged, memory


def codes_with(folder: Path, tmp_path: Path, faults: UsbFaults) -> list[int | None]:
    board, plugged, memory = bootloader(folder, faults)
    try:
        return board.work(tmp_path)
    finally:
        plugged.unplug()
        memory.close()
        board.disk.close()


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_no_wrong_byte_is_called_good(folder: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    faults = UsbFaults()
    for name in names:
        for key, value in PACKETS[name].items():
            setattr(faults, key, value)
    codes = codes_with(folder, tmp_path, faults)
    if set(names) <= HARMLESS:
        assert codes == [0, 0, 0]


@pytest.mark.parametrize("at", PULLED)
def test_a_cable_pulled_anywhere_ends_no_step_well_that_was_not(
    folder: Path, tmp_path: Path, at: int
) -> None:
    codes = codes_with(folder, tmp_path, UsbFaults(unplug_at=at))
    assert codes[-1] != 0
