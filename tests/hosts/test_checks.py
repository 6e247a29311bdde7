"""What another host says is taken for nothing but what it claims to be; no host is needed here."""

from __future__ import annotations

import asyncio
import base64
import os
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from labgrid.remote.client import ensure_event_loop

from farm.bench import hooks, usb_agent
from farm.bench.coordinator import CheckedSession, complaint
from farm.bench.environment import read_target
from farm.bench.hosts import is_host
from farm.bench.usb import _unpacked
from farm.errors import BenchError, FarmError, UsageError
from farm.hosts.environment import Exported, device_file, environment_of, write_environment
from farm.hosts.exporter import HostConfig, VirtualBoard, expanded, read_config

DEVICES = Path(__file__).resolve().parents[2] / "devices"
TAGS = {"board": "virtual"}


@pytest.mark.parametrize("name", ["h1", "bench-7.lab.example", "farm@bench_7", "10.0.0.7"])
def test_a_name_of_a_host_is_taken(name: str) -> None:
    assert is_host(name)


@pytest.mark.parametrize(
    "name",
    [
        "-oProxyCommand=touch /tmp/x",
        "a b",
        "",
        "a;b",
        "$(a)",
        "a:b",
        "u@-x",
        "../x",
        "a\nb",
        None,
        7,
    ],
)
def test_what_ssh_would_take_for_something_else_is_no_host(name: object) -> None:
    assert not is_host(name)


def serial(**more: Any) -> dict[str, Any]:
    params = {"host": "localhost", "port": 4001, "speed": 115200, "protocol": "rfc2217"}
    return {**params, "extra": {"proxy": "h1", "proxy_required": True}, **more}


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        ("NetworkSerialPort", serial()),
        ("NetworkSerialPort", serial(extra={"proxy": "h1", "proxy_required": False})),
        (
            "NetworkPowerPort",
            {"model": "simplerest", "host": "http://h:1/p/{index}/{value}", "index": "0"},
        ),
        (
            "RemoteAndroidUSBFastboot",
            {"host": "h1", "path": "1-2.3", "extra": {"serial": "7B15C6F9", "path": ""}},
        ),
    ],
)
def test_an_honest_resource_is_taken(cls: str, params: dict[str, Any]) -> None:
    assert complaint(cls, params) == ""


@pytest.mark.parametrize(
    ("cls", "params", "why"),
    [
        ("RawSerialPort", {"port": "/etc/passwd"}, "not reached over the network"),
        ("RemotePlace", {}, "not reached over the network"),
        ("NoSuchThing", {}, "no class"),
        (
            "NetworkSerialPort",
            serial(extra={"proxy": "-oProxyCommand=x", "proxy_required": True}),
            "proxy",
        ),
        ("NetworkSerialPort", serial(host="-oProxyCommand=x"), "host"),
        ("NetworkSerialPort", serial(protocol="raw; x"), "protocol"),
        ("RemoteAndroidUSBFastboot", {"host": "h1", "extra": {"serial": "-rf"}}, "serial"),
        ("RemoteAndroidUSBFastboot", {"host": "h1", "path": "$(x)"}, "path"),
        ("NetworkPowerPort", {"model": "rest", "host": "file:///etc/passwd", "index": "0"}, "host"),
        (
            "NetworkPowerPort",
            {"model": "rest", "host": "http://h/{value.__class__}", "index": "0"},
            "host",
        ),
    ],
)
def test_a_hostile_resource_is_refused_with_the_reason(
    cls: str, params: dict[str, Any], why: str
) -> None:
    assert why in complaint(cls, params)


def entry(params: dict[str, Any], cls: str = "NetworkSerialPort") -> dict[str, Any]:
    return {"cls": cls, "params": params, "acquired": "p", "avail": True}


def test_a_resource_that_turns_hostile_stays_what_it_was_and_is_gone() -> None:
    async def play() -> Any:
        make: Any = CheckedSession
        session = make("127.0.0.1:1", asyncio.get_running_loop())
        session.resources, session.places = {}, {}
        await session.on_resource_changed("e", "g", "one", entry(serial()))
        await session.on_resource_changed("e", "g", "one", entry(serial(host="-x")))
        await session.on_resource_changed("e", "g", "two", entry(serial(host="-y")))
        await session.close()
        return session

    session = ensure_event_loop().run_until_complete(play())
    (kept,) = session.resources["e"]["g"].values()
    assert kept.params["host"] == "localhost"
    assert not kept.avail
    assert {(*one[:2], one[3]) for one in session.refused} == {("e", "g", "one"), ("e", "g", "two")}


# -- the environment of a place


def resources(group: str = "b1", host: str = "h1") -> list[Exported]:
    extra = {"proxy": host, "proxy_required": True}
    return [
        Exported("e", group, "NetworkSerialPort", "s", serial(extra=extra)),
        Exported("e", group, "RemoteAndroidUSBFastboot", "u", {"host": host, "extra": extra}),
    ]


def test_a_places_environment_is_its_boards_with_the_commands_on_its_host(tmp_path: Path) -> None:
    path = write_environment("p1", TAGS, resources(), DEVICES, tmp_path, "c:1")
    # It is read and checked as any other.
    target = read_target(path)
    options, drivers = target["options"], target["drivers"]
    assert options["board"] == "p1"
    assert options["reset"] == ["@h1", "farm", "virtual", "reset", "--name", "b1"]
    assert options["bench"] == {"status": ["@h1", "farm", "virtual", "status", "--name", "b1"]}
    hold = drivers["PanicFarmStrategy"]["keys"]["edl"]["hold"]
    assert hold == ["@h1", "farm", "virtual", "press", "edl", "on", "--name", "b1"]
    assert drivers["UsbBoot"]["environment"][-1] == "b1"
    assert drivers["Edl"]["programmer"] == str(DEVICES / "virtual-programmer.elf")
    assert target["resources"] == {"RemotePlace": {"name": "p1"}}
    assert yaml.safe_load(path.read_text())["options"] == {"coordinator_address": "c:1"}


def test_a_board_whose_host_is_not_known_loses_its_commands_and_nothing_else() -> None:
    made = environment_of("p1", TAGS, [], DEVICES, "c:1")["targets"]["main"]
    assert (made["options"]["reset"], made["options"]["boot_with"]) == ([], [])
    assert made["drivers"]["PanicFarmStrategy"]["keys"] == {}
    assert made["features"] == read_target(DEVICES / "virtual.yaml")["features"]


def test_every_board_that_is_described_can_hang_elsewhere(tmp_path: Path) -> None:
    for file in sorted(DEVICES.glob("*.yaml")):
        read_target(
            write_environment(
                file.stem, {"board": file.stem}, resources(), DEVICES, tmp_path, "c:1"
            )
        )


@pytest.mark.parametrize(
    "board", ["../devices/virtual", "/etc/passwd", "virtual.yaml/..", "-x", ""]
)
def test_a_tag_leads_to_no_other_file(board: str) -> None:
    with pytest.raises(BenchError):
        device_file("p1", {"board": board}, DEVICES)


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=20) | st.from_regex(
    r"[-@$;a-z0-9./ ]{1,12}", fullmatch=True
)


@settings(deadline=None, max_examples=40)
@given(place=HOSTILE, group=HOSTILE, host=HOSTILE, tag=HOSTILE)
def test_no_word_of_a_coordinator_becomes_a_command(
    place: str, group: str, host: str, tag: str
) -> None:
    try:
        made = environment_of(
            place, {**TAGS, "command": tag, "reset": tag}, resources(group, host), DEVICES, "c:1"
        )["targets"]["main"]
    except FarmError:
        return
    plain = read_target(DEVICES / "virtual.yaml")["options"]
    named = made["options"]["reset"]
    if named:
        assert is_host(named[0].removeprefix("@"))
        assert named[1:-1] == plain["reset"][:-1]
        assert named[-1] == group
        assert not group.startswith("-")


# -- what an exporter is configured with


def config(tmp_path: Path, text: str) -> HostConfig:
    path = tmp_path / "exporter.yaml"
    path.write_text(text)
    return read_config(path, name="h1", hostname="h1", isolated=True)


def test_virtual_boards_are_exported_as_what_they_offer(tmp_path: Path) -> None:
    read = config(
        tmp_path, "a:\n  VirtualBoard: {memory_mib: 256}\nreal:\n  BoardUsb: {path: 1-2}\n"
    )
    assert read.virtual == (VirtualBoard("a", {"memory_mib": 256}),)
    assert read.virtual[0].up == [
        *("farm", "virtual", "up", "--name", "a", "--json", "--memory-mib", "256")
    ]
    status = {
        "serial_port": 1,
        "power_host": "http://localhost:2/{index}",
        "power_index": 0,
        "usb_serial": "7B15C6F9",
    }
    made = expanded(read, {"a": status})
    assert made["real"] == {"BoardUsb": {"path": "1-2"}}
    assert made["a"]["NetworkSerialPort"]["port"] == 1
    assert made["a"]["BoardUsb"] == {"serial": "7B15C6F9"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a", "groups"),
        ("a: 7", "groups"),
        ("a: {", "no YAML"),
        ("a: {{ nothing", "line 1"),
        ("a b:\n  VirtualBoard: {}", "no name for a board"),
        ("a:\n  VirtualBoard: [x]", "no mapping"),
        ("a:\n  VirtualBoard: {name: b}", "no option"),
        ("a:\n  VirtualBoard: {append: [x]}", "no option"),
        ("a:\n  VirtualBoard: {'--x': 1}", "no option"),
    ],
)
def test_a_faulty_configuration_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        config(tmp_path, text)


def test_a_configuration_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config(tmp_path, "a:\n  NetworkPowerPort: {host: 'http://x:hunter2@h/'}\n")
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err


def test_a_command_on_no_host_is_refused() -> None:
    with pytest.raises(BenchError, match="no name for a host"):
        hooks.run_command(["@-oProxyCommand=x", "true"])


# -- what goes over the link


class Link:
    """A job of the agent's that hands out ``data``, and a host that fetches it."""

    def __init__(self, data: bytes, pause_s: float) -> None:
        def give(job: Any) -> str:
            for at in range(0, len(data), 1 << 18):
                job.hand_out(data[at : at + (1 << 18)])
                if not pause_s:
                    # The board is what is slow: the host has taken it before the next comes.
                    while not job._pieces.empty():
                        time.sleep(0.001)
            return "end"

        make: Any = usb_agent._Job
        job = make(give, ())
        self.kinds: list[str] = []
        self.sent_bytes = 0
        taken = bytearray()
        ended = None
        while ended is None:
            time.sleep(pause_s)
            news = job.poll(0.5)
            ended = news["ended"]
            for piece in news["pieces"]:
                self.kinds.append(piece[0])
                self.sent_bytes += len(piece[2]) if len(piece) > 2 else 0
                taken += _unpacked(piece)
        self.taken = bytes(taken)


TEXT = b"".join(b"%d is a line of text\n" % number for number in range(100_000))
PAGES = bytes(1 << 20) + TEXT + bytes(3 << 19) + os.urandom(1 << 20) + bytes(12345)


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_zero_pages_are_never_sent(pause_s: float) -> None:
    link = Link(PAGES, pause_s)
    assert link.taken == PAGES
    assert link.kinds.count("zeros") >= 2
    assert link.sent_bytes < 4 / 3 * (len(PAGES) - (5 << 19)) + (1 << 20)


def test_data_is_compressed_when_the_link_is_what_is_slow() -> None:
    slow = Link(TEXT, 0.05)
    assert slow.taken == TEXT
    assert slow.kinds.count("zlib") >= len(slow.kinds) - 2
    assert slow.sent_bytes < len(TEXT) / 2


def test_nothing_is_compressed_while_the_board_is_what_is_slow() -> None:
    fast = Link(TEXT, 0.0)
    assert fast.taken == TEXT
    assert set(fast.kinds) == {"base64"}


def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    noise = os.urandom(4 << 20)
    link = Link(noise, 0.01)
    assert link.taken == noise
    assert set(link.kinds) == {"base64"}


def test_a_piece_that_swells_is_refused() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(50 << 20))).decode()
    with pytest.raises(BenchError, match="1025 bytes for 1024"):
        _unpacked(["zlib", 1024, bomb])
    with pytest.raises(BenchError, match="kind 'lzma'"):
        _unpacked(["lzma", 1, "AA=="])


def test_an_isolated_exporters_serial_port_listens_on_loopback_only(tmp_path: Path) -> None:
    from farm.hosts.labgrid_exporter import SerialExport

    program, told = tmp_path / "ser2net", tmp_path / "told"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {told}.new\nmv {told}.new {told}\nsleep 60\n"
    )
    program.chmod(0o755)
    make: Any = SerialExport
    config = {"cls": "RawSerialPort", "params": {"port": "/dev/ttyS0"}, "avail": False}
    one = make(config, host="h1", proxy="h1", proxy_required=True)
    one.ser2net_bin = str(program)
    one.start()
    try:
        end = time.monotonic() + 10
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert f"tcp,localhost,{one.port}\n" in told.read_text()
        assert one._get_params()["host"] == "localhost"
    finally:
        one.stop()
