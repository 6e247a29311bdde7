"""The qcomlt debug board: power, USB and keys of a board by single letters on a serial port.

Source: linux-msm/cdba, qcomlt_dbg.c: 115200 8n1, capital letters switch on or press, small ones
switch off or let go. The board answers nothing, so nothing of it can be asked.
"""

from __future__ import annotations

import contextlib
import termios
import threading
import time
from typing import Any

import attr
import serial
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.protocol import DigitalOutputProtocol, PowerProtocol
from labgrid.resource.common import Resource

from farm.errors import BenchError

_WRITE_DEADLINE_S = 3.0
_PART = "power"


@target_factory.reg_resource
@attr.s(eq=False)
class QcomltDebugPort(Resource):  # type: ignore[misc]  # labgrid has no types
    """The control port of a qcomlt debug board.

    ``port`` is a device (/dev/serial/by-id/...) or what pyserial takes for one, as
    rfc2217://host:port.
    """

    port: str = attr.ib(validator=attr.validators.instance_of(str))
    speed: int = attr.ib(default=115200, converter=int)


@target_factory.reg_driver
@attr.s(eq=False)
class QcomltDebugBoard(Driver):  # type: ignore[misc]  # labgrid has no types
    """Sends letters to a qcomlt debug board; what it switches has drivers of its own."""

    bindings = {"port": QcomltDebugPort}  # noqa: RUF012  # labgrid's way

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._serial: Any = None
        self._lock = threading.Lock()

    def on_deactivate(self) -> None:
        """Close the port."""
        self._close()

    def _close(self) -> None:
        link, self._serial = self._serial, None
        if link is not None:
            with contextlib.suppress(serial.SerialException, termios.error, OSError):
                link.close()

    def _open(self) -> Any:
        local = {} if "://" in self.port.port else {"exclusive": True}
        return serial.serial_for_url(
            self.port.port,
            baudrate=self.port.speed,
            timeout=0,
            write_timeout=_WRITE_DEADLINE_S,
            **local,
        )

    def send(self, letter: str) -> None:
        """Send one letter; a port that was lost is opened again. Raises BenchError."""
        with self._lock:
            try:
                if self._serial is None:
                    self._serial = self._open()
                # What an unplugged adapter takes into its buffer is not sent.
                self._serial.reset_input_buffer()
                self._serial.write(letter.encode("ascii"))
                self._serial.flush()
            except (serial.SerialException, termios.error, OSError, ValueError) as error:
                self._close()
                raise BenchError(
                    f"the debug board at {self.port.port} does not take {letter!r}: {error}",
                    part=_PART,
                    next_step="Check its cable, and `port` of QcomltDebugPort.",
                ) from error


@target_factory.reg_driver
@attr.s(eq=False)
class QcomltPower(Driver, PowerProtocol):  # type: ignore[misc]  # labgrid has no types
    """The board's power by a qcomlt debug board.

    ``usb``: the board's USB is switched with it, for the cable can feed a board. ``key_s``: the
    power key is pressed so long afterwards, for boards that do not start by themselves. ``delay``
    seconds pass between off and on of a cycle.
    """

    bindings = {"board": QcomltDebugBoard}  # noqa: RUF012  # labgrid's way

    delay: float = attr.ib(default=2.0, converter=float)
    usb: bool = attr.ib(default=True, validator=attr.validators.instance_of(bool))
    key_s: float = attr.ib(default=0.0, converter=float)

    def on(self) -> None:
        """Switch on; raises BenchError."""
        self.board.send("P")
        if self.usb:
            self.board.send("U")
        if self.key_s:
            self.board.send("B")
            try:
                time.sleep(self.key_s)
            finally:
                self.board.send("b")

    def off(self) -> None:
        """Switch off; raises BenchError."""
        if self.usb:
            self.board.send("u")
        self.board.send("p")

    def cycle(self) -> None:
        """Switch off and on; raises BenchError."""
        self.off()
        time.sleep(self.delay)
        self.on()


@attr.s(eq=False)
class _Output(Driver, DigitalOutputProtocol):  # type: ignore[misc]  # labgrid has no types
    bindings = {"board": QcomltDebugBoard}  # noqa: RUF012  # labgrid's way

    letter = ""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._last: bool | None = None

    def set(self, status: bool) -> None:
        """Press or switch on, let go or switch off; raises BenchError."""
        self._last = None
        self.board.send(self.letter.upper() if status else self.letter)
        self._last = bool(status)

    def get(self) -> bool:
        """What was set last; raises BenchError when nothing was."""
        if self._last is None:
            raise BenchError(
                f"the debug board at {self.board.port.port} cannot be asked", part=_PART
            )
        return self._last


@target_factory.reg_driver
@attr.s(eq=False)
class QcomltFastbootKey(_Output):
    """The key that is held for fastboot, by a qcomlt debug board."""

    letter = "r"


@target_factory.reg_driver
@attr.s(eq=False)
class QcomltPowerKey(_Output):
    """The power key, by a qcomlt debug board."""

    letter = "b"


@target_factory.reg_driver
@attr.s(eq=False)
class QcomltUsb(_Output):
    """The board's USB, by a qcomlt debug board."""

    letter = "u"
