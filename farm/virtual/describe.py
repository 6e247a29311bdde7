"""A labgrid environment for one more virtual board: that of devices/virtual.yaml, renamed.

Other name, other ports, and with them another USB serial number; all else is the same board.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import farm
from farm.errors import UsageError
from farm.virtual.usb_bus import usb_serial

_FIRST_PORT, _LAST_PORT = 20817, 21817
_PORT = re.compile(r"\b2[01]\d{3}\b")


def template() -> Path:
    """The first virtual board's environment; UsageError where the farm has no project."""
    file = Path(farm.__file__).resolve().parents[1] / "devices" / "virtual.yaml"
    if not file.is_file():
        raise UsageError(f"{file} does not exist", "Install the farm from a checkout: make setup")
    return file


def free_ports(folder: Path) -> tuple[int, int]:
    """Two ports that no environment in ``folder`` names and nobody listens on now."""
    named = {int(one) for file in folder.glob("*.yaml") for one in _PORT.findall(_text(file))}
    for first in range(_FIRST_PORT, _LAST_PORT, 2):
        pair = (first, first + 1)
        if named.isdisjoint(pair) and all(map(_is_free, pair)):
            return pair
    raise UsageError(
        f"no ports are free from {_FIRST_PORT} to {_LAST_PORT}",
        "Give --serial-port and --power-port.",
    )


def environment_text(
    name: str, serial_port: int, power_port: int, folder: Path, up: Iterable[str] = ()
) -> str:
    """The environment of the board ``name`` as it can lie in ``folder``.

    ``up`` are more options of `farm virtual up`.
    """
    source = template()
    tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    target: dict[str, Any] = tree["targets"]["main"]
    # All its commands take the name from `board`.
    target["options"]["board"] = name
    ports = ("--serial-port", str(serial_port), "--power-port", str(power_port))
    target["options"]["bench"]["start"] += [*ports, *up]
    target["resources"]["NetworkSerialPort"]["port"] = serial_port
    url = f"http://localhost:{power_port}/power/{{index}}/{{value}}"
    target["resources"]["NetworkPowerPort"]["host"] = url
    target["resources"]["BoardUsb"]["serial"] = usb_serial(name)
    programmer = source.parent / target["drivers"]["Edl"]["programmer"]
    if folder.resolve() != source.parent:
        target["drivers"]["Edl"]["programmer"] = str(programmer)
    head = (
        "# yaml-language-server: $schema=environment.schema.json\n"
        f"# A virtual board: `farm virtual describe {name}`.\n"
    )
    body: str = yaml.safe_dump(tree, sort_keys=False, width=100, default_flow_style=None)
    return head + body


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
