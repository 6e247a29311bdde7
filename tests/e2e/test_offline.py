"""What a run has just written, judged and reported again: not one byte differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from farm.history import open_history
from tests.e2e.conftest import Board

pytestmark = pytest.mark.virtual


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_judging_and_reporting_a_fresh_run_again_changes_no_file(board: Board) -> None:
    outcome = board.run("--channel", "pstorefs,sahara", "--repeat", "2", "--history")
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.findings("memory equal")) == 2
    folder = board.out / outcome.run["run_id"]
    before = sums(folder)
    for words in (("judge", "--write", str(folder)), ("report", str(folder))):
        done = board.farm(*words)
        assert done.returncode == 0, done.stderr
    assert sums(folder) == before
    with open_history(out=board.out) as history:
        rows = history.cycles(run_id=outcome.run["run_id"])
    assert [(row.verdict, row.channels) for row in rows] == [("PASS", "pstorefs,sahara")] * 2
