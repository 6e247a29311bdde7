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

# The whole answer comes within five seconds, whatever part of the bench fails.
_POWER_S = 1.0
_USB_S = 1.5
_PROBE_S = 1.0
_WITHIN_S = 4.4
_LOOK_AGAIN_S = 0.3
# So many boots without a prompt between them are a loop, whatever is said of a panic.
BOOTS_OF_A_LOOP = 3
# A kernel may say so little while it boots.
_QUIET_BOOT_S = 10.0
_RESTART_MARGIN_S = 2.0
_BOOT = re.compile(rb"Linux version [0-9]")
# The last words of a kernel that does not restart, and of one that will.
_STOPPED = re.compile(rb"---\[ end Kernel panic - not syncing")
_RESTARTING = re.compile(rb"Rebooting in ([0-9]{1,5}) seconds")


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
    console: RecordedConsole, shell: BoardShell, power: Any, usb: Any | None
) -> Whereabouts:
    """Find the board within 5 s; a part of the bench that fails is evidence, not an error.

    ``power`` is labgrid's driver, ``usb`` a UsbBoot. The shell is asked, which ends a command that
    runs there.
    """
    started = time.monotonic()
    evidence: list[str] = []

    def answer(place: Place) -> Whereabouts:
        return Whereabouts(place, tuple(evidence), round(time.monotonic() - started, 3))

    powered: bool | None = None
    try:
        powered = Power(power, _POWER_S).is_on()
        evidence.append({True: "power on", False: "power off", None: "power unknown"}[powered])
    except BenchError as error:
        evidence.append(f"power unknown: {error.message}")
    if powered is False:
        return answer(Place.OFF)
    if usb is not None:
        try:
            found = usb.find(_USB_S)
            evidence.append("no USB device" if found is None else f"USB {found.mode.value}")
            if found is not None:
                return answer(_MODES[found.mode])
        except BenchError as error:
            evidence.append(f"USB unknown: {error.message}")
            usb = None
    if console.lost is not None:
        evidence.append(f"console lost: {console.lost}")
        return answer(Place.UNKNOWN)
    before = console.stream.received_bytes
    try:
        if shell.answers(_PROBE_S):
            evidence.append("the shell answers")
            return answer(Place.SHELL)
    except BenchError as error:
        evidence.append(f"console lost: {error.message}")
        return answer(Place.UNKNOWN)
    end = started + _WITHIN_S
    while (place := _certain(console, shell, usb, evidence)) is None:
        if _prompt_came(console, shell, before) and shell.answers(_PROBE_S):
            evidence.append("the shell answers")
            return answer(Place.SHELL)
        left_s = end - time.monotonic()
        if left_s <= 0:
            break
        console.stream.wait_quiet(min(_LOOK_AGAIN_S, left_s))
    return answer(place or _likely(console, shell, before, powered, evidence))


class _Said:
    """What the console has said lately, by its turning points."""

    def __init__(self, console: RecordedConsole, shell: BoardShell) -> None:
        self.recent = console.stream.recent()
        self.boots = _places(_BOOT, self.recent)
        self.panics = _places(PANIC, self.recent)
        self.prompt = max(_places(re.compile(shell.prompt.encode()), self.recent), default=-1)
        self.boots_since_prompt = [at for at in self.boots if at > self.prompt]
        self.panics_since_prompt = [at for at in self.panics if at > self.prompt]

    @property
    def panic(self) -> bytes | None:
        """The words from the panic on, if that is the last thing that happened."""
        if self.panics and self.panics[-1] > max([self.prompt, *self.boots]):
            return self.recent[self.panics[-1] :]
        return None

    @property
    def loops(self) -> bool:
        """Whether it boots, panics before any prompt, and boots again or says that it will."""
        boots, panics = self.boots_since_prompt, self.panics_since_prompt
        if len(boots) >= BOOTS_OF_A_LOOP:
            return True
        early = [at for at in panics if boots and at > boots[0]]
        return bool(early) and (
            boots[-1] > early[0] or _RESTARTING.search(self.recent, early[0]) is not None
        )


def _certain(
    console: RecordedConsole, shell: BoardShell, usb: Any | None, evidence: list[str]
) -> Place | None:
    """What need not be looked at any longer."""
    said = _Said(console, shell)
    if said.loops:
        boots, panics = len(said.boots_since_prompt), len(said.panics_since_prompt)
        evidence.append(f"{boots} boots and {panics} panics without a prompt")
        return Place.BOOT_LOOP
    if said.panic is not None and _STOPPED.search(said.panic) is not None:
        evidence.append("its kernel has panicked and stopped")
        return Place.HUNG
    if usb is not None:
        try:
            found = usb.find(_USB_S)
        except BenchError:
            return None
        if found is not None:
            evidence.append(f"now USB {found.mode.value}")
            return _MODES[found.mode]
    return None


def _prompt_came(console: RecordedConsole, shell: BoardShell, before: int) -> bool:
    """Whether the board has come to its prompt while it was looked at."""
    count = console.stream.received_bytes - before
    fresh = console.stream.recent()[-count:] if count else b""
    prompts = _places(re.compile(shell.prompt.encode()), fresh)
    return bool(prompts) and prompts[-1] > max([-1, *_places(_BOOT, fresh), *_places(PANIC, fresh)])


def _likely(
    console: RecordedConsole,
    shell: BoardShell,
    before: int,
    powered: bool | None,
    evidence: list[str],
) -> Place:
    said = _Said(console, shell)
    quiet_s = console.stream.quiet_s
    talks = console.stream.received_bytes > before
    evidence.append("the console talks" if talks else "the console is silent")
    if said.panic is not None:
        evidence.append(f"its last words are {printable(said.panic[:120])!r}")
        restart = _RESTARTING.search(said.panic)
        waits_s = int(restart[1]) + _RESTART_MARGIN_S if restart else 0.0
        return Place.PANICKING if quiet_s < max(_LOOK_AGAIN_S, waits_s) else Place.HUNG
    if talks or (said.boots_since_prompt and quiet_s < _QUIET_BOOT_S):
        return Place.BOOTING
    return Place.HUNG if powered else Place.UNKNOWN
