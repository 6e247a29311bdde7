"""Who has which place, asked of the coordinator by labgrid's own client."""

from __future__ import annotations

from farm.errors import FarmError
from farm.hosts.coordinator import Coordinator
from farm.nightly.left_behind import mark_of
from farm.top.view import NightNow, PlaceNow

__all__ = ["with_places"]


def with_places(night: NightNow, coordinator: Coordinator) -> NightNow:
    """The night with the places as they are now; a coordinator that is gone is said so."""
    try:
        places = coordinator.places()
    except FarmError as error:
        return night.model_copy(
            update={"coordinator": coordinator.address, "coordinator_says": error.message}
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
    return night.model_copy(update={"coordinator": coordinator.address, "places": found})
