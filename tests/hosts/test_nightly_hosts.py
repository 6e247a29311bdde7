"""A night over hosts: network namespaces with sshd, exporter and virtual boards each."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.figures.processes import command_lines_with
from tests.hosts.namespaces import ADDRESS, COORDINATOR, Farm, ask_to_end
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

# Of the night that is run on eight boards, and then on one.
CELLS = 12
CHANNELS = ("pstorefs", "sahara", "ramdump", "fastboot", "firehose")

PLAN = """\
name: {name}
boards:
  - {{tags: {{board: virtual}}, features: [sahara, fastboot], cells: {cells}}}
scenarios: [{scenarios}]
channels: ['{channels}']
repeats: {repeats}
flash: none
retries: 1
wait: 5m
"""


@dataclass
class Result:
    """A night, and what it cost in seconds: see `tests.hosts.measured`."""

    night: dict[str, Any]
    working_s: float = 0.0
    controller_s: float = 0.0
    all_s: float = 0.0
    wall_s: float = 0.0
    qemu_s: float = 0.0
    busy_s: float = 0.0
    cycles_s: float = 0.0


def night(farm: Farm, name: str, *, deadline_s: float, **values: Any) -> Result:
    folder = farm.folder / name
    (folder / "tmp").mkdir(parents=True)
    plan = {"cells": "shared", "scenarios": "sysrq-c", "channels": "pstorefs", "repeats": 1}
    (folder / "plan.yaml").write_text(PLAN.format(name=name, **plan | values), encoding="utf-8")
    farm.run(
        *(sys.executable, "-m", "tests.hosts.measured", str(folder / "figures.json")),
        *("farm", "nightly", str(folder / "plan.yaml"), "--out", str(folder / "reports"), "--json"),
        *("--devices", str(ROOT / "devices")),
        deadline_s=deadline_s,
        TMPDIR=str(folder / "tmp"),
    )
    assert left_behind(folder / "tmp") == []
    account = json.loads((folder / "figures.said").read_text())
    return Result(account, **json.loads((folder / "figures.json").read_text()))


def left_behind(temporary: Path) -> list[str]:
    """Files of a night that has ended, but boards' locks, and processes that name their folder."""
    locks = f"panic-farm-{os.getuid()}"
    return [
        *(one.name for one in temporary.iterdir() if one.name != locks),
        *command_lines_with(str(temporary)),
    ]


def check(farm: Farm, result: Result, cells: int) -> None:
    account = result.night
    assert account["verdict"] == "PASS"
    assert account["totals"]["PASS"] == cells
    assert account["holes"] == []
    assert farm.run("labgrid-client", "who").stdout.split("\n")[1:] == [""]
    assert farm.run("labgrid-client", "reservations").stdout.strip() == ""


def channels_used(farm: Farm, name: str, result: Result) -> dict[str, set[str]]:
    """Which channels have brought intact records, by place."""
    (folder,) = (farm.folder / name / "reports" / "nights").glob("*/night.json")
    used: dict[str, set[str]] = {}
    for cycle in result.night["cycles"]:
        run = json.loads((folder.parent / cycle["run"] / "run.json").read_text())
        found = next(one for one in run["cycles"] if one["number"] == cycle["number"])
        place = cycle["place"] or cycle["cell"]["board"]
        used.setdefault(place, set()).update(one["channel"] for one in found["input"]["channels"])
    return used


def say(what: str, result: Result) -> None:
    cycles = len(result.night["cycles"])
    print(
        f"{what}: {cycles} cycles in {result.wall_s:.0f} s; CPU seconds a cycle: the controller "
        f"while cycles run {result.working_s / cycles:.3f}, with its start and the report "
        f"{result.controller_s / cycles:.3f}, with workers and ssh {result.all_s / cycles:.3f}"
    )


def made(hosts: int, boards: int) -> Iterator[Farm]:
    with Farm() as farm:
        farm.add_coordinator()
        for host in range(1, hosts + 1):
            names = [f"virtual-h{host}{'abcd'[board]}" for board in range(boards)]
            farm.add_host(f"h{host}", boards=names)
        farm.run("farm", "places", "sync", "--write", "--devices", str(ROOT / "devices"))
        yield farm


@pytest.mark.virtual
def test_a_night_on_two_hosts() -> None:
    for farm in made(2, 1):
        result = night(farm, "two", deadline_s=500, channels=",".join(CHANNELS), cells="each")
        say("two hosts", result)
        check(farm, result, 2)
        assert channels_used(farm, "two", result) == {
            "virtual-h1a": set(CHANNELS),
            "virtual-h2a": set(CHANNELS),
        }


@pytest.mark.hosts
def test_a_night_in_which_host_coordinator_and_controller_die() -> None:
    for farm in made(2, 1):
        folder = farm.folder / "all"
        folder.mkdir()
        values = {"cells": "shared", "scenarios": "sysrq-c", "channels": "pstorefs,sahara"}
        (folder / "plan.yaml").write_text(PLAN.format(name="all", repeats=10, **values))
        command = ("farm", "nightly", str(folder / "plan.yaml"), "--out", str(folder / "reports"))
        options = ("--devices", str(ROOT / "devices"), "--json")

        def journal(kind: str, place: str = "") -> int:
            text = "".join(one.read_text() for one in folder.glob("reports/nights/*/journal.jsonl"))  # noqa: B023
            lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
            return sum(one["entry"] == kind and place in (one.get("place"), "") for one in lines)

        def at_work(place: str = "") -> None:
            known = journal("begun", place)
            wait_until(lambda: journal("begun", place) > known, "a cycle begins", 180)

        wait_until((farm.hosts[COORDINATOR].folder / "places.yaml").is_file, "places are saved", 60)
        time.sleep(16)
        process = farm.start(*command, *options, log=folder / "log")
        at_work("virtual-h1a")
        farm.hosts["h1"].kill()
        at_work("virtual-h2a")
        farm.add_host("h1", boards=["virtual-h1a"])
        at_work("virtual-h1a")
        coordinator = farm.hosts[COORDINATOR]
        assert coordinator.exporter is not None
        ask_to_end(coordinator.exporter, signal.SIGKILL)
        coordinator.exporter.wait(10)
        coordinator.exporter = coordinator.start(
            "labgrid-coordinator", "-l", ADDRESS, log="coordinator.log"
        )
        at_work()
        ask_to_end(process, signal.SIGKILL)
        process.wait(10)
        assert "virtual-h" in farm.run("labgrid-client", "who").stdout
        last = farm.run(*command, *options, deadline_s=900)
        account = json.loads(last.stdout)
        for place in account["places"]:
            print(place["name"], *place["told"], sep="\n  ")
        check(farm, Result(account), 10)
        tried = [(one["cell"]["repeat"], one["attempt"]) for one in account["cycles"]]
        assert len(tried) == len(set(tried))


@pytest.fixture(scope="module")
def four() -> Iterator[Farm]:
    yield from made(4, 2)


@pytest.mark.hosts
def test_every_channel_on_every_board_of_four_hosts(four: Farm) -> None:
    every = night(four, "every", deadline_s=1800, channels=",".join(CHANNELS), cells="each")
    say("eight boards, every channel", every)
    check(four, every, 8)
    used = channels_used(four, "every", every)
    assert len(used) == 8
    assert all(one == set(CHANNELS) for one in used.values())


@pytest.mark.hosts
def test_eight_boards_share_what_one_does(four: Farm) -> None:
    work = {"scenarios": "sysrq-c, lkdtm-panic", "repeats": CELLS // 2}
    eight = night(four, "eight", deadline_s=1800, **work)
    say("eight boards share", eight)
    check(four, eight, CELLS)
    others = [name for host in four.hosts.values() for name in host.boards][1:]
    for name in others:
        four.run("labgrid-client", "-p", name, "set-tags", "board=virtual-2")
    one = night(four, "one", deadline_s=3600, **work)
    say("one board", one)
    check(four, one, CELLS)
    # Less is not possible: QEMU's own work on these cores, or so many cycles one after the other.
    cores = len(os.sched_getaffinity(0))
    rounds = math.ceil(CELLS / sum(len(host.boards) for host in four.hosts.values()))
    in_rounds_s = one.cycles_s * rounds / CELLS
    least_s = max(eight.qemu_s / cores, in_rounds_s)
    print(
        f"speed-up of eight boards on four hosts: {one.cycles_s / eight.cycles_s:.2f}; "
        f"QEMU used {eight.qemu_s:.0f} CPU s instead of {one.qemu_s:.0f}, so that "
        f"{one.cycles_s / least_s:.2f} is possible with {cores} cores, which were busy for "
        f"{eight.busy_s / cores / eight.cycles_s:.0%} of the time"
    )
    for result in (eight, one):
        assert result.working_s / CELLS <= 0.2
    # No board waits for another: what limits them are the cores, and QEMU is most of their work.
    # The rest is workers, ssh, agents, the boards' USB and serial.
    assert eight.cycles_s * 0.8 <= max(eight.busy_s / cores, in_rounds_s)
    assert eight.cycles_s * 0.4 <= least_s
