"""Where is my board? One answer from its power, its USB cable and its console together."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from farm.bench.console import RecordedConsole
from farm.bench.inject import PANIC
from farm.bench.power import Power
from farm.bench.recording import printable
from farm.bench.shell import BoardShell
from farm.errors import BenchError
from farm.qualcomm.identity import Mode

PROBE_S = 1.5
LOOK_S = 1.5
# So many boots without a prompt between them are a loop.
BOOTS_OF_A_LOOP = 3
_BOOT = re.compile(rb"Linux version [0-9]")


class Place(StrEnum):
    """Where a board can be."""

    OFF = "off"
    EDL = "boot ROM EDL"
    CRASH = "crash mode"
    FASTBOOT = "fastboot"
    BOOTING = "kernel booting"
    SHELL = "shell"
    PANICKING = "panicking"
    HUNG = "hung"
    BOOT_LOOP = "boot loop"
    UNKNOWN = "unknown"


_MODES = {Mode.EDL: Place.EDL, Mode.CRASH: Place.CRASH, Mode.FASTBOOT: Place.FASTBOOT}


@dataclass(frozen=True)
class Whereabouts:
    """The answer, what it rests on, and how long it took."""

    place: Place
    evidence: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.place.value} ({'; '.join(self.evidence)})"


def _places(pattern: re.Pattern[bytes], data: bytes) -> list[int]:
    return [match.start() for match in pattern.finditer(data)]


def where_is(
    console: RecordedConsole, shell: BoardShell, switch: Power, usb: Any | None
) -> Whereabouts:
    """Find the board within 5 s; a part of the bench that fails is evidence, not an error.

    The shell is asked, which ends a command that runs there.
    """
    started = time.monotonic()
    evidence: list[str] = []

    def answer(place: Place) -> Whereabouts:
        return Whereabouts(place, tuple(evidence), round(time.monotonic() - started, 3))

    powered: bool | None = None
    try:
        powered = switch.is_on()
        evidence.append({True: "power on", False: "power off", None: "power unknown"}[powered])
    except BenchError as error:
        evidence.append(f"power unknown: {error.message}")
    if powered is False:
        return answer(Place.OFF)
    if usb is not None:
        try:
            found = usb.find()
            evidence.append("no USB device" if found is None else f"USB {found.mode.value}")
            if found is not None:
                return answer(_MODES[found.mode])
        except BenchError as error:
            evidence.append(f"USB unknown: {error.message}")
    if console.lost is not None:
        evidence.append(f"console lost: {console.lost}")
        return answer(Place.UNKNOWN)
    before = console.stream.received_bytes
    try:
        if shell.answers(PROBE_S):
            evidence.append("the shell answers")
            return answer(Place.SHELL)
    except BenchError as error:
        evidence.append(f"console lost: {error.message}")
        return answer(Place.UNKNOWN)
    return answer(_by_console(console, shell, before, powered, evidence))


def _by_console(
    console: RecordedConsole,
    shell: BoardShell,
    before: int,
    powered: bool | None,
    evidence: list[str],
) -> Place:
    console.stream.wait_quiet(LOOK_S)
    recent = console.stream.recent()
    talks = console.stream.received_bytes > before
    evidence.append("the console talks" if talks else "the console is silent")
    boots = _places(_BOOT, recent)
    panics = _places(PANIC, recent)
    prompt = max(_places(re.compile(shell.prompt.encode()), recent), default=-1)
    boots_since_prompt = sum(at > prompt for at in boots)
    if boots_since_prompt >= BOOTS_OF_A_LOOP:
        evidence.append(f"{boots_since_prompt} boots and no prompt between them")
        return Place.BOOT_LOOP
    if panics and panics[-1] > max([prompt, *boots]):
        evidence.append(f"its last words are {printable(recent[panics[-1] :][:120])!r}")
        return Place.PANICKING if talks else Place.HUNG
    if talks:
        return Place.BOOTING
    if powered:
        return Place.HUNG
    return Place.UNKNOWN
