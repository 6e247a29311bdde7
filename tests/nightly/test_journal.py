"""A controller that was killed at any byte of its journal goes on right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import UsageError
from farm.judge.run_folder import replace_text
from farm.model import NightCell, Purpose
from farm.nightly.controller import adopt
from farm.nightly.journal import JOURNAL_NAME, Begun, Closed, Finished, Journal, read_journal
from farm.nightly.state import replay
from tests.history.nights import Shape, make_night
from tests.nightly.imaginary import (
    AT,
    RULES,
    SCENARIOS,
    counted,
    opened,
    schedule,
    verdict_by,
    whole_night,
    work,
)

SMALL = schedule(boards=2, scenarios=SCENARIOS[:2], repeats=2)


def text_of(entries: list) -> bytes:  # type: ignore[type-arg]
    return b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 50), cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_any_prefix_resumes_right(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[float]
) -> None:
    """Killed at random bytes, some in mid-line: same verdicts, nothing lost, nothing twice."""
    verdict = verdict_by(seed)
    path = tmp_path_factory.mktemp("night") / JOURNAL_NAME
    undisturbed = replay(whole_night(SMALL, verdict), RULES)
    path.write_bytes(text_of(whole_night(SMALL, verdict)))
    for session, cut in enumerate(cuts, 1):
        data = path.read_bytes()
        data = data[: int(cut * len(data))]
        path.write_bytes(data)
        before = [e.cycle for e in read_journal(path)[0] if isinstance(e, Finished)]
        with Journal(path) as journal:
            state = replay(journal.entries, RULES)
            assert state.cycles == before
            first = opened(SMALL)
            journal.append(first)
            state.add(first)
            for entry in work(SMALL, state, verdict, session):
                journal.append(entry)
        entries, length = read_journal(path)
        assert length == path.stat().st_size
        kept = replay(entries, RULES)
        assert kept.cycles[: len(before)] == before
        tried = [(c.cell, c.attempt, c.purpose) for c in kept.cycles]
        assert len(tried) == len(set(tried))
        assert counted(kept) == counted(undisturbed)
        assert kept.trust == undisturbed.trust
        assert kept.closed is not None


def test_every_single_cut_is_read(tmp_path: Path) -> None:
    whole = text_of(whole_night(schedule(boards=1, kernels=1, repeats=1), verdict_by(1)))
    path = tmp_path / JOURNAL_NAME
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        entries, length = read_journal(path)
        assert text_of(entries) == whole[:length]
        assert whole[length:size].count(b"\n") == 0


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    entries = whole_night(SMALL, verdict_by(1))
    lines = text_of(entries).splitlines(keepends=True)
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(b"".join([*lines[:3], b'{"entry": "finis\n', *lines[3:]]))
    with pytest.raises(UsageError, match=r"journal\.jsonl:4: this is no entry"):
        read_journal(path)


def test_two_controllers_do_not_share_a_night(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / JOURNAL_NAME),
        pytest.raises(UsageError, match="another `farm nightly`"),
    ):
        Journal(tmp_path / JOURNAL_NAME)


def test_an_interrupted_cycle_is_run_again() -> None:
    entries = whole_night(SMALL, verdict_by(1, errors=0))
    at = next(n for n, entry in enumerate(entries) if isinstance(entry, Finished))
    stopped = entries[at]
    assert isinstance(stopped, Finished)
    cut = [
        *entries[:at],
        stopped.model_copy(update={"interrupted": True}),
        Closed(at=AT, complete=False),
    ]
    state = replay(cut, RULES)
    assert stopped.cycle.cell not in state.attempts
    assert SMALL.is_open(stopped.cycle.cell, state)
    assert stopped.cycle.run in state.runs


def test_time_between_controllers_is_not_spent() -> None:
    def at(seconds: int) -> str:
        return AT.replace("00:00.000", f"{seconds // 60:02d}:{seconds % 60:02d}.000", 1)

    first = opened(SMALL)
    state = replay(
        [
            first,
            Closed(at=at(60), complete=False),
            first.model_copy(update={"at": at(1000)}),
            Closed(at=at(1030), complete=False),
        ],
        RULES,
    )
    assert state.spent_s() == 90


def begun_of(folder: Path) -> tuple[Begun, Path]:
    """A begun cycle of a run that lies in ``folder``."""
    _, runs = make_night(0, Shape())
    name, run = next(iter(runs.items()))
    path = folder / name / "run.json"
    path.parent.mkdir(parents=True)
    replace_text(path, run.model_dump_json())
    cycle = run.cycles[1]
    cell = NightCell(
        kernel="k", board=run.board, scenario=cycle.scenario, channels=("pstorefs",), repeat=1
    )
    begun = Begun(at=AT, cell=cell, attempt=2, purpose=Purpose.PLAN, run=name, number=cycle.number)
    return begun, path


def test_a_verdict_that_the_journal_missed_is_found(tmp_path: Path) -> None:
    """Killed between the storing of a verdict and its line in the journal."""
    begun, _ = begun_of(tmp_path)
    found = adopt(begun, tmp_path)
    assert found is not None
    assert (found.cycle.cell, found.cycle.attempt) == (begun.cell, 2)
    assert found.cycle.verdict == "PASS"
    assert not found.interrupted


def test_a_cycle_without_a_verdict_is_not_taken_for_finished(tmp_path: Path) -> None:
    begun, path = begun_of(tmp_path)
    assert adopt(begun.model_copy(update={"number": 99}), tmp_path) is None
    data = json.loads(path.read_text())
    data["cycles"][1]["scenario"] = "lkdtm-bug"
    path.write_text(json.dumps(data))
    assert adopt(begun, tmp_path) is None
    path.write_text("{")
    assert adopt(begun, tmp_path) is None
    path.unlink()
    assert adopt(begun, tmp_path) is None
