"""Places that are made for what exporters offer, and chosen by a plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from farm.errors import UsageError
from farm.hosts.coordinator import PlaceSeen
from farm.hosts.environment import Exported
from farm.hosts.places import Change, descriptions, feature_tag, plan
from farm.nightly.journal import StoredPlace
from farm.nightly.plan import read_plan
from farm.nightly.seats import boards_of, choose
from tests.hosts.labgrid_processes import Lab, lab

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ROOT / "devices"
KNOWN = descriptions(DEVICES)


def serial(exporter: str, group: str, **params: Any) -> Exported:
    return Exported(exporter, group, "NetworkSerialPort", "NetworkSerialPort", params)


def usb(exporter: str, group: str, number: str = "") -> Exported:
    return Exported(exporter, group, "BoardUsb", "BoardUsb", {"serial": number})


def place(name: str, acquired: str = "", matches: tuple[str, ...] = (), **tags: str) -> PlaceSeen:
    return tagged(name, tags, acquired, matches)


def tagged(
    name: str, tags: Mapping[str, str], acquired: str = "", matches: tuple[str, ...] = ()
) -> PlaceSeen:
    return PlaceSeen(name, tags, matches, acquired, "")


def test_a_new_place_gets_its_tags_from_the_description() -> None:
    made = plan(KNOWN, [serial("h1", "qrb2210-rb1"), usb("h1", "qrb2210-rb1")], {})
    (change,) = made.changes
    assert change == Change(
        "qrb2210-rb1",
        True,
        {
            "board": "qrb2210-rb1",
            "virtual": "false",
            "soc": "qcm2290",
            **{
                feature_tag(one): "true"
                for one in ("sysrq", "break", "lkdtm", "sahara", "firehose")
            },
        },
        ("h1/qrb2210-rb1/*",),
    )
    assert made.unchanged == made.said == ()


def test_the_longest_name_is_the_board_and_a_serial_number_tells_too() -> None:
    offered = [
        serial("h1", "virtual-2"),
        serial("h1", "virtual-6.1-7"),
        serial("h2", "bench-left"),
        usb("h2", "bench-left", "7B15C6F9".lower()),
        serial("h2", "kettle"),
    ]
    made = plan(KNOWN, offered, {})
    assert {one.place: one.tags["board"] for one in made.changes} == {
        "virtual-2": "virtual-2",
        "virtual-6.1-7": "virtual-6.1",
        "bench-left": "virtual-2",
    }
    (said,) = made.said
    assert said.startswith("h2/kettle: no description")


def test_what_an_exporter_does_not_offer_the_place_has_not() -> None:
    (change,) = plan(KNOWN, [serial("h1", "virtual", protocol="raw")], {}).changes
    assert change.tags["feature_sahara"] == "false"
    assert change.tags["feature_break"] == "false"
    assert change.tags["feature_sysrq"] == "true"


def test_two_hosts_with_groups_of_one_name_are_two_places() -> None:
    made = plan(KNOWN, [serial("h1", "virtual"), serial("h2", "virtual")], {})
    assert [one.place for one in made.changes] == ["h1-virtual", "h2-virtual"]


def test_only_what_is_wrong_is_changed_and_nothing_is_taken_from_anybody() -> None:
    offered = [serial("h1", "virtual"), usb("h1", "virtual")]
    (new,) = plan(KNOWN, offered, {}).changes
    right = place("virtual", matches=("h1/virtual/*",), **new.tags, colour="red")
    assert plan(KNOWN, offered, {"virtual": right}).unchanged == ("virtual",)
    old = dict(new.tags) | {"soc": "x", "feature_gone": "true", "feature_sahara": "false"}
    (change,) = plan(KNOWN, offered, {"virtual": tagged("virtual", old)}).changes
    assert change == Change(
        "virtual",
        False,
        {"feature_sahara": "true", "feature_gone": ""},
        ("h1/virtual/*",),
    )
    held = plan(KNOWN, offered, {"virtual": tagged("virtual", old, "bob/bob")})
    assert held.changes == ()
    assert held.said == ("virtual is left as it is: acquired by bob/bob",)
    named = place("by-the-window", matches=("h1/virtual/*",), **new.tags)
    assert plan(KNOWN, offered, {"by-the-window": named}).unchanged == ("by-the-window",)
    gone = plan(KNOWN, [], {"virtual": right})
    assert gone.said == ("virtual: no exporter offers it now (nothing)",)


# -- which places a plan has

PLAN = "name: x\nboards:\n  - {boards}\n"


def chosen(tmp_path: Path, boards: str, places: dict[str, PlaceSeen] | None, **before: Any) -> Any:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(boards=boards), encoding="utf-8")
    return choose(path, read_plan(path), places, DEVICES, before)


def test_places_are_chosen_by_tags_and_features(tmp_path: Path) -> None:
    places = {
        "a": place("a", board="virtual", feature_sahara="true"),
        "b": place("b", board="virtual", feature_sahara="false"),
        "c": place("c", board="virtual-2", feature_sahara="true"),
        "d/../d": place("d/../d", board="virtual", feature_sahara="true"),
        "e": place("e", board="../../etc/passwd", feature_sahara="true"),
        "f": place("f", board="nothing", feature_sahara="true"),
    }
    shared = chosen(tmp_path, "{features: [sahara]}", places)
    assert {name: seat.board for name, seat in shared.seats.items()} == {
        "a": "virtual",
        "c": "virtual-2",
    }
    assert len(shared.said) == 3
    both = chosen(tmp_path, "{tags: {board: virtual}}", dict(list(places.items())[:3]))
    assert set(both.seats) == {"a", "b"}
    assert "sahara" in both.seats["a"].options.features
    assert "sahara" not in both.seats["b"].options.features
    (board,) = boards_of(both.seats).values()
    assert "sahara" in board.features
    each = chosen(tmp_path, "{tags: {board: virtual}, cells: each}", dict(list(places.items())[:3]))
    assert [one.board for one in each.seats.values()] == ["a", "b"]


def test_a_place_that_is_gone_is_not_forgotten(tmp_path: Path) -> None:
    places = {"a": place("a", board="virtual")}
    stored = StoredPlace(name="b", description="virtual", board="virtual")
    again = chosen(tmp_path, "{tags: {board: virtual}}", places, b=stored)
    assert set(again.seats) == {"a", "b"}


@pytest.mark.parametrize(
    ("boards", "said"),
    [
        ("{tags: {board: other}}", "no place of the coordinator has board=other"),
        ("{}", "name at least one"),
        ("{tag: {board: virtual}}", "there is no key `tag` here"),
        ("{tags: {board: virtual}, cells: some}", "'shared' or 'each'"),
        (f"{DEVICES}/virtual.yaml\n  - {{tags: {{board: virtual}}}}", "two environments are of"),
    ],
)
def test_wrong_choices(tmp_path: Path, boards: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(tmp_path, boards, {"a": place("a", board="virtual")})
    assert said in str(caught.value)


def test_places_want_a_coordinator(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no coordinator is named") as caught:
        chosen(tmp_path, "{tags: {board: virtual}}", None)
    assert "--coordinator" in caught.value.next_step


# -- the command


@pytest.fixture(scope="module")
def offering() -> Iterator[Lab]:
    with lab() as one:
        line = {"host": "127.0.0.1", "port": 4001, "protocol": "rfc2217"}
        one.exports("h1", {f"virtual-{n}": {"NetworkSerialPort": line} for n in ("x", "y")})
        yield one


def farm(lab: Lab, *arguments: str) -> Any:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("farm")), *arguments, "--coordinator", lab.address],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dry_run_changes_nothing_and_writing_makes_what_a_plan_can_choose(
    offering: Lab, tmp_path: Path
) -> None:
    dry = json.loads(farm(offering, "places", "sync", "--json"))
    assert not dry["written"]
    assert [one["place"] for one in dry["changes"]] == ["virtual-x", "virtual-y"]
    assert "`--write` does it" in farm(offering, "places", "sync")
    assert offering.client("places") == ""
    farm(offering, "places", "sync", "--write")
    assert offering.client("places").split() == ["virtual-x", "virtual-y"]
    assert "board=virtual" in offering.client("-p", "virtual-x", "show")
    again = json.loads(farm(offering, "places", "sync", "--json"))
    assert (again["changes"], again["unchanged"]) == ([], ["virtual-x", "virtual-y"])
    (tmp_path / "plan.yaml").write_text(
        "name: x\nboards: [{tags: {board: virtual}, features: [sysrq]}]\n"
        "scenarios: [sysrq-c]\nrepeats: 4\nflash: none\n"
    )
    shown = json.loads(
        farm(offering, "nightly", str(tmp_path / "plan.yaml"), "--dry-run", "--json")
    )
    assert [one["place"] for one in shown["cycles"]] == ["virtual-x", "virtual-y"] * 2
    assert {one["board"] for one in shown["cycles"]} == {"virtual"}
    offering.client("-p", "virtual-x", "acquire", user="bob")
    listed = json.loads(farm(offering, "places", "list", "--json"))["places"]
    assert {one["name"]: one["acquired"] for one in listed} == {
        "virtual-x": "bob-desk/bob",
        "virtual-y": "",
    }
    assert "bob-desk/bob" in farm(offering, "places", "list")
