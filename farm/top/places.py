"""Who has which place, asked of the coordinator by labgrid's own client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from farm.errors import FarmError
from farm.hosts.coordinator import Coordinator
from farm.nightly.left_behind import mark_of
from farm.top.view import NightNow, PlaceNow

__all__ = ["Places"]


class Places:
    """The connection to a coordinator; one that is gone is said so, and asked again."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._coordinator = Coordinator(address)

    def __enter__(self) -> Self:
        """Connect; raises BenchError (part ``coordinator``) when nobody answers there."""
        self._coordinator.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._coordinator.__exit__(kind, error, trace)

    def add_to(self, night: NightNow) -> NightNow:
        """The night with the places as they are now."""
        try:
            places = self._coordinator.places()
        except FarmError as error:
            return night.model_copy(
                update={"coordinator": self._address, "coordinator_says": error.message}
            )
        mark = f".{mark_of(night.night_id)}/"
        found = tuple(
            PlaceNow(
                name=one.name,
                holder=one.acquired,
                by_this_night=mark in one.acquired,
                lacks=one.unmatched,
                tags=dict(one.tags),
            )
            for one in places.values()
        )
        return night.model_copy(update={"coordinator": self._address, "places": found})
