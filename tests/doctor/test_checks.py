"""Faults of a host, planted as files; what a board says, planted as text."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from farm.bench.options import BenchOptions
from farm.doctor.answers import Answer, State
from farm.doctor.bench import check_fastboot_serial, check_files, check_serial, tools_of
from farm.doctor.board import Wanted, board_answers
from farm.doctor.host import Host, check_disk, check_modem_manager, check_tools, check_udev
from farm.model import Policy
from tests.figures.processes import name_of
from tests.waiting import wait_until

OPTIONS = BenchOptions(
    board="b", prompt="#", features=frozenset({"sysrq", "break", "fastboot", "firehose", "lkdtm"})
)
TABLE = """\
panicdump 1
state boot_id=8c1f5f0e-6f0a-4c7e-9d55-0a2f7a9b3c11 sequence=0 enabled=1 format=elf \
on_overflow=stop area=65536 capacity=65536 needed=4096 devices=0 dumpers=pstore
end devices=0"""
HEALTHY = {
    "sysrq": "1",
    "panic": "1",
    "cmdline": "console=ttyMSM0",
    "console": "tty0 ttyMSM0",
    "date": "1000",
    "asked": "1001.5",
    "lkdtm": "yes",
    "table": TABLE,
    "ramoops": "mem_size:2097152\npanicdump_size:524288",
    "backend": "ramoops",
    "identity": "6.12.0\nBAAAABQAAAADAAAAR05VAAABAgMEBQYHCAkKCwwNDg8QERIT",
    "pstore": "tool gzip",
    "download": "full",
}
BUILD_ID = bytes(range(20)).hex()
WANTED = Wanted(OPTIONS, BUILD_ID, crash_mode=True, download="cat it")


def the(answers: list[Answer], check: str) -> Answer:
    (found,) = [one for one in answers if one.check == check]
    return found


def answered(check: str, wanted: Wanted = WANTED, /, **changed: str) -> Answer:
    return the(board_answers({**HEALTHY, **changed}, wanted), check)


def test_a_healthy_board_has_nothing_wrong() -> None:
    answers = board_answers(HEALTHY, WANTED)
    assert {one.state for one in answers} == {State.OK}, answers


@pytest.mark.parametrize(
    ("check", "state", "changed"),
    [
        ("sysrq", State.WRONG, {"sysrq": "0"}),
        ("sysrq", State.WRONG, {"sysrq": "16"}),
        ("sysrq", State.OK, {"sysrq": "184"}),
        ("sysrq", State.WRONG, {"sysrq": ""}),
        ("panic", State.WRONG, {"panic": "0"}),
        ("panic", State.OK, {"panic": "-1"}),
        ("loglevel", State.WARNING, {"cmdline": "quiet console=ttyMSM0"}),
        ("loglevel", State.WARNING, {"cmdline": "loglevel=1"}),
        ("loglevel", State.OK, {"cmdline": "quiet loglevel=7"}),
        ("console", State.WRONG, {"console": "tty0"}),
        ("clock", State.WARNING, {"date": "100000"}),
        ("clock", State.UNKNOWN, {"date": ""}),
        ("lkdtm", State.WRONG, {"lkdtm": ""}),
        ("build-id", State.WRONG, {"identity": "6.1.0\n"}),
        ("ramoops", State.WRONG, {"ramoops": ""}),
        ("ramoops", State.WRONG, {"ramoops": "mem_size:2097152\npanicdump_size:0"}),
        ("ramoops", State.WRONG, {"backend": "efi_pstore"}),
        ("download", State.WARNING, {"download": "off"}),
        ("download", State.WARNING, {"download": "0x00000000"}),
        ("download", State.WRONG, {"download": ""}),
        ("panicdump", State.WRONG, {"table": ""}),
        ("panicdump", State.WRONG, {"table": "panicdump 2"}),
        ("panicdump", State.WRONG, {"table": TABLE.replace("enabled=1", "enabled=0")}),
        ("panicdump", State.WRONG, {"table": TABLE.replace("dumpers=pstore", "dumpers=-")}),
        ("capacity", State.WRONG, {"table": TABLE.replace("needed=4096", "needed=70000")}),
    ],
)
def test_each_fault_of_a_board_is_named_with_its_remedy(
    check: str, state: State, changed: dict[str, str]
) -> None:
    answer = the(board_answers({**HEALTHY, **changed}, WANTED), check)
    assert answer.state is state, answer
    if state in (State.WRONG, State.WARNING):
        assert answer.remedy


def test_without_a_build_the_running_kernel_cannot_be_held_against_anything() -> None:
    wanted = dataclasses.replace(WANTED, build_id=None)
    assert answered("build-id", wanted).state is State.UNKNOWN


def test_crash_mode_without_its_driver_is_wrong() -> None:
    assert answered("download", dataclasses.replace(WANTED, download="")).state is State.WRONG


def test_a_required_driver_that_is_not_registered_is_named() -> None:
    options = OPTIONS.model_copy(update={"policy": Policy(required=("adsp*",))})
    answer = answered("required", dataclasses.replace(WANTED, options=options))
    assert answer.state is State.WRONG
    assert "adsp*" in answer.what


def host(root: Path, uid: int = 1000) -> Host:
    return Host(root=root, path=str(root / "bin"), uid=uid)


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    answer = check_tools(host(tmp_path), ("fastboot", "qemu-system-aarch64"))
    assert answer.state is State.WRONG
    assert "apt install fastboot qemu-system-arm" in answer.remedy
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "bin" / "fastboot")
    assert check_tools(host(tmp_path), ("fastboot",)).state is State.OK


def test_udev_rules_are_wanted_of_whoever_is_not_root(tmp_path: Path) -> None:
    assert check_udev(host(tmp_path), emulated=False).state is State.WRONG
    assert check_udev(host(tmp_path, uid=0), emulated=False).state is State.OK
    assert check_udev(host(tmp_path), emulated=True).state is State.OK
    rules = tmp_path / "etc/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "51.rules").write_text('# ATTR{idVendor}=="05c6"\n')
    assert check_udev(host(tmp_path), emulated=False).state is State.WRONG
    (rules / "51.rules").write_text('ATTR{idVendor}=="05C6", MODE="0666"\n')
    assert check_udev(host(tmp_path), emulated=False).state is State.OK


def test_qcserial_and_modem_manager_are_in_the_way(tmp_path: Path) -> None:
    assert check_modem_manager(host(tmp_path), emulated=False).state is State.OK
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/comm").write_text("ModemManager\n")
    (tmp_path / "proc/modules").write_text("qcserial 16384 0 - Live 0x0\n")
    answer = check_modem_manager(host(tmp_path), emulated=False)
    assert answer.state is State.WRONG
    assert "ModemManager" in answer.what
    assert "qcserial" in answer.what
    rules = tmp_path / "run/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "7.rules").write_text('ATTR{idVendor}=="05c6", ENV{ID_MM_DEVICE_IGNORE}="1"\n')
    (tmp_path / "proc/modules").unlink()
    assert check_modem_manager(host(tmp_path), emulated=False).state is State.OK


def test_a_real_process_of_that_name_is_found(tmp_path: Path) -> None:
    program = tmp_path / "ModemManager"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "60"])
    try:
        # Popen returns when exec has closed its pipe, which it does before it gives the name.
        wait_until(lambda: name_of(process.pid) == program.name, "its name")
        assert check_modem_manager(Host(), emulated=False).state is State.WRONG
        assert check_modem_manager(Host(), emulated=True).state is State.WARNING
    finally:
        process.kill()
        process.wait()


def test_room_is_looked_for_where_the_runs_will_lie(tmp_path: Path) -> None:
    room = shutil.disk_usage(tmp_path).free >> 20
    assert check_disk(tmp_path / "not" / "yet", 0).state is State.OK
    assert check_disk(tmp_path / "not" / "yet", room * 2 + 1).state is State.WRONG


@pytest.mark.parametrize(
    ("resources", "state"),
    [
        ({"NetworkSerialPort": {"host": "localhost", "port": 1, "protocol": "raw"}}, State.WRONG),
        ({"NetworkSerialPort": {"host": "localhost", "port": 1}}, State.OK),
        ([{"cls": "NetworkSerialPort", "host": "localhost", "protocol": "raw"}], State.WRONG),
    ],
)
def test_a_raw_socket_carries_no_break(resources: object, state: State) -> None:
    answers = check_serial({"resources": resources}, OPTIONS, up=False)
    assert the(answers, "break").state is state
    assert the(answers, "serial").state is State.UNKNOWN


def test_a_serial_port_that_is_not_there(tmp_path: Path) -> None:
    for port, state in ((tmp_path / "ttyUSB7", State.WRONG), (tmp_path, State.OK)):
        target: dict[str, dict[str, dict[str, object]]]
        target = {"resources": {"RawSerialPort": {"port": str(port)}}}
        assert the(check_serial(target, OPTIONS, up=True), "serial").state is state
    network: dict[str, object] = {"host": "localhost", "port": 1}
    target = {"resources": {"NetworkSerialPort": network}}
    answer = the(check_serial(target, OPTIONS, up=True), "serial")
    assert answer.state is State.WRONG
    assert os.strerror(111) in answer.what


def test_what_the_environment_names_must_be_there(tmp_path: Path) -> None:
    target = {"drivers": {"Edl": {"programmer": "prog.elf"}, "Fastboot": {"serial": "1234"}}}
    lg_env = tmp_path / "board.yaml"
    assert the(check_files(target, lg_env), "programmer").state is State.WRONG
    (tmp_path / "prog.elf").touch()
    assert the(check_files(target, lg_env), "programmer").state is State.OK
    assert tools_of(target, OPTIONS) == ("fastboot", "qdl")
    both = {**target, "resources": {"BoardUsb": {"serial": "ABCD"}}}
    assert the(check_fastboot_serial(both), "fastboot-id").state is State.WARNING
    assert check_fastboot_serial(target) == []
