"""Where is my board: brought to each place for real, the answer within five seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from farm.bench.environment import Bench, open_bench
from farm.bench.strategy import Status
from farm.bench.whereabouts import Place
from farm.virtual import lifecycle
from tests.bench.virtual_board import environment

pytestmark = pytest.mark.virtual

WITHIN_S = 5.0
FARM = str(Path(sys.executable).with_name("farm"))
Open = Callable[..., tuple[Bench, Path]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """A bench of a test's own, and its environment file."""
    root = Path(tempfile.mkdtemp(prefix="farm-where-"))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PANIC_FARM_STATE", str(root / "state"))

        def make(*options: str) -> tuple[Bench, Path]:
            lg_env = environment(root, "where", *options)
            return stack.enter_context(open_bench(lg_env)), lg_env

        yield make
    shutil.rmtree(root, ignore_errors=True)


def wait_console(bench: Bench, pattern: bytes, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while re.search(pattern, bench.console.stream.recent()) is None:
        assert time.monotonic() < end, bench.console.stream.recent()[-500:]
        time.sleep(0.02)


def assert_place(bench: Bench, place: Place) -> None:
    found = bench.strategy.where()
    assert found.place is place, found
    assert found.seconds < WITHIN_S
    assert found.evidence


def asked_anew(bench: Bench, lg_env: Path) -> tuple[str, float, int]:
    """What `farm where` says, which has seen nothing of what the console said before."""
    # Its serial line takes one client at a time.
    bench.target.deactivate(bench.console)
    try:
        done = subprocess.run(
            [FARM, "where", "--lg-env", str(lg_env), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        bench.target.activate(bench.console)
    said = json.loads(done.stdout)
    return said["place"], said["seconds"], done.returncode


def type_on(bench: Bench, line: str) -> None:
    bench.console.write(line.encode() + b"\n")


def test_a_kernel_that_boots_slowly_is_booting(opened: Open) -> None:
    bench, lg_env = opened("--baud", "19200", "--append", "ignore_loglevel initcall_debug")
    bench.power.on()
    wait_console(bench, rb"Linux version [0-9]")
    assert_place(bench, Place.BOOTING)
    place, seconds, code = asked_anew(bench, lg_env)
    assert (place, code) == (Place.BOOTING.value, 0)
    assert seconds < WITHIN_S


def test_a_kernel_that_will_restart_is_panicking_and_then_boots(opened: Open) -> None:
    bench, lg_env = opened()
    bench.strategy.transition(Status.shell)
    type_on(bench, "echo 8 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger")
    wait_console(bench, rb"Rebooting in 8 seconds")
    assert_place(bench, Place.PANICKING)
    bench.shell.wait_prompt(40.0)
    assert_place(bench, Place.SHELL)
    assert asked_anew(bench, lg_env)[0] == Place.SHELL.value


def test_a_kernel_that_stops_in_its_panic_is_hung(opened: Open) -> None:
    bench, lg_env = opened()
    bench.strategy.transition(Status.shell)
    type_on(bench, "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger")
    wait_console(bench, rb"end Kernel panic")
    assert_place(bench, Place.HUNG)
    place, seconds, _ = asked_anew(bench, lg_env)
    assert place == Place.HUNG.value
    assert seconds < WITHIN_S


def test_processors_that_stand_still_are_hung(opened: Open) -> None:
    bench, _ = opened()
    bench.strategy.transition(Status.shell)
    done = subprocess.run(
        [FARM, "virtual", "fault", "hang", "--name", "where"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    type_on(bench, "reboot -f")
    end = time.monotonic() + 20
    while lifecycle.status("where").condition.value != "hung":
        assert time.monotonic() < end
    # A boot may be silent for so long, until then it is taken for one.
    assert_place(bench, Place.HUNG)


def test_a_kernel_whose_init_panics_again_and_again_is_a_boot_loop(opened: Open) -> None:
    bench, lg_env = opened("--append", "rdinit=/bin/false panic=1")
    bench.power.on()
    wait_console(bench, rb"Kernel panic - not syncing")
    assert_place(bench, Place.BOOT_LOOP)
    place, seconds, code = asked_anew(bench, lg_env)
    assert (place, code) == (Place.BOOT_LOOP.value, 0)
    assert seconds < WITHIN_S


def test_a_board_that_panics_into_crash_mode_is_found_there_at_once(opened: Open) -> None:
    bench, _ = opened()
    bench.strategy.transition(Status.shell)
    bench.strategy.driver("download").set(True)
    type_on(bench, "echo c > /proc/sysrq-trigger")
    time.sleep(0.2)
    assert_place(bench, Place.CRASH)


def test_a_bench_that_is_lost_leaves_the_board_unknown(opened: Open) -> None:
    bench, lg_env = opened()
    bench.strategy.transition(Status.shell)
    pid = lifecycle.status("where").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert_place(bench, Place.UNKNOWN)
    done = subprocess.run(
        [FARM, "where", "--lg-env", str(lg_env)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "is lost" in done.stderr


def test_a_console_that_is_mute_and_a_power_switch_that_cannot_tell_leave_it_unknown(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = opened()
    bench.strategy.transition(Status.shell)
    done = subprocess.run(
        [FARM, "virtual", "fault", "silence", "--name", "where"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_place(bench, Place.HUNG)
    monkeypatch.setattr(bench.strategy.power, "get", lambda: None)
    assert_place(bench, Place.UNKNOWN)


def test_a_bench_that_is_down_is_said_so_and_stays_down(opened: Open) -> None:
    bench, lg_env = opened()
    bench.close()
    end = time.monotonic() + 20
    while lifecycle.status("where").state.value != "down":
        assert time.monotonic() < end
    done = subprocess.run(
        [FARM, "where", "--lg-env", str(lg_env)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "the bench of board where is down" in done.stderr
    assert lifecycle.status("where").state.value == "down"
