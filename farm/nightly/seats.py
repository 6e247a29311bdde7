"""Where a night's cells are run: the plan's boards, and places that a coordinator knows.

A seat is a board of this host's, named by its environment file, or a place. Places with one
description share the cells of one board, which is named after the description, unless the plan
wants every place to run all cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farm.bench.environment import read_options
from farm.bench.options import BenchOptions
from farm.errors import BenchError, UsageError
from farm.hosts.coordinator import PlaceSeen
from farm.hosts.environment import device_file
from farm.hosts.places import feature_tag
from farm.nightly.journal import StoredPlace
from farm.nightly.plan import NightPlan, Places

__all__ = ["Chosen", "Seat", "boards_of", "choose"]

# What becomes part of file names, pages and commands.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


@dataclass(frozen=True)
class Seat:
    """A board of this host's, or a place (with the tags that it was chosen by).

    ``lg_env`` is the environment file, of a place the description in devices/.
    """

    name: str
    board: str
    lg_env: Path
    options: BenchOptions
    is_place: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)

    @property
    def stored(self) -> StoredPlace:
        """A place, as the journal keeps it."""
        return StoredPlace(name=self.name, description=self.lg_env.stem, board=self.board)


@dataclass(frozen=True)
class Chosen:
    """The seats by name, and what is to be said of places that were not taken."""

    seats: Mapping[str, Seat]
    said: Sequence[str] = ()


def filters_of(choice: Places) -> dict[str, str]:
    """The tags that a place must have."""
    return {**choice.tags, **{feature_tag(one): "true" for one in choice.features}}


def _matching(choice: Places, places: Iterable[PlaceSeen]) -> list[PlaceSeen]:
    wanted = filters_of(choice).items()
    return [one for one in places if wanted <= one.tags.items()]


def _seat(place: PlaceSeen, choice: Places, file: Path) -> Seat:
    options = read_options(file)
    board = options.board if choice.cells == "shared" else place.name
    # A place may lack what its description has: no cable, no programmer.
    tagged = {one for one in options.features if place.tags.get(feature_tag(one)) != "false"}
    options = options.model_copy(update={"board": board, "features": frozenset(tagged)})
    return Seat(place.name, board, file, options, is_place=True, filters=filters_of(choice))


def choose(
    path: Path,
    plan: NightPlan,
    places: Mapping[str, PlaceSeen] | None,
    devices: Path,
    before: Mapping[str, StoredPlace],
) -> Chosen:
    """The plan's seats; ``places`` is what the coordinator knows, None without one.

    ``before`` are those that the night was begun with: one that is gone stays a seat, so that its
    cells are not forgotten. Raises UsageError, naming the plan.
    """
    seats: dict[str, Seat] = {}
    said: list[str] = []
    for choice in plan.boards:
        if isinstance(choice, Path):
            options = read_options(choice)
            _add(seats, Seat(options.board, options.board, choice, options), path)
            continue
        if places is None:
            raise UsageError(
                f"{path}: the plan chooses places, and no coordinator is named",
                "Add --coordinator HOST:PORT, or set LG_COORDINATOR.",
            )
        found = _matching(choice, places.values())
        for place in found:
            if place.name in seats and seats[place.name].is_place:
                continue  # an earlier choice has it
            if not _NAME.fullmatch(place.name):
                said.append(f"the place {place.name!r} is left out: its name is none for a file")
                continue
            try:
                seat = _seat(place, choice, device_file(place.name, place.tags, devices))
            except BenchError as error:
                said.append(f"left out: {error}")
                continue
            _add(seats, seat, path)
        for stored in before.values():
            if stored.name in seats or stored.name in places:
                continue
            file = devices / f"{stored.description}.yaml"
            if file.is_file():
                options = read_options(file).model_copy(update={"board": stored.board})
                _add(seats, Seat(stored.name, stored.board, file, options, is_place=True), path)
        if not found and not before:
            words = " ".join(f"{key}={value}" for key, value in filters_of(choice).items())
            raise UsageError(
                f"{path}: no place of the coordinator has {words}",
                "`farm places list` shows what there is; `farm places sync` writes tags.",
            )
    return Chosen(seats, said)


def _add(seats: dict[str, Seat], seat: Seat, path: Path) -> None:
    for other in seats.values():
        if (other.board == seat.board or other.name == seat.name) and not (
            other.is_place and seat.is_place and other.name != seat.name
        ):
            raise UsageError(
                f"{path}: two environments are of the board {seat.board}: "
                f"{other.lg_env} and {seat.lg_env}"
            )
    seats[seat.name] = seat


def boards_of(seats: Mapping[str, Seat]) -> dict[str, BenchOptions]:
    """The boards that have cells; one that several places share has all that any of them has."""
    boards: dict[str, BenchOptions] = {}
    for seat in seats.values():
        if (known := boards.get(seat.board)) is None:
            boards[seat.board] = seat.options
        else:
            features = known.features | seat.options.features
            boards[seat.board] = known.model_copy(update={"features": features})
    return boards
