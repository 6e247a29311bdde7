"""The catalogue of panics: ``catalogue.yaml``, one entry per way to crash a board.

Adding a scenario is adding an entry there. It is a list of groups; an entry has what its group's
``defaults`` say, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from farm.errors import UsageError
from farm.scenarios.scenario import Before, Boot, ResetPath, Scenario, Trigger

__all__ = [
    "CATALOGUE",
    "Before",
    "Boot",
    "ResetPath",
    "Scenario",
    "Trigger",
    "read_catalogue",
    "scenario_named",
    "select",
]

_PATH = Path(__file__).with_name("catalogue.yaml")


def _entry(group: dict[str, Any], raw: dict[str, Any], path: Path) -> Scenario:
    values = {"group": group["group"], **group.get("defaults", {}), **raw}
    if "name" not in values and "argument" in values:
        kind = str(values["argument"]).lower().replace("_", "-").replace("/", "-")
        values["name"] = f"{values['group']}-{kind}"
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        words = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UsageError(
            f"{path}, scenario {values.get('name', raw)}: {'; '.join(words)}"
        ) from error


def read_catalogue(path: Path = _PATH) -> tuple[Scenario, ...]:
    """Read a catalogue; raises UsageError naming the file, the scenario and the field."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        groups = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}") from error
    entries = [_entry(group, raw, path) for group in groups for raw in group["scenarios"]]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path}: there twice: {', '.join(twice)}")
    return tuple(entries)


CATALOGUE = read_catalogue()
_BY_NAME = {scenario.name: scenario for scenario in CATALOGUE}


def scenario_named(name: str) -> Scenario:
    """Return the scenario called ``name``; UsageError lists the names there are."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(
            f"there is no scenario {name!r}",
            f"The scenarios are: {', '.join(sorted(_BY_NAME))}.",
        ) from None


def select(patterns: Iterable[str]) -> tuple[Scenario, ...]:
    """Return the scenarios that the patterns name, each once, in the patterns' order.

    A pattern is a name, a shell pattern over names, a group, ``quick`` or ``all``; UsageError for
    one that names nothing.
    """
    found: dict[str, Scenario] = {}
    for pattern in patterns:
        hits = [
            one
            for one in CATALOGUE
            if pattern in ("all", one.name, one.group)
            or (pattern == "quick" and one.quick)
            or fnmatchcase(one.name, pattern)
        ]
        if not hits:
            groups = ", ".join(dict.fromkeys(one.group for one in CATALOGUE))
            raise UsageError(
                f"there is no scenario {pattern!r}",
                f"`farm scenarios` lists them. Groups: all, quick, {groups}.",
            )
        found.update((one.name, one) for one in hits)
    return tuple(found.values())
