"""`farm doctor` prints what a description takes for granted."""

from __future__ import annotations

import pytest

from farm.bench.environment import read_options
from farm.doctor.answers import State
from farm.doctor.examine import Question, examine
from tests.bench.virtual_board import DEVICES
from tests.boards.test_overlays import BOARDS


@pytest.mark.parametrize("board", BOARDS)
def test_the_doctor_lists_every_assumption_as_not_checked(board: str) -> None:
    file = DEVICES / f"{board}.yaml"
    answers = list(examine(Question(lg_env=file, offline=True)))
    said = [one.what for one in answers if one.check == "assumption"]
    assert said == list(read_options(file).assumptions)
    assert len(said) >= 10
    assert all(one.state is State.UNKNOWN for one in answers if one.check == "assumption")
    for word in ("RAM", "firmware", "boot image", "crash mode", "EDL", "power"):
        assert any(one.startswith(f"{word}:") for one in said), word
