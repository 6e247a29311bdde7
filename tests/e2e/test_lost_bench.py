"""The bench fails, or the user has had enough: exit code 3, nothing lost, nothing left running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Board, Outcome

pytestmark = pytest.mark.virtual

# A killed board closes its serial line, which is noticed at once; what remains is the time to
# write the account.
NOTICED_WITHIN_S = 15.0
# A serial port that is no console takes a BREAK for what it is: no panic follows.
NO_SYSRQ = "echo N > /sys/class/tty/ttyAMA0/console"


@pytest.fixture
def lost(make_board: Callable[..., Board], request: pytest.FixtureRequest) -> Board:
    number = abs(hash(request.node.nodeid)) % 10_000
    board = make_board(f"lost-{number}", "--baud", "115200")
    board.up()
    return board


def assert_bench_error(outcome: Outcome, stage: str) -> None:
    assert outcome.code == 3, outcome.stderr
    cycle = outcome.cycles[-1]
    assert cycle["result"]["verdict"] == "ERROR"
    fault = cycle["input"]["fault"]
    assert fault["stage"] == stage
    assert fault["part"] in {"serial", "power", "board"}
    assert fault["message"]
    assert fault["next_step"]


def test_killed_before_the_run(lost: Board) -> None:
    lost.kill()
    outcome = lost.run()
    assert_bench_error(outcome, "boot")


def test_killed_while_it_boots(lost: Board) -> None:
    running = lost.start()
    running.wait_for(": boot\n")
    lost.kill()
    before = time.monotonic()
    outcome = running.wait()
    assert time.monotonic() - before < NOTICED_WITHIN_S
    assert_bench_error(outcome, "boot")


def test_killed_while_waiting_for_the_panic(lost: Board) -> None:
    running = lost.start("--before-panic", NO_SYSRQ, "--scenario", "break-c")
    running.wait_for(" panic: ")
    lost.kill()
    before = time.monotonic()
    outcome = running.wait()
    assert time.monotonic() - before < NOTICED_WITHIN_S
    assert_bench_error(outcome, "panic")
    console = lost.out / outcome.run["run_id"] / outcome.cycles[0]["folder"] / "console.raw"
    assert b"Booting Linux" in console.read_bytes()


def test_killed_during_the_read_back_keeps_what_was_read(
    make_board: Callable[..., Board],
) -> None:
    # Two large records come in two transfers, of several seconds each.
    devices = "panicdump_sample.devices=b1024,b65536,b65536"
    lost = make_board("lost-reading", "--baud", "115200", "--append", devices)
    lost.up()
    daemon = lost.status()[1]["pid"]
    running = lost.start()
    running.wait_for(" collect")
    folder = wait_for_capture(lost.out)
    os.kill(daemon, signal.SIGKILL)
    before = time.monotonic()
    outcome = running.wait()
    assert time.monotonic() - before < NOTICED_WITHIN_S
    assert_bench_error(outcome, "collect")
    captures = outcome.cycles[0]["input"]["captures"]
    assert captures
    assert {capture["complete"] for capture in captures} == {True, False}
    for capture in captures:
        assert (folder / capture["path"]).stat().st_size == capture["size_bytes"]


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGINT, ": boot: opening the bench\n"),
        (signal.SIGINT, ": boot\n"),
        (signal.SIGINT, ": arm\n"),
        (signal.SIGINT, ": panic: "),
        (signal.SIGINT, ": reset\n"),
        (signal.SIGINT, ": collect\n"),
        (signal.SIGTERM, ": panic: "),
    ],
)
def test_interrupted(make_board: Callable[..., Board], number: signal.Signals, stage: str) -> None:
    name = "".join(one for one in stage if one.isalpha())
    board = make_board(f"int-{int(number)}-{name}", "--baud", "115200")
    running = board.start(
        "--before-panic", NO_SYSRQ if "panic" in stage else "true", "--scenario", "break-c"
    )
    running.wait_for(stage)
    running.process.send_signal(number)
    before = time.monotonic()
    outcome = running.wait()
    assert time.monotonic() - before < NOTICED_WITHIN_S
    assert outcome.code == 3, outcome.stderr
    assert outcome.run["interrupted"] is True
    # The run has started the board's process by itself.
    assert board.status()[0] == 1


def wait_for_capture(out: Path) -> Path:
    """Return the cycle's folder once the first capture is complete in it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in out.glob("*/cycles/*/captures/pstorefs/*.bin"):
            return path.parents[2]
        time.sleep(0.05)
    raise AssertionError("no capture appeared")
