"""Nights on places, with the faults that many hosts bring, at random moments that a seed decides.

labgrid's own coordinator and exporters; the boards replay a console, and know when two work on one.
Whatever happens: every cell has one cycle that counts, none is a FAIL, nothing is left locked. The
clocks of coordinator, exporters and controller are minutes apart all the while.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.errors import BenchError
from farm.hosts.coordinator import Coordinator
from tests.hosts.labgrid_processes import Lab, lab
from tests.hosts.replayed_boards import ReplayedBoard
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PANIC_FARM_FAULT_SEED", "1"))
# `make hosts` has ten.
TIMES = int(os.environ.get("PANIC_FARM_FAULT_TIMES", "3"))
# Enough cells to outlast them.
REPEATS = 4 * TIMES
CELLS = 3 * REPEATS
SHIFT_S = 420.0

PLAN = """\
name: {name}
boards:
  - {{tags: {{board: virtual}}, cells: {cells}}}
scenarios: [sysrq-c, lkdtm-panic, lkdtm-bug]
repeats: {repeats}
flash: none
retries: 1
wait: {wait}
"""


class Bench:
    """A lab with replayed boards, a place and an exporter for each."""

    def __init__(self, lab: Lab, boards: int, shift_s: float = 0.0) -> None:
        self.lab = lab
        self.shift_s = shift_s
        self.boards = {f"p{number}": ReplayedBoard(f"p{number}") for number in range(boards)}
        for name, board in self.boards.items():
            board.plug_in()
            self.export(name)
            lab.client("-p", name, "create")
            lab.client("-p", name, "add-match", f"host-{name}/{name}/*")
            lab.client("-p", name, "set-tags", "board=virtual")

    def export(self, name: str, *, wait: bool = True) -> None:
        """Have the exporter of a board's host offer it as it is now."""
        exporter = self.lab.exports(
            f"host-{name}",
            {name: self.boards[name].resources()},
            start=False,
            shift_s=self.shift_s,
        )
        exporter.kill()
        exporter.start(wait=wait)

    def lose_host(self, name: str, down_s: float) -> None:
        """The host of a board dies with all on it, and comes back with other numbers."""
        self.lab.exporters[f"host-{name}"].kill()
        self.boards[name].unplug()
        time.sleep(down_s)
        self.boards[name].plug_in()
        self.export(name)

    def pace(self, cycle_s: float) -> None:
        for board in self.boards.values():
            board.cycle_s = cycle_s

    def who(self) -> dict[str, str]:
        lines = [line.split() for line in self.lab.client("who").splitlines()[1:]]
        return {words[2]: f"{words[1]}/{words[0]}" for words in lines}

    def check_nothing_is_left(self) -> None:
        assert self.who() == {}
        assert self.lab.client("reservations").strip() == ""
        for board in self.boards.values():
            assert board.collisions == []
        offered = self.lab.client("-v", "resources")
        assert "acquired" not in offered or "'acquired': None" in offered


class Night:
    """`farm nightly` on places, with workers that replay."""

    def __init__(self, folder: Path, bench: Bench, **plan: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.bench = folder, bench
        self.values = {"name": "replayed", "cells": "shared", "repeats": 8, "wait": "60s"} | plan
        (folder / "plan.yaml").write_text(PLAN.format(**self.values), encoding="utf-8")
        self.log = folder / "log"

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.hosts.replaying_worker", "farm", "nightly"),
                    *(str(self.folder / "plan.yaml"), "--out", str(self.folder / "reports")),
                    *("--coordinator", self.bench.lab.address, "--json"),
                    *("--devices", str(ROOT / "devices")),
                ],
                cwd=ROOT,
                env={**os.environ, **more},
                stdout=(self.folder / "night.json").open("wb"),
                stderr=log,
                start_new_session=True,
            )

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        found = sorted((self.folder / "reports" / "nights").glob("*/journal.jsonl"))
        if not found:
            return []
        text = found[-1].read_bytes()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        return [one for one in map(json.loads, lines) if kind in ("", one["entry"])]

    def at_work(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a cycle runs that this controller has begun."""
        known = len(self.entries("begun"))
        wait_until(
            lambda: process.poll() is not None or len(self.entries("begun")) > known,
            "a cycle begins",
            60,
        )

    def end(self, process: subprocess.Popen[bytes], timeout_s: float = 240.0) -> dict[str, Any]:
        process.wait(timeout_s)
        text = (self.folder / "night.json").read_text()
        assert text, self.log.read_text()[-3000:]
        night: dict[str, Any] = json.loads(text)
        return night

    def check(self, night: dict[str, Any], cells: int) -> None:
        said = self.log.read_text()[-6000:]
        counting = [one for one in night["cycles"] if one["counts"]]
        names = [json.dumps(one["cell"], sort_keys=True) for one in counting]
        assert len(set(names)) == len(names) == cells, said
        assert night["holes"] == [], said
        assert {one["verdict"] for one in night["cycles"]} == {"PASS"}, said
        assert night["totals"]["PASS"] == cells
        tried = [
            (json.dumps(one["cell"], sort_keys=True), one["attempt"]) for one in night["cycles"]
        ]
        assert len(set(tried)) == len(tried)
        evidence = [(one["run"], one["number"]) for one in night["cycles"]]
        assert len(set(evidence)) == len(evidence)
        assert not any(one["set_aside"] for one in night["places"])


def may_acquire(who: Coordinator, place: str) -> bool:
    """Acquire the place, unless it is somebody else's or reserved."""
    try:
        who.call("AcquirePlace", placename=place)
    except BenchError:
        return False
    return True


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(shift_s=SHIFT_S) as one:
        made = Bench(one, 2, shift_s=-SHIFT_S)
        wait_until(lambda: (one.folder / "places.yaml").is_file(), "places are saved", 30)
        time.sleep(16)  # all of them
        yield made
        for board in made.boards.values():
            board.unplug()


def disturbed(night: Night, fault: Callable[[random.Random], None], kind: str) -> dict[str, Any]:
    """Run the night, with the fault so often while cycles run."""
    rng = random.Random(f"{SEED} {kind}")
    process = night.start()
    for _ in range(TIMES):
        night.at_work(process)
        assert process.poll() is None, f"it ended too early: {night.log.read_text()[-3000:]}"
        time.sleep(rng.uniform(0.0, 0.4))
        # What goes on meanwhile is not to end the night.
        night.bench.pace(2.0)
        fault(rng)
        night.bench.pace(0.25)
    return night.end(process)


def test_equal_places_share_the_cells(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=8)
    account = night.end(night.start())
    night.check(account, 24)
    assert {one["name"] for one in account["boards"]} == {"virtual"}
    shares = [sum(c["place"] == p for c in account["cycles"]) for p in bench.boards]
    assert sum(shares) == 24
    assert min(shares) >= 4
    bench.check_nothing_is_left()


def test_every_place_runs_all_cells_if_the_plan_says_so(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=1, cells="each")
    account = night.end(night.start())
    night.check(account, 6)
    assert {one["name"] for one in account["boards"]} == set(bench.boards)
    bench.check_nothing_is_left()


def test_the_coordinator_restarts(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=REPEATS)

    def restart(rng: random.Random) -> None:
        bench.lab.restart_coordinator(rng.uniform(0.0, 1.5))

    account = disturbed(night, restart, "coordinator")
    night.check(account, CELLS)
    bench.check_nothing_is_left()


def test_a_host_dies_in_a_cycle_and_comes_back_with_other_numbers(
    bench: Bench, tmp_path: Path
) -> None:
    night = Night(tmp_path, bench, repeats=REPEATS)

    def lose(rng: random.Random) -> None:
        bench.lose_host(rng.choice(list(bench.boards)), rng.uniform(0.0, 1.5))

    account = disturbed(night, lose, "exporter")
    night.check(account, CELLS)
    assert any(one["told"] for one in account["places"])
    bench.check_nothing_is_left()


def test_a_controller_is_killed_and_another_takes_over(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=REPEATS)
    rng = random.Random(f"{SEED} controller")
    began = time.monotonic()
    for number in range(TIMES):
        # Every second one is on another host, as far as the coordinator can tell.
        shift_s = (number % 2) * 2 * SHIFT_S
        process = night.start(LG_HOSTNAME=f"host{number % 2}", SHIFT_S=str(shift_s))
        night.at_work(process)
        time.sleep(rng.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        assert bench.who(), "a kill releases nothing"
    account = night.end(night.start(LG_HOSTNAME="host0"))
    night.check(account, CELLS)
    assert len(night.entries("opened")) == TIMES + 1
    # What was worked is told by each controller's own clock.
    assert account["wall_s"] < time.monotonic() - began + 1
    bench.check_nothing_is_left()


def test_two_controllers_want_the_same_boards(bench: Bench, tmp_path: Path) -> None:
    """And a person, who has one now and then."""
    nights = [Night(tmp_path / str(one), bench, repeats=12, wait="120s") for one in range(2)]
    rng = random.Random(f"{SEED} two")
    tried = taken = 0
    with Coordinator(bench.lab.address) as somebody:
        processes = [one.start() for one in nights]
        while any(one.poll() is None for one in processes):
            place = rng.choice(list(bench.boards))
            tried += 1
            if may_acquire(somebody, place):
                taken += 1
                time.sleep(rng.uniform(0.0, 0.5))
                somebody.call("ReleasePlace", placename=place)
            time.sleep(rng.uniform(0.0, 0.5))
    assert taken
    assert tried >= TIMES
    for one, process in zip(nights, processes, strict=True):
        one.check(one.end(process), 36)
    bench.check_nothing_is_left()


def test_what_a_killed_night_has_is_released_for_the_next_one(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=40)
    process = night.start()
    night.at_work(process)
    process.kill()
    process.wait()
    left = bench.who()
    assert left
    shutil.copy(night.folder / "plan.yaml", tmp_path / "copy")
    # Another plan: another night.
    (tmp_path / "plan.yaml").write_text(PLAN.format(**night.values | {"name": "b", "repeats": 2}))
    account = night.end(night.start())
    night.check(account, 6)
    assert "had left it acquired" in night.log.read_text()
    bench.check_nothing_is_left()


def test_a_place_that_somebody_has_is_left_out_and_the_report_says_so(
    bench: Bench, tmp_path: Path
) -> None:
    bench.lab.client("-p", "p1", "acquire", user="bob")
    try:
        night = Night(tmp_path, bench, repeats=1, cells="each", wait="4s")
        process = night.start()
        account = night.end(process)
        assert process.returncode == 3
        assert len(account["holes"]) == 3
        (reason,) = {one["reason"] for one in account["holes"]}
        left_out = r"the place p1 was left out after (\d+) s of waiting: taken by bob-desk/bob"
        found = re.fullmatch(left_out, reason)
        # Longer where the machine is slow.
        assert found, reason
        assert int(found[1]) >= 4
        (told,) = (one["told"] for one in account["places"] if one["name"] == "p1")
        assert any(one.endswith(" taken by bob-desk/bob") for one in told)
        page = next((tmp_path / "reports" / "nights").glob("*/report/index.html")).read_text()
        assert "taken by bob-desk/bob" in page
        assert bench.who() == {"p1": "bob-desk/bob"}
        # Places that share cells do without it.
        other = Night(tmp_path / "shared", bench, repeats=2, wait="4s")
        other.check(other.end(other.start()), 6)
    finally:
        bench.lab.client("-p", "p1", "release", user="bob")
    bench.check_nothing_is_left()


def test_ctrl_c_releases_everything(bench: Bench, tmp_path: Path) -> None:
    night = Night(tmp_path, bench, repeats=40)
    process = night.start()
    night.at_work(process)
    process.send_signal(signal.SIGINT)
    account = night.end(process)
    assert account["interrupted"]
    bench.check_nothing_is_left()


def test_a_place_that_is_taken_away_is_left_at_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LG_USERNAME", "bob")
    monkeypatch.setenv("LG_HOSTNAME", "bob-desk")
    with Coordinator(bench.lab.address) as bob:
        night = Night(tmp_path, bench, repeats=40)
        process = night.start(LG_USERNAME="alice", LG_HOSTNAME="lab")
        night.at_work(process)
        place = night.entries("begun")[-1]["place"]
        # labgrid's client takes a second or more to start.
        bob.call("ReleasePlace", placename=place)
        wait_until(lambda: may_acquire(bob, place), "bob has it")
        night.check(night.end(process), 120)
    assert bench.who() == {place: "bob-desk/bob"}
    bench.lab.client("-p", place, "release", user="bob")
    bench.check_nothing_is_left()
