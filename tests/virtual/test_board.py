"""Real boards: QEMU with the images of `farm build`, reached as a controller reaches a board."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.virtual.bench import (
    PROMPT,
    Console,
    MakeBoard,
    TestBoard,
    farm_virtual,
    farm_virtual_command,
)

pytestmark = pytest.mark.virtual

# In a dmesg zone that no test reaches: each panic writes one, from the first on.
UNTOUCHED_PADDR = 0x5FF0_1000
UNTOUCHED_SIZE = 0x1000


def wait_dead(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([process], [], [], 10)
    finally:
        os.close(process)
    assert readable, f"process {pid} lives on"


@pytest.fixture(scope="module")
def board(make_board: MakeBoard) -> TestBoard:
    """One for all tests that leave it powered and healthy."""
    return make_board("bench")


@pytest.fixture
def shell(board: TestBoard) -> Iterator[Console]:
    """The board at a shell after a cold start."""
    board.power(on=False)
    console = board.console()
    board.power(on=True)
    try:
        console.expect(PROMPT)
        yield console
    finally:
        console.port.close()


def differing_bits(before: bytes, after: bytes) -> list[str]:
    return [
        f"0x{UNTOUCHED_PADDR + offset:x}:{bit}"
        for offset, (old, new) in enumerate(zip(before, after, strict=True))
        for bit in range(8)
        if (old ^ new) >> bit & 1
    ]


def test_labgrid_power_and_rfc2217_give_a_shell(board: TestBoard, shell: Console) -> None:
    assert shell.command("uname -m") == "aarch64"
    assert board.power_is_on()
    board.power(on=False)
    assert not board.power_is_on()
    assert board.status()["condition"] == "off"


def test_a_warm_reset_keeps_ramoops_and_a_cold_one_loses_it(
    board: TestBoard, shell: Console
) -> None:
    first_id = shell.command("cat /proc/sys/kernel/random/boot_id")
    shell.command("mount -t pstore pstore /sys/fs/pstore 2>/dev/null")
    assert shell.command("ls /sys/fs/pstore") == ""
    shell.crash()
    assert b"sysrq triggered crash" in shell.expect(b"Rebooting in").lower()
    shell.expect(PROMPT)
    second_id = shell.command("cat /proc/sys/kernel/random/boot_id")
    shell.command("mount -t pstore pstore /sys/fs/pstore 2>/dev/null")
    assert "dmesg-ramoops-0" in shell.command("ls /sys/fs/pstore")
    assert "sysrq triggered crash" in shell.command(
        "grep -h 'Kernel panic' /sys/fs/pstore/dmesg-ramoops-0"
    )
    assert [event["kind"] for event in board.events("boot")][-2:] == ["cold", "warm"]
    assert board.events("break")

    board.power(on=False)
    board.power(on=True)
    shell.expect(PROMPT)
    shell.command("mount -t pstore pstore /sys/fs/pstore 2>/dev/null")
    assert shell.command("ls /sys/fs/pstore") == ""
    third_id = shell.command("cat /proc/sys/kernel/random/boot_id")
    assert len({first_id, second_id, third_id}) == 3


def test_a_flip_changes_the_asked_bits_only_and_once(board: TestBoard, shell: Console) -> None:
    before = board.dram(UNTOUCHED_PADDR, UNTOUCHED_SIZE)
    region = f"0x{UNTOUCHED_PADDR:x}+0x{UNTOUCHED_SIZE:x}"
    known = len(board.events("flip"))
    board.fault("flip", "--bits", "9", "--seed", "7", "--region", region)
    assert board.dram(UNTOUCHED_PADDR, UNTOUCHED_SIZE) == before

    shell.crash()
    shell.expect(PROMPT)
    after = board.dram(UNTOUCHED_PADDR, UNTOUCHED_SIZE)
    bits = board.events("flip")[known]["bits"]
    assert len(bits) == 9
    assert differing_bits(before, after) == bits

    shell.crash()
    shell.expect(PROMPT)
    assert board.dram(UNTOUCHED_PADDR, UNTOUCHED_SIZE) == after
    assert len(board.events("flip")) == known + 1

    # The same seed again flips the same bits back; --at adds one.
    board.fault("flip", "--bits", "9", "--seed", "7", "--region", region, "--at", "+0xffe:6")
    shell.port.write(b"reboot -f\n")
    shell.expect(PROMPT)
    again = board.dram(UNTOUCHED_PADDR, UNTOUCHED_SIZE)
    assert differing_bits(before, again) == [f"0x{UNTOUCHED_PADDR + 0xFFE:x}:6"]


def test_faults_of_bench_and_board(board: TestBoard, shell: Console) -> None:
    board.fault("silence", "on")
    shell.port.write(b"\n")
    assert shell.wait_silent(0.3) == b""
    board.fault("silence", "off")
    assert shell.command("echo back").endswith("back")

    board.fault("stuck-relay")
    board.power(on=False)
    assert shell.command("echo alive").endswith("alive")
    assert board.events("relay-stuck")
    board.fault("clear")
    assert board.power_is_on()

    board.fault("hang")
    boots = len(board.events("boot"))
    shell.crash()
    board.wait_event("boot", boots + 1)
    shell.port.reset_input_buffer()
    assert board.status()["condition"] == "hung"
    assert shell.wait_silent(0.5) == b""
    shell.seen.clear()
    board.power(on=False)
    board.power(on=True)
    shell.expect(PROMPT)
    assert board.status()["condition"] == "running"


def test_one_client_at_a_time(board: TestBoard, shell: Console) -> None:
    with socket.create_connection(("localhost", board.status_at_start["serial_port"])) as second:
        second.settimeout(5)
        assert b"in use by" in second.recv(1000)
        assert second.recv(1) == b""
    shell.port.close()
    third = board.console()
    assert third.command("echo mine").endswith("mine")
    third.port.close()


def test_a_killed_qemu_is_a_dead_board_until_power_is_cycled(
    board: TestBoard, shell: Console
) -> None:
    os.kill(board.status()["qemu_pid"], signal.SIGKILL)
    with pytest.raises(OSError, match=r"."):
        shell.expect(b"what never comes", deadline_s=10)
    done = board.run("status")
    assert done.returncode == 3
    assert "dead" in done.stdout
    assert "QEMU died" in done.stdout
    assert board.events("died")
    board.power(on=False)
    console = board.console()
    board.power(on=True)
    console.expect(PROMPT)
    assert board.run("status").returncode == 0
    console.port.close()


def test_a_guest_that_powers_off_is_halted(board: TestBoard, shell: Console) -> None:
    shell.port.write(b"poweroff -f\n")
    board.wait_event("guest-power-off", 1)
    assert board.status()["condition"] == "halted"
    assert board.power_is_on()


def test_up_twice_is_success_and_other_options_are_an_error(make_board: MakeBoard) -> None:
    first = make_board("twice", "--ecc-size", "16")
    assert make_board("twice", "--ecc-size", "16").status_at_start == first.status_at_start
    done = farm_virtual("up", "--name", "twice")
    assert done.returncode == 2
    assert "ecc_size_bytes" in done.stderr
    assert "farm virtual down --name twice" in done.stderr


def test_two_boards_at_once_and_the_ecc_option(make_board: MakeBoard) -> None:
    boards = [make_board("one"), make_board("two", "--ecc-size", "16")]
    consoles = [board.console() for board in boards]
    for board in boards:
        board.power(on=True)
    ecc = []
    for console in consoles:
        console.expect(PROMPT)
        ecc.append(console.command("dmesg | grep -o 'ecc: .*'"))
        console.port.close()
    assert ecc == ["ecc: 0", "ecc: 16"]
    listed = farm_virtual("list").stdout
    assert "one: up" in listed
    assert "two: up" in listed
    assert farm_virtual("down", "--name", "one").returncode == 0
    assert boards[0].run("status").returncode == 1
    assert boards[1].run("status").returncode == 0


def test_a_killed_daemon_takes_qemu_along_and_the_board_is_lost(make_board: MakeBoard) -> None:
    board = make_board("killed", "--on")
    status = board.status()
    os.kill(status["pid"], signal.SIGKILL)
    wait_dead(status["pid"])
    wait_dead(status["qemu_pid"])
    done = board.run("status")
    assert done.returncode == 3
    assert "lost" in done.stdout
    again = board.run("up")
    assert again.returncode == 0, again.stderr
    assert "starts afresh" in again.stdout
    assert board.events("lost")
    os.kill(board.status()["pid"], signal.SIGKILL)
    assert board.run("down").returncode == 0
    assert board.run("status").returncode == 1


def test_sigterm_takes_the_board_down(make_board: MakeBoard) -> None:
    board = make_board("terminated", "--on")
    status = board.status()
    follower = subprocess.Popen(
        farm_virtual_command("events", "--follow", "--name", board.name),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert " up " in follower.stdout.readline()
    os.kill(status["pid"], signal.SIGTERM)
    wait_dead(status["pid"])
    wait_dead(status["qemu_pid"])
    done = board.run("status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "down"
    assert len(board.events("down")) == 1
    followed, _ = follower.communicate(timeout=10)
    assert [line.split()[1] for line in followed.splitlines()][-2:] == ["power-off", "down"]
    assert follower.returncode == 0


def test_a_taken_port_is_named(make_board: MakeBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = farm_virtual("up", "--name", "unlucky", "--serial-port", str(port))
    assert done.returncode == 2
    assert f"TCP port {port} is taken by" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr


def test_the_next_boot_alone_can_differ(board: TestBoard, shell: Console) -> None:
    done = board.run("boot-with", "panic_farm_word=1", "--ecc-size", "16")
    assert done.returncode == 0, done.stderr
    assert "panic_farm_word" not in shell.command("cat /proc/cmdline")
    seen = []
    for _ in range(2):
        assert board.run("reset").returncode == 0
        shell.expect(PROMPT)
        seen.append(
            shell.command("grep -o panic_farm_word=1 /proc/cmdline; dmesg | grep -o ecc:.*")
        )
    # On a busy machine the kernel itself may put in a line of its own.
    assert [re.findall(r"panic_farm_word=1|ecc: \d+", one) for one in seen] == [
        ["panic_farm_word=1", "ecc: 16"],
        ["ecc: 0"],
    ]


def test_a_boot_that_is_called_off_does_not_differ(board: TestBoard, shell: Console) -> None:
    board.run("boot-with", "panic_farm_word=1", "--boots", "3")
    board.run("boot-with", "--boots", "0")
    board.run("reset")
    shell.expect(PROMPT)
    assert "panic_farm_word" not in shell.command("cat /proc/cmdline")


def test_the_reset_line_keeps_the_memory(board: TestBoard, shell: Console) -> None:
    shell.command("echo still-here > /dev/pmsg0")
    assert board.run("reset").returncode == 0
    shell.expect(PROMPT)
    assert "still-here" in shell.command("cat /sys/fs/pstore/pmsg-ramoops-0")
    assert board.events("reset-line")


def test_a_board_that_is_off_has_nothing_to_reset(board: TestBoard) -> None:
    board.power(on=False)
    done = board.run("reset")
    assert done.returncode == 3
    assert "runs no kernel" in done.stderr
