"""The drivers of the boot modes on a virtual board: each way, with the board against it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.bench.environment import Bench, open_bench
from farm.bench.strategy import Status
from farm.bench.usb import UsbBoot
from farm.errors import BenchError, UsageError
from farm.qualcomm.identity import Mode
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.events import read_events
from farm.virtual.layout import BoardDir
from tests.bench.virtual_board import environment
from tests.figures.processes import has_ended
from tests.waiting import wait_until

pytestmark = pytest.mark.virtual

NAME = "drivers"
BOOT_B = (64 + 16384) * 4096
FARM = str(Path(sys.executable).with_name("farm"))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="farm-drivers-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANIC_FARM_STATE", str(root / "state"))
        path = environment(root, NAME, "--personality", "u-boot")
        path.write_text(path.read_text().replace("reader: lk2nd", "reader: u-boot"))
        with open_bench(path) as bench:
            yield bench
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_faults(bench: Bench) -> Iterator[None]:
    yield
    fault("clear")
    bench.strategy.progress = None


def fault(*words: str) -> None:
    done = subprocess.run(
        [FARM, "virtual", "fault", *words, "--name", NAME], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def dram() -> Path:
    return next(one for one in BoardDir.of(NAME).dram_candidates() if one.exists())


def memory(paddr: int, size: int) -> bytes:
    with dram().open("rb") as file:
        file.seek(paddr - RAM_BASE_PADDR)
        return file.read(size)


def on_disk(at: int, size: int) -> bytes:
    with (BoardDir.of(NAME).root / "disk").open("rb") as file:
        file.seek(at)
        return file.read(size)


def resets() -> int:
    return sum(one["event"] == "reset" for one in read_events(BoardDir.of(NAME).events))


# -- fastboot: U-Boot's memory


def test_memory_comes_as_u_boot_prints_it(bench: Bench, tmp_path: Path) -> None:
    bench.strategy.transition(Status.shell)
    bench.shell.run_script("devmem 0x5fdff800 32 0x12345678", 5.0)
    bench.strategy.transition(Status.fastboot)
    told: list[int] = []
    target = tmp_path / "memory"
    # An odd length: the last piece is not a whole line.
    bench.strategy.driver("fastboot").read(
        0x5FDF_F800, 1001, target, lambda done, total, _: told.append(done)
    )
    assert target.read_bytes() == memory(0x5FDF_F800, 1001)
    assert told[-1] == 1001


def test_a_console_record_that_is_too_small_is_named(bench: Bench, tmp_path: Path) -> None:
    bench.strategy.transition(Status.fastboot)
    fastboot = bench.strategy.driver("fastboot")
    fastboot.console_bytes = 1024
    try:
        with pytest.raises(BenchError, match="as U-Boot prints it") as caught:
            fastboot.read(0x5FDF_F800, 1024, tmp_path / "memory")
    finally:
        fastboot.console_bytes = 192
    assert "console_bytes" in caught.value.next_step


def test_memory_that_is_not_there_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.strategy.transition(Status.fastboot)
    with pytest.raises(BenchError, match="no memory at 10000"):
        bench.strategy.driver("fastboot").read(0x10000, 64, tmp_path / "memory")


# -- EDL: the farm's own flasher


def test_the_builtin_flasher_writes_reads_back_and_resets(bench: Bench, tmp_path: Path) -> None:
    bench.strategy.transition(Status.edl)
    edl = bench.strategy.driver("edl")
    edl.tool = "builtin"
    image = tmp_path / "boot.img"
    image.write_bytes(os.urandom((2 << 20) + 5))
    before = on_disk(BOOT_B - 4096, 4096)
    told: list[tuple[int, int, str]] = []
    assert edl.flash("boot_b", image, lambda *one: told.append(one)) == "builtin"
    assert on_disk(BOOT_B, (2 << 20) + 5) == image.read_bytes()
    assert on_disk(BOOT_B - 4096, 4096) == before
    assert told[-1][:2] == (2 * image.stat().st_size, 2 * image.stat().st_size)
    bench.strategy.force(Status.unknown)
    bench.strategy.transition(Status.shell)


@pytest.mark.parametrize(
    ("partition", "size", "words"),
    [("vendor", 100, "There are: boot_a"), ("misc", (1 << 20) + 1, "Make the partition larger")],
)
def test_what_does_not_fit_is_wrong_use_and_writes_nothing(
    bench: Bench, tmp_path: Path, partition: str, size: int, words: str
) -> None:
    bench.strategy.transition(Status.edl)
    edl = bench.strategy.driver("edl")
    edl.tool = "builtin"
    image = tmp_path / "image"
    image.write_bytes(b"x" * size)
    before = hashlib.sha256(on_disk(0, 256 << 20)).digest()
    with pytest.raises(UsageError) as caught:
        edl.flash(partition, image)
    assert words in caught.value.next_step
    assert hashlib.sha256(on_disk(0, 256 << 20)).digest() == before


@pytest.mark.parametrize("at", [100_000, 400_000, 1_500_000])
def test_a_cable_pulled_under_the_flasher_is_named_and_flashing_again_works(
    bench: Bench, tmp_path: Path, at: int
) -> None:
    bench.strategy.transition(Status.off)
    bench.strategy.transition(Status.edl)
    edl = bench.strategy.driver("edl")
    edl.tool = "builtin"
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20))
    fault("usb", "replug", "on")
    fault("usb", "unplug-at", str(at))
    with pytest.raises(BenchError) as caught:
        edl.flash("boot_b", image)
    assert caught.value.part == "usb"
    fault("clear")
    bench.strategy.force(Status.unknown)
    bench.strategy.transition(Status.off)
    bench.strategy.transition(Status.edl)
    assert edl.flash("boot_b", image) == "builtin"
    assert on_disk(BOOT_B, 1 << 20) == image.read_bytes()
    bench.strategy.force(Status.unknown)


# -- crash mode


def test_a_dump_goes_on_by_itself_when_the_device_comes_back_elsewhere(
    bench: Bench, tmp_path: Path
) -> None:
    bench.strategy.transition(Status.crash)
    fault("usb", "replug", "on")
    fault("usb", "unplug-at", "90000000")
    told: list[int] = []
    bench.strategy.progress = lambda done, total, _: told.append(done)
    said = bench.strategy.dump(tmp_path / "dump")
    with dram().open("rb") as file:
        assert said["files"][0]["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert told[-1] == (512 << 20) + 0x8000
    assert bench.strategy.unfinished is None


def test_an_interrupted_dump_leaves_the_board_its_power_until_it_is_whole(
    bench: Bench, tmp_path: Path
) -> None:
    strategy = bench.strategy
    strategy.transition(Status.crash)

    def interrupt(done: int, total: int, words: str) -> None:
        if done > 100 << 20:
            raise KeyboardInterrupt

    strategy.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        strategy.dump(tmp_path / "dump")
    assert strategy.safe_state() is None
    assert strategy.where().place.value == "crash mode"
    strategy.progress = None
    said = strategy.dump(tmp_path / "dump")
    with dram().open("rb") as file:
        assert said["files"][0]["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert strategy.safe_state() is None
    assert strategy.where().place.value == "off"


# -- a reset is told once


def killing(usb: UsbBoot, name: str, *, after: bool) -> Callable[..., Any]:
    """A call that kills the agent before or after it has done ``name``, without an answer."""
    real = usb._call_once
    killed = threading.Event()

    def call(called: str, arguments: tuple[Any, ...], deadline_s: float) -> Any:
        if called == name and not killed.is_set():
            killed.set()
            if after:
                real(called, arguments, deadline_s)
            if usb._agent is not None:
                os.kill(usb._agent.agent.pid, signal.SIGKILL)
            # The answer of what is killed can come no more.
            return real("devices", (), deadline_s) if after else real(called, arguments, deadline_s)
        return real(called, arguments, deadline_s)

    return call


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
def test_a_reset_whose_agent_dies_happens_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    strategy = bench.strategy
    strategy.transition(Status.crash)
    usb = strategy.driver("usb")
    before = resets()
    bench.console.mark()
    with monkeypatch.context() as patch:
        patch.setattr(usb, "_call_once", killing(usb, "crash_reset", after=after))
        strategy.driver("crash").reset()
    bench.shell.wait_prompt(30.0)
    assert resets() == before + 1
    strategy.force(Status.unknown)


# -- boards that look alike


def test_two_devices_of_one_serial_number_are_never_guessed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = bench.strategy
    strategy.transition(Status.fastboot)
    usb = strategy.driver("usb")
    real = usb._call
    own = usb.find()

    def call(name: str, *arguments: Any, **more: Any) -> Any:
        answer = real(name, *arguments, **more)
        if name == "devices":
            answer = [*answer, {**answer[0], "path": "1-9", "address": 99}]
        return answer

    monkeypatch.setattr(usb, "_call", call)
    with pytest.raises(BenchError, match="2 devices match") as caught:
        strategy.driver("fastboot").run("reboot")
    assert "path" in caught.value.next_step
    monkeypatch.setattr(usb.usb, "path", own.path)
    assert usb.find() == own
    assert own.mode is Mode.FASTBOOT


# -- tools


def test_a_tool_that_hangs_is_killed_at_its_deadline(bench: Bench) -> None:
    usb = bench.strategy.driver("usb")
    started = time.monotonic()
    with pytest.raises(BenchError, match=r"waiting.*still here"):
        usb.tool(
            ["sh", "-c", "trap '' TERM; echo still here; sleep 60"],
            0.5,
            "waiting",
            good=lambda _: True,
        )
    assert time.monotonic() - started < 5.0


def test_a_tool_ends_with_the_agent(bench: Bench) -> None:
    usb = bench.strategy.driver("usb")
    pid = 0

    def interrupt(done: int, total: int, words: str) -> None:
        nonlocal pid
        if found := re.fullmatch(r"([0-9]+)", words):
            pid = int(found[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        usb.tool(
            ["sh", "-c", "echo $$; exec sleep 60"],
            30.0,
            "waiting",
            good=lambda _: True,
            progress=interrupt,
        )
    wait_until(lambda: has_ended(pid), "it ends with the agent", 5.0)


def test_a_file_that_cannot_be_written_is_the_disks_fault(bench: Bench) -> None:
    bench.strategy.transition(Status.crash)
    with pytest.raises(BenchError) as caught:
        bench.strategy.driver("crash").read(RAM_BASE_PADDR, 4096, Path("/dev/full"))
    assert caught.value.part == "disk"
    assert "the disk is full" in caught.value.message


def test_a_programmer_that_an_earlier_session_has_left_is_used(
    bench: Bench, tmp_path: Path
) -> None:
    """As after a controller that was killed: the boot ROM is gone, and HELLO with it."""
    bench.strategy.transition(Status.off)
    bench.strategy.transition(Status.edl)
    edl = bench.strategy.driver("edl")
    edl.peek(RAM_BASE_PADDR, 4096, tmp_path / "first")
    bench.strategy.driver("usb")._drop_agent()
    edl.peek(RAM_BASE_PADDR, 4096, tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == memory(RAM_BASE_PADDR, 4096)
