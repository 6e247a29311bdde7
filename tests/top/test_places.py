"""Who has which place, against labgrid's own coordinator and client."""

from __future__ import annotations

import json
from pathlib import Path

from farm.hosts.coordinator import Coordinator
from farm.nightly.left_behind import mark_of
from farm.top.places import with_places
from farm.top.view import NightWatch
from tests.hosts.labgrid_processes import lab

from .nights import NIGHT_ID, stored
from .test_command import farm_top


def test_places_and_who_has_them_are_shown_and_left_alone(tmp_path: Path) -> None:
    night = stored(tmp_path)
    with lab() as one:
        one.client("-p", "first", "create")
        one.client("-p", "first", "set-tags", "board=virtual")
        one.client("-p", "second", "create")
        one.client("-p", "second", "add-match", "nobody/here/NetworkSerialPort")
        one.client("-p", "first", "acquire", user="bob")
        now = json.loads(farm_top(night, "--json", "--coordinator", one.address).stdout)
        first, second = now["places"]
        assert (first["name"], first["holder"], first["lacks"]) == ("first", "bob-desk/bob", "")
        assert first["tags"] == {"board": "virtual"}
        assert second["holder"] == ""
        assert "nobody/here" in second["lacks"]
        assert not first["by_this_night"]
        shown = farm_top(night, "--once", "--coordinator", one.address).stdout
        assert "bob-desk/bob" in shown
        # Who only looks takes nothing.
        assert "bob" in one.client("who")
        assert one.client("reservations").strip() == ""
        with Coordinator(one.address) as onlooker:
            assert len(with_places(NightWatch(night).look(), onlooker).places) == 2
            one.coordinator.kill()
            lost = with_places(NightWatch(night).look(), onlooker)
        assert lost.places == ()
        assert lost.coordinator_says


def test_a_place_of_this_night_is_known_as_its_own(tmp_path: Path) -> None:
    night = stored(tmp_path)
    with lab() as one:
        one.client("-p", "first", "create")
        with (
            Coordinator(one.address, mark=mark_of(NIGHT_ID)) as controller,
            controller.held("first", wait_s=10),
            Coordinator(one.address) as onlooker,
        ):
            (place,) = with_places(NightWatch(night).look(), onlooker).places
    assert place.by_this_night


def test_a_coordinator_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = farm_top(stored(tmp_path), "--once", "--coordinator", "127.0.0.1:1")
    assert done.returncode == 3
    assert "127.0.0.1:1 does not answer" in done.stderr
