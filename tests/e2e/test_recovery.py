"""A board that a cycle has left behind: every step to get it back is told, with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Board, Outcome

pytestmark = pytest.mark.virtual

DIRECT = "/sys/kernel/debug/provoke-crash/DIRECT"
# Both processors loop in the kernel, and still take interrupts.
STUCK = "".join(f"taskset {mask} sh -c 'echo LOOP > {DIRECT}' & " for mask in (1, 2)) + "sleep 1"


@pytest.fixture
def board(make_board: Callable[..., Board], request: pytest.FixtureRequest) -> Board:
    board = make_board(f"back-{abs(hash(request.node.nodeid)) % 10_000}")
    config = yaml.safe_load(board.lg_env.read_text())
    deadlines = {"boot": 20, "panic": 5, "reset": 8, "script": 8}
    config["targets"]["main"]["options"]["deadlines_s"] = deadlines
    board.lg_env.write_text(yaml.safe_dump(config, sort_keys=False))
    board.up()
    return board


def steps(outcome: Outcome) -> list[dict[str, Any]]:
    (recovery,) = outcome.run["recoveries"]
    assert recovery["cycle"] == 1
    for step in recovery["steps"]:
        assert step["reason"]
        assert step["outcome"]
        assert f"recovery: {step['step']}" in outcome.stderr or step["step"] == "power off"
    return list(recovery["steps"])


def verdicts(outcome: Outcome) -> list[str]:
    return [cycle["result"]["verdict"] for cycle in outcome.cycles]


def test_processors_that_hang_need_a_power_cycle(board: Board) -> None:
    board.fault("hang")
    outcome = board.run("--scenario", "sysrq-c", "--repeat", "2")
    assert verdicts(outcome) == ["ERROR", "PASS"], outcome.stderr
    taken = steps(outcome)
    assert [one["step"] for one in taken] == ["break", "warm reset", "power cycle"]
    assert [one["succeeded"] for one in taken] == [False, False, True]
    assert all(one["seconds"] > 0 for one in taken)


def test_a_kernel_that_hangs_but_takes_interrupts_needs_a_break(board: Board) -> None:
    outcome = board.run("--scenario", "sysrq-c", "--repeat", "2", "--before-panic", STUCK)
    assert verdicts(outcome) == ["ERROR", "ERROR"]
    (step,) = steps(outcome)
    assert (step["step"], step["succeeded"]) == ("break", True)
    # The panic that the BREAK made left a dump, which is kept.
    folder = board.out / outcome.run["run_id"] / outcome.cycles[1]["folder"]
    assert list((folder / "old-records").iterdir())


def test_a_board_that_does_not_boot_is_brought_to_edl_and_switched_off(
    board: Board, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.img"
    garbage.write_bytes(os.urandom(8192))
    name = ("--name", board.name)
    for command in (("virtual", "press", "fastboot", "on", *name), (*board.up_arguments, "--on")):
        done = board.farm(*command)
        assert done.returncode == 0, done.stderr
    for slot in ("boot_a", "boot_b"):
        done = board.farm("virtual", "exec", *name, "--", "fastboot", "flash", slot, str(garbage))
        assert done.returncode == 0, done.stderr
    board.farm("virtual", "press", "fastboot", "off", *name)
    outcome = board.run("--scenario", "sysrq-c", "--repeat", "2")
    assert outcome.code == 3
    assert verdicts(outcome) == ["ERROR"]
    taken = steps(outcome)
    assert [one["step"] for one in taken][-2:] == ["power cycle", "edl"]
    assert taken[-1]["succeeded"]
    assert "flash it" in taken[-1]["outcome"]
    assert outcome.run["ended_early"]
    assert board.status()[1]["relay_on"] is False
