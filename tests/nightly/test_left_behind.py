"""What may be released for somebody: a dead night's, of the same user, host and folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from farm.hosts.coordinator import Coordinator, PlaceSeen
from farm.nightly.journal import JOURNAL_NAME, Journal
from farm.nightly.left_behind import mark_of, release_left_behind


@dataclass
class Imagined:
    """A coordinator with one place."""

    acquired: str
    holder: str = "lab.night-now/alice"
    released: list[tuple[str, str]] = field(default_factory=list)

    def places(self) -> dict[str, PlaceSeen]:
        return {"p": PlaceSeen("p", {}, (), self.acquired, "")}

    def release_for(self, place: str, holder: str) -> None:
        self.released.append((place, holder))


def release(nights: Path, acquired: str, places: tuple[str, ...] = ("p",)) -> Any:
    there = Imagined(acquired)
    said = release_left_behind(cast(Coordinator, there), places, nights, "now")
    assert len(said) == len(there.released)
    return there.released


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / JOURNAL_NAME).touch()
    return tmp_path


def test_what_a_dead_night_has_is_released(nights: Path) -> None:
    holder = f"lab.{mark_of('dead')}/alice"
    assert release(nights, holder) == [("p", holder)]
    assert release(nights, holder, places=("other",)) == []


@pytest.mark.parametrize(
    "acquired",
    [
        "",
        "lab/alice",
        "lab.night-dead/bob",
        "desk.night-dead/alice",
        "lab.night-now/alice",
        "lab.night-unknown/alice",
        "lab.night-../dead/alice",
        "lab.night-/alice",
        "lab.day-dead/alice",
    ],
)
def test_nothing_else_is(nights: Path, acquired: str) -> None:
    assert release(nights, acquired) == []


def test_nothing_of_a_night_that_is_alive_is(nights: Path) -> None:
    with Journal(nights / "dead" / JOURNAL_NAME):
        assert release(nights, "lab.night-dead/alice") == []
    assert release(nights, "lab.night-dead/alice") != []
