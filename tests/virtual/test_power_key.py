"""The PMIC's power key: short switches a halted board on, long switches any board off."""

from __future__ import annotations

import time

import pytest
from labgrid.driver.power import simplerest

from tests.virtual.bench import Console, MakeBoard, TestBoard

pytestmark = pytest.mark.virtual


def wait_condition(board: TestBoard, condition: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while board.status()["condition"] != condition:
        assert time.monotonic() < end, board.status()
        time.sleep(0.02)


def press(board: TestBoard, how: str) -> None:
    done = board.run("press", "power", how)
    assert done.returncode == 0, done.stderr


def at_shell(board: TestBoard) -> Console:
    console = board.console()
    console.reach_prompt()
    return console


def test_the_power_key_switches_on_and_off(make_board: MakeBoard) -> None:
    board = make_board("key")
    press(board, "short")
    assert board.status()["condition"] == "off", "without power a key does nothing"
    board.power(True)
    console = at_shell(board)
    press(board, "short")
    assert board.status()["condition"] == "running"
    console.command("devmem 0x5fdff800 32 0x12345678")
    press(board, "long")
    status = board.status()
    assert (status["condition"], status["relay_on"]) == ("halted", True)
    assert "power key" in status["message"]
    press(board, "short")
    wait_condition(board, "running")
    console.expect(b"Linux version")
    console.expect(b"root@virtual:~# ")
    assert console.command("devmem 0x5fdff800 32") == "0x00000000", "the memory has lost its power"
    console.port.write(b"poweroff -f\n")
    wait_condition(board, "halted")
    press(board, "short")
    wait_condition(board, "running")
    console.port.close()


@pytest.mark.parametrize("button", ["edl", "fastboot"])
def test_a_long_press_ends_boot_programs_and_the_strap_counts_afterwards(
    make_board: MakeBoard, button: str
) -> None:
    board = make_board(f"key-{button}")
    board.run("press", button, "on")
    board.power(True)
    wait_condition(board, button)
    press(board, "long")
    assert board.status()["condition"] == "halted"
    press(board, "short")
    wait_condition(board, button)
    board.run("press", button, "off")
    press(board, "long")
    press(board, "short")
    wait_condition(board, "running")


def test_a_relay_can_press_it(make_board: MakeBoard) -> None:
    board = make_board("key-relay")
    host = board.status_at_start["power_host"]
    board.power(True)
    wait_condition(board, "running")
    simplerest.power_set(host, None, 3, True)
    wait_condition(board, "halted")
    simplerest.power_set(host, None, 3, False)
    assert board.status()["condition"] == "halted"
    simplerest.power_set(host, None, 3, True)
    simplerest.power_set(host, None, 3, False)
    wait_condition(board, "running")


def test_what_cannot_be_pressed_so_is_wrong_use(make_board: MakeBoard) -> None:
    board = make_board("key-wrong")
    for words in (("edl", "long"), ("reset", "on"), ("power", "twice")):
        done = board.run("press", *words)
        assert done.returncode == 2
        assert "say fastboot or edl" in done.stderr
