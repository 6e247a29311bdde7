"""The board's states: unknown, off, shell. Each can be reached from each, after any error."""

from __future__ import annotations

import enum
from typing import Any

import attr
from labgrid.factory import target_factory
from labgrid.protocol import PowerProtocol
from labgrid.strategy import Strategy

from farm.bench.console import RecordedConsole
from farm.bench.options import BenchOptions
from farm.bench.power import Power
from farm.bench.shell import BoardShell
from farm.errors import FarmError, UsageError

_ANSWER_DEADLINE_S = 3.0


class Status(enum.Enum):
    """What is known of the board."""

    unknown = "unknown"
    off = "off"
    shell = "shell"


@target_factory.reg_driver
@attr.s(eq=False)
class PanicFarmStrategy(Strategy):  # type: ignore[misc]  # labgrid has no types
    """Brings the board to a state; an error leaves ``unknown``, from where it can be tried again.

    labgrid's ``never_retry`` would keep a strategy broken after its first error: here errors are
    what boards do.
    """

    bindings = {  # noqa: RUF012  # labgrid's way
        "console": RecordedConsole,
        "power": PowerProtocol,
        "shell": BoardShell,
    }

    boot_deadline_s: float = attr.ib(default=60.0, converter=float)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.status = Status.unknown

    def use(self, options: BenchOptions) -> None:
        """Take the deadlines from a target's options."""
        self.boot_deadline_s = options.deadlines_s.boot

    @property
    def switch(self) -> Power:
        """The board's power."""
        self.target.activate(self.power)
        return Power(self.power)

    def transition(self, status: Any) -> None:
        """Go to ``off`` or ``shell``; raises BenchError naming what failed, UsageError."""
        try:
            wanted = status if isinstance(status, Status) else Status(status)
        except ValueError:
            wanted = Status.unknown
        if wanted is Status.unknown:
            raise UsageError(f"a board cannot be brought to the state {status!r}, only off, shell")
        before, self.status = self.status, Status.unknown
        if wanted is Status.off:
            self.switch.off()
        else:
            self._to_shell(before)
        self.status = wanted

    def _to_shell(self, before: Status) -> None:
        self._listen()
        switch = self.switch
        running = before is not Status.off and switch.is_on() is not False
        if running and self.shell.answers(_ANSWER_DEADLINE_S):
            return
        if before is not Status.off:
            switch.off()
        self.console.mark()
        switch.on()
        self.shell.wait_prompt(self.boot_deadline_s, "the shell's prompt after power-on")

    def _listen(self) -> None:
        """Have the console open, again if it was lost, before the power comes on."""
        self.target.activate(self.console)
        if self.console.lost is not None:
            self.console.reopen()
        self.target.activate(self.shell)

    def force(self, status: Any) -> None:
        """Take ``status`` for what the board is in."""
        self.status = status if isinstance(status, Status) else Status(status)

    def safe_state(self) -> FarmError | None:
        """Switch the power off; an error is returned: another one may be on its way already."""
        try:
            self.transition(Status.off)
        except FarmError as error:
            return error
        return None
