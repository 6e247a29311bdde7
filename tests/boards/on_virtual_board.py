"""A real board's description on a virtual board: only the places in it are replaced.

Those are: the serial server's host and port, where power switch or debug board are, the USB serial
number, the bench's hooks, the programmer's file, and what the virtual board's kernel has instead of
qcom_scm. A debug board's far end is simulated, and does to the virtual board what it is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from farm.virtual.control import ask
from farm.virtual.layout import BoardDir
from farm.virtual.usb_bus import usb_serial
from tests.bench.debug_boards import Psoc, Qcomlt
from tests.bench.test_debug_boards import BATTERY, PEDL, SERIAL, VOLDN, tac_bench
from tests.bench.virtual_board import DEVICES

FARM = [sys.executable, "-c", "from farm.cli import main; main()", "virtual"]


class Hands:
    """What a debug board's wires do to a virtual board."""

    def __init__(self, name: str, power_port: int) -> None:
        self._name, self._power_port = name, power_port
        self._pins: dict[int, int] = {}

    def power(self, on: bool) -> None:
        url = f"http://localhost:{self._power_port}/power/0/{int(on)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()

    def hold(self, key: str, held: bool) -> None:
        ask(BoardDir.of(self._name), "press", button=key, on=held)

    def letter(self, letter: str) -> None:
        if letter in "Pp":
            self.power(letter == "P")
        elif letter in "Rr":
            self.hold("fastboot", letter == "R")

    def pin(self, pin: int, value: int) -> None:
        if self._pins.get(pin, 0) == value and pin != BATTERY:
            return
        self._pins[pin] = value
        if pin == BATTERY:
            # The pin disconnects it.
            self.power(not value)
        elif pin == VOLDN:
            self.hold("fastboot", bool(value))
        elif pin == PEDL:
            self.hold("edl", bool(value))


def personality_of(description: dict[str, Any]) -> str:
    """Whose bootloader a description is for, by how that reads memory."""
    reader = description["targets"]["main"]["drivers"]["Fastboot"]["reader"]
    return {"lk2nd": "lk2nd", "u-boot": "u-boot", "none": "abl"}[reader]


@contextmanager
def description_on_virtual_board(file: Path, root: Path, name: str) -> Iterator[Path]:
    """The description's environment for a virtual board ``name``, which is up meanwhile."""
    data = yaml.safe_load(file.read_text())
    main = data["targets"]["main"]
    resources, drivers = main["resources"], main["drivers"]
    up = subprocess.run(
        [*FARM, "up", "--name", name, "--json", "--personality", personality_of(data)],
        check=True,
        capture_output=True,
    )
    said = json.loads(up.stdout)
    host, _, serial_port = said["serial_url"].rpartition("/")[2].rpartition(":")
    power_port = int(str(said["power_host"]).split(":")[2].split("/")[0])
    with ExitStack() as ends:
        ends.callback(subprocess.run, [*FARM, "down", "--name", name], capture_output=True)
        hands = Hands(name, power_port)
        resources["NetworkSerialPort"].update(host=host, port=int(serial_port))
        _connect_power(resources, hands, power_port, ends.callback)
        resources["BoardUsb"] = {"serial": usb_serial(name)}
        drivers["UsbBoot"] = {"environment": ["farm", "virtual", "environment"]}
        drivers["Edl"]["programmer"] = str(DEVICES / "virtual-programmer.elf")
        drivers["DownloadMode"] = {
            "on": "devmem 0x5fdff010 32 0x10",
            "off": "devmem 0x5fdff010 32 0",
            "get": "devmem 0x5fdff010 32",
        }
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        yield path


def _connect_power(
    resources: dict[str, Any], hands: Hands, power_port: int, at_end: Callable[..., Any]
) -> None:
    if "QcomltDebugPort" in resources:
        letters = Qcomlt(hands.letter)
        at_end(letters.close)
        resources["QcomltDebugPort"]["port"] = letters.path
    elif "TacService" in resources:
        psoc = Psoc(hands.pin)
        at_end(psoc.close)
        service = tac_bench(psoc)
        at_end(service.process.wait)
        at_end(service.process.kill)
        resources["TacService"].update(url=service.url, serial=SERIAL)
    else:
        url = f"http://localhost:{power_port}/power/{{index}}/{{value}}"
        resources["NetworkPowerPort"].update(model="simplerest", host=url, index="0")
