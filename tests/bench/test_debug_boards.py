"""Power and keys by debug boards, against a simulated far end of their serial ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from labgrid import Target

from farm.bench import debug_board, tac
from farm.bench.power import Power
from farm.errors import BenchError, UsageError
from tests.bench.debug_boards import Psoc, Qcomlt

SERIAL = "TAC0001"
PYTACTL = Path(sys.executable).parents[1] / "alpaca" / "bin" / "python"
# Pins of an Alpaca V3.1, as pytactl's TAC_PSOC_7.pinout.json has them.
PKEY, VOLDN, BATTERY, PEDL, USB0 = 50, 51, 53, 54, 55


def until(what: Callable[[], bool], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def bound(target: Any, kind: type[Any], **arguments: Any) -> Any:
    """A resource or driver of ``target``; attrs hides from mypy what labgrid's bases take."""
    return kind(target, None, **arguments)


def driver(target: Any, kind: type[Any], **arguments: Any) -> Any:
    made = bound(target, kind, **arguments)
    target.activate(made)
    return made


@pytest.fixture
def letters() -> Iterator[Qcomlt]:
    board = Qcomlt()
    yield board
    board.close()


@pytest.fixture
def target(letters: Qcomlt) -> Any:
    made = Target("main")
    bound(made, debug_board.QcomltDebugPort, port=letters.path)
    bound(made, debug_board.QcomltDebugBoard)
    return made


def test_power_goes_by_letters_and_usb_with_it(letters: Qcomlt, target: Any) -> None:
    power = driver(target, debug_board.QcomltPower, delay=0.0)
    power.on()
    power.off()
    power.cycle()
    until(lambda: letters.heard == "PUupupPU")


def test_usb_can_be_left_alone_and_the_power_key_pressed(letters: Qcomlt, target: Any) -> None:
    power = driver(target, debug_board.QcomltPower, usb=False, key_s=0.01)
    power.on()
    power.off()
    until(lambda: letters.heard == "PBbp")


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (debug_board.QcomltFastbootKey, "Rr"),
        (debug_board.QcomltPowerKey, "Bb"),
        (debug_board.QcomltUsb, "Uu"),
    ],
)
def test_keys_are_outputs(letters: Qcomlt, target: Any, kind: type[Any], heard: str) -> None:
    key = driver(target, kind)
    with pytest.raises(BenchError, match="cannot be asked"):
        key.get()
    key.set(True)
    assert key.get() is True
    key.set(False)
    assert key.get() is False
    until(lambda: letters.heard == heard)


def test_a_debug_board_that_is_unplugged_in_the_middle_is_the_bench_s_fault(
    letters: Qcomlt, target: Any
) -> None:
    power = driver(target, debug_board.QcomltPower)
    key = driver(target, debug_board.QcomltFastbootKey)
    power.on()
    key.set(True)
    letters.unplug()
    with pytest.raises(BenchError, match=f"debug board at {letters.path}") as caught:
        power.off()
    assert caught.value.part == "power"
    assert "cable" in caught.value.next_step
    with pytest.raises(BenchError):
        key.set(False)
    with pytest.raises(BenchError):
        key.get()
    # The farm's wrapper says the same, and cannot tell whether the board is on.
    with pytest.raises(BenchError, match="switching the power off"):
        Power(power).off()
    assert Power(power).is_on() is None


def test_a_debug_board_that_comes_back_is_used_again(
    letters: Qcomlt, target: Any, tmp_path: Path
) -> None:
    name = tmp_path / "by-id"
    name.symlink_to(letters.path)
    target.get_resource(debug_board.QcomltDebugPort).port = str(name)
    power = driver(target, debug_board.QcomltPower)
    power.on()
    letters.unplug()
    with pytest.raises(BenchError):
        power.off()
    again = Qcomlt()
    name.unlink()
    name.symlink_to(again.path)
    power.off()
    until(lambda: again.heard == "up")
    again.close()


def test_a_port_that_is_not_there_is_named(target: Any) -> None:
    target.get_resource(debug_board.QcomltDebugPort).port = "/dev/no-such-port"
    power = driver(target, debug_board.QcomltPower)
    with pytest.raises(BenchError, match="/dev/no-such-port"):
        power.on()


# -- TAC: the driver, pytactl's real service, and the far end of its serial port


class TacBench:
    def __init__(self, board: Psoc, process: subprocess.Popen[bytes], port: int) -> None:
        self.board, self.process = board, process
        self.url = f"http://127.0.0.1:{port}"

    def target(self, serial: str = SERIAL) -> Any:
        made = Target("main")
        bound(made, tac.TacService, url=self.url, serial=serial)
        bound(made, tac.TacBoard)
        return made


def tac_bench(board: Psoc) -> TacBench:
    """Start pytactl's service for ``board``; the caller ends its process."""
    assert PYTACTL.is_file(), "run: make alpaca"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = Path(__file__).with_name("tac_service.py")
    process = subprocess.Popen(
        [str(PYTACTL), str(script), board.path, SERIAL, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ""},
    )

    def answers() -> bool:
        assert process.poll() is None, "pytactl has ended"
        try:
            return requests.get(f"http://127.0.0.1:{port}/", timeout=2).ok
        except requests.RequestException:
            return False

    until(answers, 30.0)
    return TacBench(board, process, port)


@pytest.fixture(scope="module")
def tac_there() -> Iterator[TacBench]:
    bench = tac_bench(Psoc())
    yield bench
    bench.process.kill()
    bench.process.wait()
    bench.board.close()


def test_tac_switches_on_and_off_by_its_sequences(tac_there: TacBench) -> None:
    power = driver(tac_there.target(), tac.TacPower)
    pins = tac_there.board.pins
    power.off()
    assert (pins[BATTERY], pins[USB0]) == (1, 1)
    heard = len(tac_there.board.heard)
    power.on()
    assert (pins[BATTERY], pins[USB0], pins[PKEY]) == (0, 0, 0)
    said = tac_there.board.heard[heard:]
    assert f"pin 1 {PKEY}" in said, "the power key was not pressed"


@pytest.mark.parametrize(
    ("kind", "pin", "pressed"),
    [
        (tac.TacFastbootKey, VOLDN, 1),
        (tac.TacPowerKey, PKEY, 1),
        (tac.TacEdlStrap, PEDL, 1),
        (tac.TacUsb, USB0, 0),
    ],
)
def test_tac_holds_a_pin_until_it_is_let_go(
    tac_there: TacBench, kind: type[Any], pin: int, pressed: int
) -> None:
    output = driver(tac_there.target(), kind)
    output.set(True)
    assert (tac_there.board.pins[pin], output.get()) == (pressed, True)
    output.set(False)
    assert (tac_there.board.pins[pin], output.get()) == (1 - pressed, False)


def test_tac_boots_into_edl_with_the_strap_held(tac_there: TacBench) -> None:
    power = driver(tac_there.target(), tac.TacPower)
    heard = len(tac_there.board.heard)
    power.boot_to("edl")
    said = tac_there.board.heard[heard:]
    order = [said.index(f"pin {v} {p}") for v, p in ((1, BATTERY), (1, PEDL), (0, BATTERY))]
    assert order == sorted(order)
    assert tac_there.board.pins[PEDL] == 0


def test_what_a_tac_debug_board_has_not_is_the_user_s_fault(tac_there: TacBench) -> None:
    output = driver(tac_there.target(), tac.TacFastbootKey, pin="no-such-pin")
    with pytest.raises(UsageError, match="no command no-such-pin"):
        output.set(True)
    power = driver(tac_there.target(), tac.TacPower)
    with pytest.raises(UsageError, match="no sequence into crash"):
        power.boot_to("crash")
    other = driver(tac_there.target("TAC9999"), tac.TacPower)
    with pytest.raises(BenchError, match="no debug board TAC9999"):
        other.on()


def test_a_tac_service_that_is_not_there_says_how_to_start_it() -> None:
    made = Target("main")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bound(made, tac.TacService, url=f"http://127.0.0.1:{port}", serial=SERIAL)
    bound(made, tac.TacBoard)
    power = driver(made, tac.TacPower)
    with pytest.raises(BenchError, match="cannot be reached") as caught:
        power.on()
    assert "pytactl service" in caught.value.next_step


def test_a_tac_debug_board_that_is_unplugged_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tac_bench(Psoc())
    try:
        power = driver(bench.target(), tac.TacPower)
        power.off()
        bench.board.unplug()
        with pytest.raises(BenchError, match=f"debug board {SERIAL} failed") as caught:
            power.on()
        assert caught.value.part == "power"
    finally:
        bench.process.kill()
        bench.process.wait()
        bench.board.close()


def test_a_tac_debug_board_that_falls_silent_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = tac_bench(Psoc())
    try:
        monkeypatch.setattr(tac, "_SEQUENCE_DEADLINE_S", 1.0)
        power = driver(bench.target(), tac.TacPower)
        bench.board.mute = True
        with pytest.raises(BenchError, match="powerOff did not happen within 1 s"):
            power.off()
    finally:
        bench.process.kill()
        bench.process.wait()
        bench.board.close()
