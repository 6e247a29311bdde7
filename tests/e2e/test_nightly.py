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

from farm.history import open_history
from tests.e2e.conftest import FARM, ROOT, Board

PATCH = ROOT / "tests" / "nightly" / "truncated-after-oops.patch"

PLAN = """\
name: two boards
boards: [{boards}]
scenarios: [sysrq-c, lkdtm-panic]
flash: none
"""


TWO_KERNELS = """\
name: four boards
boards: [{boards}]
kernels:
  - mainline
  - {{name: planted, patches: [{patch}]}}
scenarios: [sysrq-c, lkdtm-bug]
flash: fastboot
retries: 2
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
        (folder,) = (one for one in (self.out / "nights").iterdir() if one.is_dir())
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

    def disturb(
        self,
        number: int,
        after_s: float,
        *,
        cycles: int = 0,
        at_most: int = 1000,
        timeout_s: float = 90.0,
    ) -> tuple[int, str]:
        """Start it, and send the signal when so many more cycles have ended, another has begun,
        and so long has passed since, or ``at_most`` have ended in all; returns how it ended."""
        known = len(self.entries())
        process = self.start()
        deadline = time.monotonic() + timeout_s

        def is_time() -> bool:
            news = [one["entry"] for one in self.entries()[known:]]
            return news.count("finished") >= cycles and "begun" in news

        while not is_time():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        passed = time.monotonic() + after_s
        while time.monotonic() < passed and len(self.finished()) < at_most:
            time.sleep(0.05)
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


def slow(board: Board, factor: float) -> Board:
    """The board with all its deadlines stretched."""
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    config["targets"]["main"]["options"]["deadlines_s"]["factor"] = factor
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


@pytest.mark.virtual
def test_killed_and_interrupted_a_night_loses_and_repeats_nothing(
    make_board: Callable[..., Board], tmp_path: Path
) -> None:
    boards = [make_board(name) for name in ("night-1", "night-2")]
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


@pytest.mark.night
def test_four_boards_and_a_planted_bug_whatever_kills_the_night(
    make_board: Callable[..., Board], tmp_path: Path
) -> None:
    """Killed three times at random: the verdicts of an undisturbed night, and the bug named."""
    # Four boards share the processors.
    boards = [slow(make_board(f"night-{number}"), 3.0) for number in range(1, 5)]
    plan = TWO_KERNELS.format(boards=", ".join(str(one.lg_env) for one in boards), patch=PATCH)
    verdicts = []
    for disturbed in (False, True):
        night = Night(tmp_path / f"disturbed-{disturbed}", plan, boards[0].environment)
        kept: list[dict[str, Any]] = []
        for _ in range(3 if disturbed else 0):
            delay_s, cycles = random.uniform(0, 10), random.randrange(4)
            code, _ = night.disturb(
                signal.SIGKILL, delay_s, cycles=cycles, at_most=12, timeout_s=2400
            )
            assert code == -signal.SIGKILL
            done = night.finished()
            assert done[: len(kept)] == kept
            kept = done
            print(f"SIGKILL {delay_s:.1f} s later: {len(kept)} cycles are done")
        code, account = night.end(timeout_s=2400)
        assert code == 1, night.log.read_text()
        check_whole(night, account, cells=16)
        finished = [(cell_of(one), one["attempt"], one["verdict"]) for one in account["cycles"]]
        for one in kept:
            assert finished.count((cell_of(one), one["attempt"], one["verdict"])) == 1
        counting = [one for one in account["cycles"] if one["counts"]]
        verdicts.append({cell_of(one): (one["verdict"], one["why"]) for one in counting})
        check_bug_is_named(night, account)
    assert verdicts[0] == verdicts[1]


def check_bug_is_named(night: Night, account: dict[str, Any]) -> None:
    """The planted bug, and it alone, fails: by driver, scenario and offset."""
    failed = [one["cell"] for one in account["cycles"] if one["verdict"] == "FAIL"]
    assert {(cell["kernel"], cell["scenario"]) for cell in failed} == {("planted", "lkdtm-bug")}
    with open_history(out=night.out) as history:
        rows = history.cycles(night_id=account["night_id"])
        assert len(rows) == 16
        for row in rows:
            planted = row.kernel == "planted" and row.scenario == "lkdtm-bug"
            assert row.verdict == ("FAIL" if planted else "PASS")
            if planted:
                print(f"{row.board} {row.scenario}: {row.finding_kind}: {row.why}")
                assert row.finding_driver == "panicdump-sample"
                assert row.finding_offset is not None
