"""What the series says of its cost is what its kernel measures, and it grows linearly.

QEMU counts instructions as time here, so the figures do not depend on how busy this machine is.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator

import pytest

from farm.virtual.options import default_image_dir
from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.virtual

DEADLINE_S = 240.0
_ROW = re.compile(r"# cost_table: (\d[\d |]*\d)$")
# Rows of the README's table: devices, raw bytes and time, ELF, hex dump, and the time of a copy.
_TOLD = re.compile(r"^\| ([\d,]+(?: \| [\d,]+){7}) \|$", re.MULTILINE)
# What a compiler of another patch level may make of it.
TOLERANCE = 0.05
# The board's clock has 62.5 MHz, and a short time may be one of its ticks more or less.
TICK_NS = 16
# Where bytes and where times stand, behind the number of devices.
BYTES, TIMES = (0, 2, 4), (1, 3, 5, 6)

Row = tuple[int, ...]


@pytest.fixture(scope="module")
def measured() -> dict[int, Row]:
    """Devices to the other figures of the row, as in the README."""
    rows = [[int(word) for word in re.findall(r"\d+", row[1])] for row in _measure()]
    # Beside what the README tells there is the size of the data.
    return {row[0]: tuple(row[2:]) for row in rows}


def _measure() -> Iterator[re.Match[str]]:
    images = default_image_dir()
    arguments = "console=ttyAMA0 panic=-1 kunit.enable=1 kunit.filter_glob=panicdump-cost*"
    machine = subprocess.Popen(
        [
            *("qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", "cortex-a57"),
            *("-smp", "1", "-icount", "shift=0", "-m", "512"),
            *("-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"),
            *("-kernel", str(images / "Image")),
            *("-initrd", str(images / "initramfs.cpio.gz")),
            *("-append", arguments),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    timer = threading.Timer(DEADLINE_S, machine.kill)
    timer.start()
    try:
        assert machine.stdout is not None
        for line in machine.stdout:
            if (row := _ROW.search(line.rstrip())) is not None:
                yield row
            if "ok 1 panicdump-cost" in line:
                assert "not ok" not in line
                return
        pytest.fail(f"the suite panicdump-cost did not end within {DEADLINE_S:.0f} s")
    finally:
        timer.cancel()
        machine.kill()
        machine.wait()


def test_each_further_device_costs_the_same(measured: dict[int, Row]) -> None:
    assert list(measured) == [1, 10, 100, 1000]
    for column, bytes_alone in ((0, True), (1, False), (2, True), (3, False)):
        each = [
            (measured[many][column] - measured[few][column]) / (many - few)
            for few, many in ((1, 10), (10, 100), (100, 1000))
        ]
        allowed = 0 if bytes_alone else TOLERANCE * each[0]
        assert max(each) - min(each) <= allowed, (column, each)


def test_the_readme_tells_what_is_measured(measured: dict[int, Row]) -> None:
    text = (ROOT / "kernel-patches" / "README.md").read_text()
    told = [
        [int(word.replace(",", "")) for word in row.split(" | ")] for row in _TOLD.findall(text)
    ]
    assert [row[0] for row in told] == list(measured)
    for devices, *row in told:
        found = measured[devices]
        assert [found[at] for at in BYTES] == [row[at] for at in BYTES], devices
        times = [row[at] for at in TIMES]
        near = pytest.approx(times, rel=TOLERANCE, abs=TICK_NS)
        assert [found[at] for at in TIMES] == near, devices
