"""A labgrid environment for a place: the board's description from here, its resources from there.

Drivers, strategy and options are those of ``devices/<board>.yaml``, which the place's tag ``board``
names; resources become the RemotePlace. Commands of the description run on the host of the board.
What a coordinator says is taken for names only: of the board's file, of the host, of the group. No
command line comes from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labgrid.config import Config
from labgrid.util.yaml import dump

from farm.bench.environment import ROLE, read_target
from farm.bench.hooks import ON_HOST, filled
from farm.bench.hosts import is_host
from farm.errors import BenchError, UsageError

__all__ = [
    "BOARD_TAG",
    "Exported",
    "device_file",
    "environment_of",
    "exported",
    "write_environment",
]

# The tag of a place that names its description: board=qcs6490-rb3gen2 is that .yaml in devices/.
BOARD_TAG = "board"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_LOOPBACK = ("localhost", "127.0.0.1", "")


@dataclass(frozen=True)
class Exported:
    """A resource as the coordinator tells of it: where it comes from, its class and parameters."""

    exporter: str
    group: str
    cls: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The host that it hangs on, as ssh takes it; empty where it is none of ours."""
        extra = self.params.get("extra") or {}
        proxy = extra.get("proxy") if extra.get("proxy_required") else ""
        for one in (proxy, self.params.get("host")):
            if one not in _LOOPBACK and is_host(one):
                return str(one)
        return ""


def exported(session: Any, place: Any = None) -> list[Exported]:
    """What exporters offer, by labgrid's session; of a ``place``, what its matches name."""
    return [
        Exported(exporter, group, one.cls, name, dict(one.params))
        for exporter, groups in sorted(session.resources.items())
        for group, resources in sorted(groups.items())
        for name, one in sorted(resources.items())
        # labgrid keeps an entry without a class for a resource that has gone.
        if "cls" in one.data and (place is None or place.hasmatch((exporter, group, one.cls, name)))
    ]


def _name(text: str, what: str) -> str:
    if not _NAME.fullmatch(text):
        raise BenchError(
            f"{what} {text!r} is no name: 1 to 48 letters, digits, '.', '_' or '-'", part="bench"
        )
    return text


def device_file(place: str, tags: Mapping[str, str], devices: Path) -> Path:
    """The description of a place's board; raises BenchError naming what the place lacks."""
    stem = tags.get(BOARD_TAG)
    if not stem:
        raise BenchError(
            f"the place {place} does not say which board it is",
            part="bench",
            next_step=f"`labgrid-client -p {place} set-tags {BOARD_TAG}=NAME`: the name of a file "
            f"{devices}/NAME.yaml.",
        )
    found = devices / f"{_name(stem, f'place {place}: the board')}.yaml"
    if not found.is_file():
        raise BenchError(
            f"the place {place} is a {stem}, and there is no {found}",
            part="bench",
            next_step="`farm board new` describes a board; --devices names another folder.",
        )
    return found


def _where(resources: Iterable[Exported]) -> tuple[str, str]:
    """(host, group) of the board: where its USB cable ends, or else its serial line."""
    order = sorted(
        (one for one in resources if one.host),
        key=lambda one: ("USB" not in one.cls.upper(), "Serial" not in one.cls),
    )
    return (order[0].host, order[0].group) if order else ("", "")


def environment_of(
    place: str,
    tags: Mapping[str, str],
    resources: Iterable[Exported],
    devices: Path,
    coordinator: str,
    board: str = "",
) -> dict[str, Any]:
    """The environment of a place, as a dict for YAML; ``board`` or the place names the board.

    ``resources`` tell which host the commands of the description run on; where they name none, the
    commands are left out, and with them what needs them. Raises BenchError for what the coordinator
    says, UsageError for a fault in the description.
    """
    file = device_file(_name(place, "the place"), tags, devices)
    target = read_target(file)
    host, group = _where(resources)
    names = {"board": _name(group, f"place {place}: the group")} if host else {}

    def there(words: Iterable[str]) -> list[str]:
        words = list(words)
        if not words or not host:
            return []
        if words[0].startswith(ON_HOST):
            return filled(words, names)
        return [f"{ON_HOST}{host}", *filled(words, names)]

    options = dict(target["options"]) | {"board": board or place}
    hook = options.get("bench") or {}
    # Starting and stopping boards is the business of who exports them.
    options["bench"] = {"status": there(hook.get("status") or ())}
    for name in ("boot_with", "reset"):
        options[name] = there(options.get(name) or ())
    drivers = _drivers(target["drivers"], file, names, there)
    data = Config(str(file)).data
    return {
        **{key: value for key, value in data.items() if key != "targets"},
        "imports": [_import(one, file) for one in data.get("imports") or ()],
        "options": {**(data.get("options") or {}), "coordinator_address": coordinator},
        "targets": {
            ROLE: {
                **target,
                "options": options,
                "resources": {"RemotePlace": {"name": place}},
                "drivers": drivers,
            }
        },
    }


def _import(name: str, file: Path) -> str:
    return str((file.parent / name).resolve()) if name.endswith(".py") else name


def _drivers(raw: Any, file: Path, names: Mapping[str, str], there: Any) -> Any:
    """The drivers of a description, their commands and files made to fit."""
    if isinstance(raw, list):
        return [_drivers(one, file, names, there) for one in raw]
    found: dict[str, Any] = {}
    for name, given in raw.items():
        arguments = dict(given) if isinstance(given, dict) else given
        if name == "UsbBoot" and arguments.get("environment"):
            # It is run where the cable ends, whichever host that is.
            arguments["environment"] = filled(arguments["environment"], names)
        if name == "Edl" and arguments.get("programmer"):
            arguments["programmer"] = str((file.parent / arguments["programmer"]).resolve())
        if name == "PanicFarmStrategy" and arguments.get("keys"):
            arguments["keys"] = _keys(arguments["keys"], there)
        found[name] = arguments
    return found


def _keys(keys: Mapping[str, Any], there: Any) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for mode, key in keys.items():
        if "driver" in key:
            held[mode] = key
        elif all((words := {what: there(line) for what, line in key.items()}).values()):
            held[mode] = words
    return held


def write_environment(
    place: str,
    tags: Mapping[str, str],
    resources: Iterable[Exported],
    devices: Path,
    folder: Path,
    coordinator: str,
    board: str = "",
) -> Path:
    """Write the environment of a place as ``folder/<place>.yaml``; see `environment_of`."""
    # labgrid makes drivers in the order of the file.
    text = dump(
        environment_of(place, tags, resources, devices, coordinator, board), sort_keys=False
    )
    path = folder / f"{place}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"# The place {place}, as it was found at the coordinator {coordinator}.\n{text}",
            encoding="utf-8",
        )
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return path
