"""What passed is not done again; what failed, or has another key, is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.build.check.cli import _bases, _parts
from farm.build.check.ledger import Ledger, Outcome, Step
from farm.build.progress import BuildProgress
from farm.errors import BuildError, UsageError


def step(key: str, act: Callable[[], Outcome]) -> Step:
    return Step("6.12", "builds", "0001-one.patch", key, lambda log: act())


class Counted:
    """An act that counts how often it was done."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.done = 0

    def __call__(self) -> Outcome:
        self.done += 1
        return Outcome("done", self.faults, {"number": self.done})


@pytest.fixture
def progress() -> BuildProgress:
    return BuildProgress()


def ledger(tmp_path: Path, *, again: bool = False) -> Ledger:
    return Ledger(tmp_path / "passed", tmp_path / "logs", again=again)


def test_what_passed_is_known_to_the_next_run(tmp_path: Path, progress: BuildProgress) -> None:
    act = Counted()
    first = ledger(tmp_path).take(step("k", act), progress)
    second = ledger(tmp_path).take(step("k", act), progress)
    assert (first.passed, first.known, second.passed, second.known) == (True, False, True, True)
    assert act.done == 1
    record = ledger(tmp_path).known("k")
    assert record is not None
    assert record["data"] == {"number": 1}


def test_the_processor_time_of_tools_is_counted(tmp_path: Path, progress: BuildProgress) -> None:
    def act() -> Outcome:
        subprocess.run([sys.executable, "-c", "for _ in range(2_000_000): pass"], check=True)
        return Outcome("done")

    first = ledger(tmp_path).take(step("k", act), progress)
    assert first.cpu_s > 0.01
    assert ledger(tmp_path).take(step("k", act), progress).cpu_s == first.cpu_s


def test_another_key_is_another_step(tmp_path: Path, progress: BuildProgress) -> None:
    act = Counted()
    ledger(tmp_path).take(step("k", act), progress)
    ledger(tmp_path).take(step("l", act), progress)
    assert act.done == 2


def test_what_failed_is_done_again(tmp_path: Path, progress: BuildProgress) -> None:
    act = Counted("fs/ram.c:1: unused")
    results = [ledger(tmp_path).take(step("k", act), progress) for _ in range(2)]
    assert act.done == 2
    assert not any(result.passed or result.known for result in results)
    assert results[0].faults == ("fs/ram.c:1: unused",)
    assert "0001-one.patch" in results[0].log


def test_a_build_that_breaks_is_a_fault_of_that_step(
    tmp_path: Path, progress: BuildProgress
) -> None:
    def act() -> Outcome:
        raise BuildError("kernel build failed: fs/ram.c:1: error: x undeclared")

    result = ledger(tmp_path).take(step("k", act), progress)
    assert not result.passed
    assert "x undeclared" in result.faults[0]


def test_a_full_disk_is_no_fault_of_the_series(tmp_path: Path, progress: BuildProgress) -> None:
    def act() -> Outcome:
        raise BuildError("kernel build failed: the disk is full (No space left on device)")

    with pytest.raises(BuildError, match="disk is full"):
        ledger(tmp_path).take(step("k", act), progress)


def test_again_forgets_what_was_known_and_not_what_this_run_has_done(
    tmp_path: Path, progress: BuildProgress
) -> None:
    act = Counted()
    ledger(tmp_path).take(step("k", act), progress)
    anew = ledger(tmp_path, again=True)
    assert anew.known("k") is None
    anew.take(step("k", act), progress)
    assert act.done == 2
    assert anew.known("k") is not None


def test_all_base_versions_are_those_with_a_series(tmp_path: Path) -> None:
    for name in ("6.1", "6.12", "configs", "5.15"):
        (tmp_path / "kernel-patches" / name).mkdir(parents=True)
    for name in ("6.1", "6.12"):
        (tmp_path / "kernel-patches" / name / "series").touch()
    assert _bases(["all"], tmp_path) == ["6.12", "6.1"]
    assert _bases(["6.1"], tmp_path) == ["6.1"]


def test_an_unknown_part_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="no part 'bulids'"):
        _parts(["bulids"])
