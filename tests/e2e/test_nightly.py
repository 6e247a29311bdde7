"""A night on virtual boards that is killed again and again comes to the same end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import FARM, Board

pytestmark = pytest.mark.virtual

PLAN = """\
name: two boards
boards: [{boards}]
scenarios: [sysrq-c, lkdtm-panic]
flash: none
"""


class Night:
    """``farm nightly`` with a plan, as often as it takes."""

    def __init__(self, folder: Path, plan: str, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = folder / "plan.yaml"
        self.plan.write_text(plan, encoding="utf-8")
        self.out = folder / "reports"
        self.log = folder / "log"
        self._environment = environment

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [FARM, "nightly", str(self.plan), "--out", str(self.out), "--json"],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def folder(self) -> Path:
        (folder,) = (self.out / "nights").iterdir()
        return folder

    def entries(self) -> list[dict[str, Any]]:
        """The whole lines of the journal."""
        try:
            text = (self.folder / "journal.jsonl").read_bytes()
        except (OSError, ValueError):
            return []
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def finished(self) -> list[dict[str, Any]]:
        return [
            one["cycle"]
            for one in self.entries()
            if one["entry"] == "finished" and not one["interrupted"]
        ]

    def disturb(self, number: int, after_s: float, timeout_s: float = 90.0) -> tuple[int, str]:
        """Start it, and send the signal so long after a cycle began; returns how it ended."""
        known = len(self.entries())
        process = self.start()
        deadline = time.monotonic() + timeout_s
        while not any(one["entry"] == "begun" for one in self.entries()[known:]):
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        time.sleep(after_s)
        process.send_signal(number)
        said = process.communicate(timeout=timeout_s)[0].decode()
        return process.returncode, said

    def end(self, timeout_s: float = 180.0) -> tuple[int, dict[str, Any]]:
        """Let it run to its end; returns exit code and night.json."""
        process = self.start()
        try:
            said = process.communicate(timeout=timeout_s)[0]
        finally:
            process.kill()
        assert said, self.log.read_text()
        return process.returncode, json.loads(said)


def named(board: Board) -> Board:
    """The board under its own name: the boards of a night must differ in it."""
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    config["targets"]["main"]["options"]["board"] = board.name
    board.lg_env.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return board


def cell_of(cycle: dict[str, Any]) -> tuple[Any, ...]:
    cell = cycle["cell"]
    return cell["kernel"], cell["board"], cell["scenario"], *cell["channels"], cell["repeat"]


def check_whole(night: Night, account: dict[str, Any], cells: int) -> None:
    """Every cell has one cycle that counts, whose evidence is where the account says."""
    counting = [cycle for cycle in account["cycles"] if cycle["counts"]]
    assert len({cell_of(cycle) for cycle in counting}) == len(counting) == cells
    tried = [(cell_of(cycle), cycle["attempt"]) for cycle in account["cycles"]]
    assert len(tried) == len(set(tried))
    assert account["holes"] == []
    assert account["totals"]["cycles"] == cells
    for cycle in account["cycles"]:
        run = json.loads((night.folder / cycle["run"] / "run.json").read_text())
        found = next(one for one in run["cycles"] if one["number"] == cycle["number"])
        assert found["scenario"] == cycle["cell"]["scenario"]
        assert run["board"] == cycle["cell"]["board"]
        assert found["result"]["verdict"] == cycle["verdict"]
    assert json.loads((night.folder / "night.json").read_text()) == account


def test_killed_and_interrupted_a_night_loses_and_repeats_nothing(
    make_board: Callable[..., Board], tmp_path: Path
) -> None:
    boards = [named(make_board(name)) for name in ("night-1", "night-2")]
    plan = PLAN.format(boards=", ".join(str(board.lg_env) for board in boards))
    night = Night(tmp_path / "killed", plan, boards[0].environment)
    rng = random.Random()
    kept: list[dict[str, Any]] = []
    for _ in range(2):
        delay_s = rng.uniform(0, 5)
        print(f"SIGKILL {delay_s:.2f} s after a cycle began")
        code, _ = night.disturb(signal.SIGKILL, delay_s)
        assert code == -signal.SIGKILL
        kept = night.finished()
        # The boards stay, and are found again.
        assert [board.status()[1]["state"] for board in boards] == ["up", "up"]
    code, said = night.disturb(signal.SIGINT, rng.uniform(0, 3))
    account = json.loads(said)
    assert code in (0, 3), night.log.read_text()
    assert account["cycles"][: len(kept)] == [{**cycle, "counts": True} for cycle in kept]
    if account["interrupted"]:
        kept = night.finished()
        for board in boards:
            status = board.status()[1]
            assert status["state"] == "down" or not status["relay_on"]
        code, account = night.end()
    assert code == 0, night.log.read_text()
    assert account["verdict"] == "PASS"
    assert account["cycles"][: len(kept)] == [{**cycle, "counts": True} for cycle in kept]
    check_whole(night, account, cells=4)
    assert [one["virtual"] for one in account["boards"]] == [True, True]
    assert account["kernels"][0]["build_id"]
