"""Qualcomm's Test Automation Controller (TAC, Alpaca, Bughopper) by way of pytactl's service.

pytactl (PyPI, BSD-3-Clause, 3.2) drives the debug boards; `pytactl service --serial S` offers them
over HTTP: `PUT /S/quick/NAME` runs a sequence such as powerOn, `PUT /S/command/PIN` with a value
sets a pin. A service holds the board open: each `pytactl oneshot` would set all pins to what they
are at first, and so let go of a key. It runs in an environment of its own, because it needs the
package pyserial, which overwrites the module of labgrid's: `make alpaca`.
"""

from __future__ import annotations

from typing import Any

import attr
import requests
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.protocol import DigitalOutputProtocol, PowerProtocol
from labgrid.resource.common import Resource

from farm.errors import BenchError, DeadlineError, UsageError

_PART = "power"
_ANSWER_DEADLINE_S = 5.0
# powerOn and bootToEDL wait for the board in between.
_SEQUENCE_DEADLINE_S = 60.0
_SERVICE = "Start it where the debug board is: `pytactl service --serial SERIAL`; `make alpaca` "
_SERVICE += "installs pytactl."
# Debug boards differ in how they write it.
_SEQUENCES = {"edl": ("bootToEDL",), "fastboot": ("bootToFastboot", "bootToFastBoot")}


@target_factory.reg_resource
@attr.s(eq=False)
class TacService(Resource):  # type: ignore[misc]  # labgrid has no types
    """A debug board behind `pytactl service`: where that is, and its own serial number."""

    url: str = attr.ib(validator=attr.validators.instance_of(str))
    serial: str = attr.ib(converter=str)


@target_factory.reg_driver
@attr.s(eq=False)
class TacBoard(Driver):  # type: ignore[misc]  # labgrid has no types
    """Asks a `pytactl service`; what it switches has drivers of its own."""

    bindings = {"service": TacService}  # noqa: RUF012  # labgrid's way

    @property
    def _url(self) -> str:
        return f"{self.service.url.rstrip('/')}/{self.service.serial}"

    def _ask(self, method: str, path: str, deadline_s: float, **body: int) -> Any:
        url = f"{self._url}{path}"
        what = f"{method} {url}"
        try:
            answer = requests.request(
                method, url, json=body or None, timeout=(_ANSWER_DEADLINE_S, deadline_s)
            )
        except requests.Timeout as error:
            raise DeadlineError(
                what,
                part=_PART,
                deadline_s=deadline_s,
                next_step="Is the debug board plugged in? Restart its service.",
            ) from error
        except requests.RequestException as error:
            raise BenchError(
                f"the TAC service {self.service.url} cannot be reached: {error}",
                part=_PART,
                next_step=_SERVICE,
            ) from error
        if answer.status_code != requests.codes.ok:
            raise BenchError(
                f"the debug board {self.service.serial} failed: {what} ended with "
                f"{answer.status_code}",
                part=_PART,
                next_step="Is the debug board plugged in? Restart its service, read its log.",
            )
        try:
            return answer.json()
        except requests.JSONDecodeError as error:
            raise BenchError(
                f"{self.service.url} is no TAC service: {what} gave no JSON",
                part=_PART,
                next_step=_SERVICE,
            ) from error

    def _known(self, kind: str, *wanted: str) -> str:
        """Which of these names the board has; the service would accept any, and any board."""
        names = self._ask("GET", f"/{kind}", _ANSWER_DEADLINE_S)
        if not names:
            raise BenchError(
                f"the TAC service {self.service.url} has no debug board {self.service.serial}",
                part=_PART,
                next_step="Start it with that serial number; `pytactl list` shows them.",
            )
        found = next((one for one in wanted if one in names), None)
        if found is None:
            raise UsageError(
                f"the debug board {self.service.serial} has no {kind} {' or '.join(wanted)}",
                f"It has: {', '.join(sorted(filter(None, names)))}.",
            )
        return found

    def sequence(self, *names: str) -> None:
        """Run the sequence that has one of these names; raises BenchError, UsageError."""
        name = self._known("quick", *names)
        self._ask("PUT", f"/quick/{name}", _SEQUENCE_DEADLINE_S)

    def pin(self, name: str, high: bool) -> None:
        """Set a pin; raises BenchError, UsageError."""
        self._known("command", name)
        self._ask("PUT", f"/command/{name}", _ANSWER_DEADLINE_S, value=int(high))


@target_factory.reg_driver
@attr.s(eq=False)
class TacPower(Driver, PowerProtocol):  # type: ignore[misc]  # labgrid has no types
    """The board's power, and its ways into EDL and fastboot, by a TAC debug board."""

    bindings = {"board": TacBoard}  # noqa: RUF012  # labgrid's way

    def on(self) -> None:
        """Switch on, and press the power key; raises BenchError."""
        self.board.sequence("powerOn")

    def off(self) -> None:
        """Switch off; raises BenchError."""
        self.board.sequence("powerOff")

    def cycle(self) -> None:
        """Switch off and on; raises BenchError."""
        self.off()
        self.on()

    def boot_to(self, mode: str) -> None:
        """Boot the board cold into ``edl`` or ``fastboot``; raises BenchError, UsageError."""
        if mode not in _SEQUENCES:
            raise UsageError(
                f"a TAC debug board has no sequence into {mode}",
                f"It has them for {', '.join(_SEQUENCES)}.",
            )
        self.board.sequence(*_SEQUENCES[mode])


@attr.s(eq=False)
class _Pin(Driver, DigitalOutputProtocol):  # type: ignore[misc]  # labgrid has no types
    bindings = {"board": TacBoard}  # noqa: RUF012  # labgrid's way

    pin: str = attr.ib(default="", converter=str)
    inverted: bool = attr.ib(default=False, validator=attr.validators.instance_of(bool))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._last: bool | None = None

    def set(self, status: bool) -> None:
        """Press or switch on, let go or switch off; raises BenchError."""
        self._last = None
        self.board.pin(self.pin, bool(status) != self.inverted)
        self._last = bool(status)

    def get(self) -> bool:
        """What was set last; raises BenchError when nothing was."""
        if self._last is None:
            raise BenchError(f"nobody has set {self.pin} of the debug board yet", part=_PART)
        return self._last


@target_factory.reg_driver
@attr.s(eq=False)
class TacFastbootKey(_Pin):
    """The key that is held for fastboot, by a TAC debug board: volume down, as a rule."""

    pin: str = attr.ib(default="voldn", converter=str)


@target_factory.reg_driver
@attr.s(eq=False)
class TacPowerKey(_Pin):
    """The power key, by a TAC debug board."""

    pin: str = attr.ib(default="pkey", converter=str)


@target_factory.reg_driver
@attr.s(eq=False)
class TacEdlStrap(_Pin):
    """The strap for EDL, by a TAC debug board."""

    pin: str = attr.ib(default="pedl", converter=str)


@target_factory.reg_driver
@attr.s(eq=False)
class TacUsb(_Pin):
    """The board's USB, by a TAC debug board: its pin disconnects it."""

    pin: str = attr.ib(default="usb0", converter=str)
    inverted: bool = attr.ib(default=True, validator=attr.validators.instance_of(bool))
