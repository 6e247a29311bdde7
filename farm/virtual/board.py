"""The board: power, resets and faults around one QEMU at a time.

Power off loses the DRAM, a reset of the guest keeps it. A guest that powers itself off, and a QEMU
that dies, leave the relay on and the board silent until power is cycled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from farm.errors import BenchError, FarmError, UsageError
from farm.virtual.devicetree import prepare, read_ramoops
from farm.virtual.events import EventLog
from farm.virtual.flip import FlipRequest, apply_flip, check_flip
from farm.virtual.layout import BoardDir, host_boot_id
from farm.virtual.machine import Ending, Machine, MachineFiles
from farm.virtual.options import BoardOptions
from farm.virtual.serial_line import SerialLine
from farm.virtual.status import BoardStatus, Condition, Presence


class Board:
    """One board; ``on_change`` is called after each change of what ``status`` tells."""

    def __init__(
        self,
        options: BoardOptions,
        folder: BoardDir,
        events: EventLog,
        on_change: Callable[[], None],
    ) -> None:
        self._options = options
        self._folder = folder
        self._events = events
        self._on_change = on_change
        self._dram = folder.dram_file(options.memory_size_bytes)
        self._switching = asyncio.Lock()
        self._machine: Machine | None = None
        self._watching: asyncio.Task[None] | None = None
        self._condition = Condition.OFF
        self._message = ""
        self._boots = 0
        self._relay_on = False
        self._contact_closed = False
        self._stuck = False
        self._hang_next = False
        self._flips: list[FlipRequest] = []
        self._ramoops = read_ramoops(options.dtb, options.ecc_size_bytes)
        self.line = SerialLine(folder.serial_pipe, self._send_break, events.add, options.baud)

    def status(self) -> BoardStatus:
        """What the board is now."""
        faults = [str(request) for request in self._flips]
        faults += ["silence"] if self.line.silent else []
        faults += ["hang on next reset"] if self._hang_next else []
        faults += ["stuck relay"] if self._stuck else []
        return BoardStatus(
            name=self._options.name,
            state=Presence.UP,
            condition=self._condition,
            relay_on=self._relay_on,
            serial_port=self._options.serial_port,
            power_port=self._options.power_port,
            serial_client=self.line.client_peer,
            pid=os.getpid(),
            qemu_pid=None if self._machine is None else self._machine.pid,
            boots=self._boots,
            faults=tuple(faults),
            message=self._message,
            host_boot_id=host_boot_id(),
        )

    def relay_is_on(self) -> bool:
        """What the power port reports: what was asked for, even of a relay that is stuck."""
        return self._relay_on

    async def switch_relay(self, on: bool) -> None:
        """Switch the power; raises BenchError when QEMU does not start."""
        async with self._switching:
            self._relay_on = on
            if self._stuck:
                self._events.add("relay-stuck", asked="on" if on else "off")
            elif on != self._contact_closed:
                self._contact_closed = on
                try:
                    await (self._power_up() if on else self._power_down())
                finally:
                    self._on_change()

    async def _power_up(self) -> None:
        self._events.add("power-on")
        self._dram = self._folder.new_dram(self._options.memory_size_bytes)
        await self._boot("cold")

    async def _power_down(self) -> None:
        await self._stop(Condition.OFF, "")
        self._folder.drop_dram()
        self._events.add("power-off")

    async def _stop(self, condition: Condition, message: str) -> None:
        """End QEMU, if it runs; its DRAM stays."""
        self.line.powered = False
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = None
        if self._machine is not None:
            await self._machine.kill()
            self._machine = None
        self.line.reset_input()
        self._condition, self._message = condition, message

    async def _boot(self, kind: str, *, paused: bool = False) -> None:
        """Start QEMU on the DRAM as it is; raises BenchError, and then the board is dead."""
        try:
            self._folder.dtb.write_bytes(prepare(self._options))
            files = MachineFiles(
                self._dram, self._folder.dtb, self._folder.serial_pipe, self._folder.qemu_log
            )
            machine = await Machine.start(self._options, files, paused=paused)
        except (FarmError, OSError) as error:
            message = error.message if isinstance(error, FarmError) else str(error)
            self._condition, self._message = Condition.DEAD, message
            self._events.add("died", message=message)
            self.line.hang_up()
            raise BenchError(message, part="board") from error
        self._machine = machine
        self._boots += 1
        self._condition = Condition.HUNG if paused else Condition.RUNNING
        self._message = ""
        self.line.powered = True
        self._events.add("boot", kind=kind, number=self._boots, qemu_pid=machine.pid)
        self._watching = asyncio.create_task(self._watch(machine))

    async def _watch(self, machine: Machine) -> None:
        ending = await machine.ended
        async with self._switching:
            if self._machine is not machine:
                return
            exit_code = machine.exit_code
            if ending is Ending.RESET:
                await self._warm_reset()
            elif ending is Ending.POWEROFF:
                await self._stop(Condition.HALTED, "the guest powered itself off")
                self._folder.drop_dram()
                self._events.add("guest-power-off")
            else:
                message = f"QEMU died with exit code {exit_code}; see {self._folder.qemu_log}"
                await self._stop(Condition.DEAD, message)
                self._events.add("died", message=message)
                self.line.hang_up()
            self._on_change()

    async def _warm_reset(self) -> None:
        await self._stop(self._condition, "")
        self._events.add("reset", kind="warm")
        requests, self._flips = self._flips, []
        for request in requests:
            self._flip(request)
        paused, self._hang_next = self._hang_next, False
        if paused:
            self._events.add("hang")
        # The board is dead then, which its state and the event log tell.
        with contextlib.suppress(BenchError):
            await self._boot("warm", paused=paused)

    def _flip(self, request: FlipRequest) -> None:
        try:
            flipped = apply_flip(self._dram, self._ramoops, request)
        except UsageError as error:
            self._events.add("flip-failed", message=error.message)
            return
        self._events.add(
            "flip",
            region=request.region,
            seed=request.seed if request.bits else None,
            bits=[str(bit) for bit in flipped],
        )

    async def _send_break(self) -> None:
        # A QEMU that dies now is noticed by the watch; the BREAK is lost with it.
        with contextlib.suppress(BenchError):
            if self._machine is not None:
                await self._machine.send_break()

    def arm_flip(self, request: FlipRequest) -> None:
        """Flip bits on the next warm reset; raises UsageError for what can never be."""
        check_flip(self._ramoops, request, self._options.memory_size_bytes)
        self._flips.append(request)
        self._events.add("fault", fault=str(request))
        self._on_change()

    def arm_hang(self) -> None:
        """Let the processors hang after the next warm reset, until power is cycled."""
        self._hang_next = True
        self._events.add("fault", fault="hang on next reset")
        self._on_change()

    def set_silence(self, on: bool) -> None:
        """Swallow the board's serial output, or no longer."""
        self.line.silent = on
        self._events.add("fault", fault=f"silence {'on' if on else 'off'}")
        self._on_change()

    def stick_relay(self) -> None:
        """Let power commands be accepted and have no effect."""
        self._stuck = True
        self._events.add("fault", fault="stuck relay")
        self._on_change()

    async def clear_faults(self) -> None:
        """Take all faults away; a hung board goes on, the relay is where its contact is."""
        async with self._switching:
            self._flips, self._hang_next = [], False
            self.line.silent = False
            if self._stuck:
                self._stuck = False
                self._relay_on = self._contact_closed
            if self._condition is Condition.HUNG and self._machine is not None:
                await self._machine.resume()
                self._condition = Condition.RUNNING
            self._events.add("fault", fault="clear")
            self._on_change()

    async def take_away(self) -> None:
        """Cut the power for good, stuck relay or not."""
        async with self._switching:
            self._relay_on = False
            if self._contact_closed:
                self._contact_closed = False
                await self._power_down()
            self.line.close()
