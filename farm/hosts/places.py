"""Places as they should be: a place for each board that an exporter offers, its tags from devices/.

A group of resources is the board whose description it is named after (``qrb2210-rb1`` or
``qrb2210-rb1-3``), or whose description has the serial number of its USB device. What else somebody
has given a place, matches and tags and places, is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from farm.bench.environment import read_target
from farm.bench.options import BenchOptions, parse_options
from farm.errors import UsageError
from farm.hosts.coordinator import Coordinator, PlaceSeen
from farm.hosts.environment import BOARD_TAG, Exported

__all__ = ["Change", "Description", "Plan", "descriptions", "feature_tag", "plan", "write"]

_FEATURE = "feature_"
# What goes over the board's USB.
_OVER_USB = frozenset({"sahara", "firehose", "fastboot"})
_USB = ("usb", "fastboot")


def feature_tag(feature: str) -> str:
    """The tag of a feature: ``feature_sahara``, which is true or false."""
    return _FEATURE + feature.replace("-", "_")


@dataclass(frozen=True)
class Description:
    """A file of devices/: its stem, its options, and the serial number of the board's USB."""

    stem: str
    options: BenchOptions
    usb_serial: str


@dataclass(frozen=True)
class Change:
    """What a place lacks: itself (``is_new``), tags (an empty value takes one away), matches."""

    place: str
    is_new: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    matches: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """The changes, the places that are as they should be, and what is to be said."""

    changes: Sequence[Change]
    unchanged: Sequence[str]
    said: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON."""
        return asdict(self)


def descriptions(devices: Path) -> dict[str, Description]:
    """The descriptions by stem; raises UsageError for a folder without any, or a wrong one."""
    found = {}
    for file in sorted(devices.glob("*.yaml")):
        target = read_target(file)
        options = parse_options(target.get("options"), target.get("features"), file)
        resources = target.get("resources") or {}
        named = [resources] if isinstance(resources, dict) else resources
        usb: dict[str, Any] = next((one["BoardUsb"] for one in named if "BoardUsb" in one), {})
        found[file.stem] = Description(file.stem, options, str(usb.get("serial", "")))
    if not found:
        raise UsageError(
            f"there are no descriptions of boards in {devices}",
            "`farm board new` makes one; --devices names the folder.",
        )
    return found


def _described(
    group: str, resources: Sequence[Exported], known: Mapping[str, Description]
) -> Description | None:
    """The description of a group's board."""
    named = [stem for stem in known if group == stem or group.startswith((f"{stem}-", f"{stem}."))]
    # virtual-2 is a description of its own, and no second board of `virtual`.
    if named:
        return known[max(named, key=len)]
    serials = {str(one.params.get("serial", "")).lower() for one in resources} - {""}
    for one in known.values():
        if one.usb_serial.lower() in serials:
            return one
    return None


def _tags(description: Description, resources: Sequence[Exported]) -> dict[str, str]:
    """A place's tags; a feature that the exporter offers nothing for is false."""
    options = description.options
    tags = {BOARD_TAG: description.stem, "virtual": str(options.virtual).lower()}
    if options.soc:
        tags["soc"] = options.soc
    has_usb = any(word in one.cls.lower() for one in resources for word in _USB)
    breaks = any(
        "SerialPort" in one.cls and one.params.get("protocol") != "raw" for one in resources
    )
    for feature in sorted(options.features):
        there = has_usb if feature in _OVER_USB else breaks if feature == "break" else True
        tags[feature_tag(feature)] = str(there).lower()
    return tags


def plan(
    known: Mapping[str, Description],
    resources: Iterable[Exported],
    places: Mapping[str, PlaceSeen],
) -> Plan:
    """What places are to be made or changed for what exporters offer; pure."""
    groups: dict[tuple[str, str], list[Exported]] = {}
    for one in resources:
        groups.setdefault((one.exporter, one.group), []).append(one)
    changes, unchanged, said = [], [], []
    names = [group for _, group in groups]
    offered: set[str] = set()
    for (exporter, group), own in sorted(groups.items()):
        description = _described(group, own, known)
        if description is None:
            said.append(
                f"{exporter}/{group}: no description in devices/ is its board's; name the group "
                "after one, or make the place by hand with the tag board=NAME"
            )
            continue
        match = f"{exporter}/{group}/*"
        by_match = [one.name for one in places.values() if match in one.matches]
        name = by_match[0] if by_match else group if names.count(group) == 1 else ""
        name = name or f"{exporter}-{group}"
        offered.add(name)
        place = places.get(name)
        change = _change(name, match, _tags(description, own), place)
        if place is not None and place.acquired and (change.tags or change.matches):
            said.append(f"{name} is left as it is: acquired by {place.acquired}")
        elif change.is_new or change.tags or change.matches:
            changes.append(change)
        else:
            unchanged.append(name)
    for place in places.values():
        if BOARD_TAG in place.tags and place.name not in offered:
            said.append(f"{place.name}: no exporter offers it now ({place.unmatched or 'nothing'})")
    return Plan(tuple(changes), tuple(unchanged), tuple(said))


def _change(name: str, match: str, tags: Mapping[str, str], place: PlaceSeen | None) -> Change:
    if place is None:
        return Change(name, True, dict(tags), (match,))
    wrong = {key: value for key, value in tags.items() if place.tags.get(key) != value}
    gone = {key: "" for key in place.tags if key.startswith(_FEATURE) and key not in tags}
    return Change(name, False, wrong | gone, () if match in place.matches else (match,))


def write(coordinator: Coordinator, changes: Iterable[Change]) -> None:
    """Make and change the places; raises BenchError naming what the coordinator refuses."""
    for change in changes:
        if change.is_new:
            coordinator.call("AddPlace", name=change.place)
        if change.tags:
            coordinator.call("SetPlaceTags", placename=change.place, tags=dict(change.tags))
        for match in change.matches:
            coordinator.call("AddPlaceMatch", placename=change.place, pattern=match)
