"""Boards of another host: labgrid's coordinator, its unmodified client, and the farm over ssh."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.namespaces import Farm, Host, ask_to_end
from tests.waiting import wait_until

pytestmark = pytest.mark.virtual

CHANNELS = "pstorefs,sahara,fastboot"


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with Farm() as farm:
        farm.add_coordinator()
        yield farm


@pytest.fixture(scope="module")
def host(farm: Farm) -> Host:
    host = farm.add_host("h1", boards=["a", "b"])
    farm.add_place("a", host.name)
    farm.add_place("b", host.name)
    return host


def test_nothing_but_sshd_listens_on_the_network(farm: Farm, host: Host) -> None:
    listening = host.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    addresses = [line.split()[1] for line in listening if " 0A " in line]
    beyond = [one for one in addresses if not one.startswith(("0100007F:", "0" * 24 + "01000000:"))]
    # 10.77.0.x:22
    assert [one.rpartition(":")[2] for one in beyond] == ["0016"]
    assert len(addresses) >= 1 + 2 * len(host.boards)


def test_labgrids_own_client_sees_acquires_uses_and_releases(farm: Farm, host: Host) -> None:
    client = ("labgrid-client", "-p", "b")
    assert farm.run("labgrid-client", "places").stdout.split() == ["a", "b"]
    seen = farm.run("labgrid-client", "resources").stdout.split()
    kinds = ("NetworkPowerPort", "NetworkSerialPort", "RemoteAndroidUSBFastboot")
    assert sorted(seen) == [f"h1/{board}/{kind}" for board in "ab" for kind in kinds]
    farm.run(*client, "acquire")
    try:
        farm.run(*client, "power", "cycle", "-t", "0.1")
        assert "is on" in farm.run(*client, "power", "get").stdout
        farm.run(*client, "power", "off")
        assert "is off" in farm.run(*client, "power", "get").stdout
    finally:
        farm.run(*client, "release")
    assert "b" not in farm.run("labgrid-client", "who").stdout.split()


def test_a_cycle_on_another_hosts_board_passes_on_every_channel(farm: Farm, host: Host) -> None:
    out = farm.folder / "reports"
    done = farm.run(
        *("farm", "run", "--place", "a", "--scenario", "sysrq-c", "--channel", CHANNELS),
        *("--out", str(out), "--json"),
        deadline_s=240,
    )
    run = json.loads(done.stdout)
    assert run["verdict"] == "PASS"
    assert run["board"] == "a"
    (cycle,) = run["cycles"]
    assert {one["channel"] for one in cycle["input"]["channels"]} == set(CHANNELS.split(","))
    said = [one["message"] for one in cycle["result"]["findings"]]
    assert any(f"{CHANNELS.replace(',', ', ')}: 14 records, byte-identical" in one for one in said)
    assert "a" not in farm.run("labgrid-client", "who").stdout.split()
    assert Path(out, "places", "a.yaml").is_file()


def test_a_virtual_board_that_dies_is_started_afresh(farm: Farm, host: Host) -> None:
    def status() -> dict[str, Any]:
        return dict(json.loads(host.run("farm", "virtual", "status", "--name", "b", "--json")))

    before = status()
    host.run("kill", "-KILL", str(before["pid"]))
    log = host.folder / "exporter.log"
    wait_until(lambda: "board b was lost: it starts afresh" in log.read_text(), "the new start")
    after = status()
    assert after["pid"] != before["pid"]
    ports = ("serial_port", "power_port", "usb_serial")
    assert [after[one] for one in ports] == [before[one] for one in ports]


def test_an_exporter_comes_back_to_a_coordinator_that_was_restarted(farm: Farm, host: Host) -> None:
    farm.restart_coordinator()
    log = host.folder / "exporter.log"
    wait_until(lambda: log.read_text().count("h1 exports to") == 2, "the exporter's return")
    assert "h1/a/NetworkSerialPort" in farm.run("labgrid-client", "resources").stdout.split()
    assert host.run("farm", "virtual", "status", "--name", "a").startswith("a: up")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_host_down_but_not_what_was_up_before(
    farm: Farm, host: Host, number: signal.Signals
) -> None:
    assert host.exporter is not None
    ask_to_end(host.exporter, number)
    host.exporter.wait(60)
    assert host.run("farm", "virtual", "list") == ""
    wait_until(
        lambda: farm.run("labgrid-client", "resources").stdout == "", "the end of the resources"
    )
    host.run("farm", "virtual", "up", "--name", "a")
    farm.start_exporter(host)
    assert host.exporter is not None
    ask_to_end(host.exporter, number)
    host.exporter.wait(60)
    assert host.run("farm", "virtual", "list").startswith("a: up")
    host.run("farm", "virtual", "down", "--name", "a")
    farm.start_exporter(host)


def test_pytest_runs_on_a_place_too(farm: Farm, host: Host) -> None:
    # A coordinator saves places now and then: one that was restarted may not know them any more.
    if "b" not in farm.run("labgrid-client", "places").stdout.split():
        farm.add_place("b", host.name)
    done = farm.run(
        *("pytest", "-q", "tests/validation", "-k", "sysrq-c", "--farm-place", "b"),
        *("--lg-coordinator", "127.0.0.1:20408", "--farm-out", str(farm.folder / "by-pytest")),
        deadline_s=240,
        LG_COORDINATOR="",
    )
    assert "1 passed" in done.stdout
    (run,) = (farm.folder / "by-pytest").glob("*/run.json")
    assert json.loads(run.read_text())["board"] == "b"
    assert "b" not in farm.run("labgrid-client", "who").stdout.split()


def test_a_hostile_exporters_host_name_runs_nothing_on_the_controller(
    farm: Farm, host: Host
) -> None:
    proof = farm.folder / "proof"
    (host.folder / "evil.yaml").write_text(
        "evil:\n  NetworkSerialPort: {host: localhost, port: 4001, protocol: rfc2217}\n"
    )
    evil = host.start(
        *("farm-exporter", "--coordinator", "127.0.0.1:20408", "--name", "evil", "--isolated"),
        *(f"--hostname=-oProxyCommand=touch {proof}", str(host.folder / "evil.yaml")),
        log="evil.log",
        LG_PROXY="coordinator",
    )
    try:
        log = host.folder / "evil.log"
        wait_until(lambda: "Exporter ready" in log.read_text(), "the hostile exporter")
        farm.add_place("evil", "evil")
        done = farm.run("farm", "run", "--place", "evil", codes=(3,), deadline_s=120)
        assert "the resource NetworkSerialPort of evil/evil is refused: its proxy" in done.stderr
        assert not proof.exists()
        assert "evil" not in farm.run("labgrid-client", "who").stdout.split()
    finally:
        ask_to_end(evil)
        evil.wait(30)
