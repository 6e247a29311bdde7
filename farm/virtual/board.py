"""The board: power, resets, boot programs and faults around one QEMU at a time.

After power-on and after each reset the chip decides what runs: the kernel that the active slot
holds, the boot ROM's EDL, crash mode, or the bootloader's fastboot.

Power off loses the DRAM, a reset of the guest keeps it. A guest that powers itself off, and a QEMU
that dies, leave the relay on and the board silent until power is cycled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from farm.errors import BenchError, FarmError, UsageError
from farm.virtual.boot_programs import BootPrograms, Loaded
from farm.virtual.bootimage import BadImageError
from farm.virtual.devicetree import prepare, read_ramoops
from farm.virtual.events import EventLog
from farm.virtual.fastboot_device import Leave, Ramoops
from farm.virtual.fastboot_links import TcpPort
from farm.virtual.flip import FlipRequest, apply_flip, check_flip
from farm.virtual.imem import REASON_OFFSET, Imem, Stage
from farm.virtual.layout import BoardDir, host_boot_id
from farm.virtual.machine import Ending, Machine, MachineFiles
from farm.virtual.options import LONG_PRESS_S, BoardOptions
from farm.virtual.serial_line import SerialLine
from farm.virtual.status import BoardStatus, Condition, Presence

_CONDITIONS = {
    Stage.EDL: Condition.EDL,
    Stage.CRASH: Condition.CRASH,
    Stage.FASTBOOT: Condition.FASTBOOT,
}
_WORDS = {
    Stage.EDL: "Emergency download mode, waiting for a programmer",
    Stage.CRASH: "Crash mode, memory dump over USB",
    Stage.FASTBOOT: "fastboot: processing commands",
}


@dataclass
class BootWith:
    """What the next ``boots`` boots have beside the board's own options."""

    append: str
    ecc_size_bytes: int | None
    boots: int


class Button:
    """A key or strap that a relay holds down while the board starts."""

    def __init__(self) -> None:
        self.pressed = False

    def relay_is_on(self) -> bool:
        """Whether it is held."""
        return self.pressed

    async def switch_relay(self, on: bool) -> None:
        """Hold it, or let go."""
        self.pressed = on


class PowerKey(Button):
    """The PMIC's power key: ``on_short`` when it is let go soon, ``on_long`` while it is held."""

    def __init__(
        self, on_short: Callable[[], Awaitable[None]], on_long: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__()
        self._on_short = on_short
        self._on_long = on_long
        self._holding: asyncio.Task[None] | None = None

    async def switch_relay(self, on: bool) -> None:
        """Hold it, or let go."""
        if on == self.pressed:
            return
        await super().switch_relay(on)
        if on:
            self._holding = asyncio.create_task(self._hold())
            return
        holding, self._holding = self._holding, None
        if holding is not None and not holding.done():
            holding.cancel()
            await self._on_short()

    async def _hold(self) -> None:
        await asyncio.sleep(LONG_PRESS_S)
        self._holding = None
        await self._on_long()


class Board:
    """One board; ``on_change`` is called after each change of what ``status`` tells."""

    def __init__(
        self,
        options: BoardOptions,
        folder: BoardDir,
        events: EventLog,
        on_change: Callable[[], None],
        tcp: TcpPort,
    ) -> None:
        self._loop = asyncio.get_running_loop()
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
        self._leaving: set[asyncio.Task[None]] = set()
        self._hang_next = False
        self._flips: list[FlipRequest] = []
        self._ramoops = read_ramoops(options.dtb, options.ecc_size_bytes)
        self._boot_with: BootWith | None = None
        self.fastboot_key = Button()
        self.edl_strap = Button()
        self.power_key = PowerKey(self._short_press, self._long_press)
        self._programs = BootPrograms(options, folder.root, tcp, self._left)
        self._programs.make_disk()
        self.line = SerialLine(folder.serial_pipe, self._send_break, events.add, options.baud)

    def status(self) -> BoardStatus:
        """What the board is now."""
        faults = [str(request) for request in self._flips]
        faults += ["silence"] if self.line.silent else []
        faults += ["hang on next reset"] if self._hang_next else []
        faults += ["stuck relay"] if self._stuck else []
        faults += self._programs.faults.shown()
        return BoardStatus(
            name=self._options.name,
            state=Presence.UP,
            condition=self._condition,
            relay_on=self._relay_on,
            serial_port=self._options.serial_port,
            power_port=self._options.power_port,
            fastboot_port=self._options.fastboot_port,
            usb_path=self._programs.bus.path,
            usb_serial=self._programs.serial,
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

    async def _short_press(self) -> None:
        async with self._switching:
            self._events.add("power-key", press="short")
            if self._contact_closed and self._condition is Condition.HALTED:
                self._dram = self._folder.new_dram(self._options.memory_size_bytes)
                # The board is dead then, which its state and the event log tell.
                with contextlib.suppress(BenchError):
                    await self._start("cold", why="power key")
            self._on_change()

    async def _long_press(self) -> None:
        async with self._switching:
            self._events.add("power-key", press="long")
            if self._contact_closed and self._condition is not Condition.DEAD:
                await self._stop(Condition.HALTED, "switched off by its power key")
                self._folder.drop_dram()
            self._on_change()

    async def _power_up(self) -> None:
        self._events.add("power-on")
        self._dram = self._folder.new_dram(self._options.memory_size_bytes)
        await self._start("cold")

    async def _power_down(self) -> None:
        await self._stop(Condition.OFF, "")
        self._folder.drop_dram()
        self._events.add("power-off")

    async def _stop(self, condition: Condition, message: str) -> None:
        """End QEMU, if it runs; its DRAM stays."""
        self.line.powered = False
        # Unplugging waits for no one, but its lock may be held by a thread that unplugs.
        await asyncio.to_thread(self._programs.leave)
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = None
        if self._machine is not None:
            await self._machine.kill()
            self._machine = None
        self.line.reset_input()
        self._condition, self._message = condition, message

    async def _start(
        self,
        kind: str,
        *,
        stage: Stage = Stage.KERNEL,
        why: str = "",
        image: bytes = b"",
        paused: bool = False,
    ) -> None:
        """Run what the chip decides on; raises BenchError when QEMU does not start.

        ``stage`` is what the reset itself asks for, ``image`` a boot image to be used instead of
        the active slot's.
        """
        if stage is Stage.KERNEL and self.edl_strap.pressed:
            stage, why = Stage.EDL, "strap"
        elif stage is Stage.KERNEL and self.fastboot_key.pressed:
            stage, why = Stage.FASTBOOT, "key"
        loaded = None
        if stage is Stage.KERNEL:
            try:
                loaded = (
                    self._programs.load_image(image, slot=self._programs.disk.active_slot() or "a")
                    if image
                    else self._programs.load()
                )
            except BadImageError as error:
                why = str(error)
            if loaded is None:
                stage, why = Stage.FASTBOOT, why or "no slot boots"
        if loaded is not None:
            await self._boot(kind, loaded, paused=paused)
            return
        area = self._ramoops
        ramoops = None if area is None else Ramoops(area.paddr, area.length_bytes)
        self._programs.enter(stage, self._dram, ramoops)
        self._condition, self._message = _CONDITIONS[stage], why
        self._events.add("stage", stage=stage.value, kind=kind, why=why)
        self.line.say(f"\nPM: Reset Type: {kind}\n{_WORDS[stage]} ({why})\n")

    def _left(self, way: Leave, image: bytes) -> None:
        """A boot program has ended; called from its thread."""

        def act() -> None:
            task = self._loop.create_task(self._leave_program(way, image))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

        self._loop.call_soon_threadsafe(act)

    async def _leave_program(self, way: Leave, image: bytes) -> None:
        async with self._switching:
            if self._condition not in _CONDITIONS.values():
                return
            if way is Leave.POWEROFF:
                await self._stop(Condition.HALTED, "powered off by its boot program")
                self._folder.drop_dram()
                self._events.add("program-power-off")
            else:
                stages = {Leave.EDL: Stage.EDL, Leave.BOOTLOADER: Stage.FASTBOOT}
                await self._warm_reset(stages.get(way, Stage.KERNEL), f"boot program: {way}", image)
            self._on_change()

    async def _boot(self, kind: str, loaded: Loaded, *, paused: bool = False) -> None:
        """Start QEMU on the DRAM as it is; raises BenchError, and then the board is dead."""
        words = [loaded.cmdline, f"androidboot.slot_suffix=_{loaded.slot}", self._options.append]
        ecc_size_bytes = self._options.ecc_size_bytes
        if (boot_with := self._boot_with) is not None:
            words.append(boot_with.append)
            if boot_with.ecc_size_bytes is not None:
                ecc_size_bytes = boot_with.ecc_size_bytes
            boot_with.boots -= 1
            if boot_with.boots == 0:
                self._boot_with = None
        booted = self._options.model_copy(
            update={
                "kernel": loaded.kernel,
                "initrd": loaded.initrd,
                "dtb": loaded.dtb,
                "ecc_size_bytes": ecc_size_bytes,
                "append": " ".join(filter(None, words)),
            }
        )
        self._ramoops = read_ramoops(self._options.dtb, ecc_size_bytes)
        try:
            self._folder.dtb.write_bytes(prepare(booted))
            files = MachineFiles(
                self._dram, self._folder.dtb, self._folder.serial_pipe, self._folder.qemu_log
            )
            machine = await Machine.start(booted, files, paused=paused)
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
                stage, why = self._imem().after_reset()
                await self._warm_reset(stage, why)
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

    def _imem(self) -> Imem:
        return Imem(self._dram, self._options.memory_size_bytes)

    async def _warm_reset(self, stage: Stage, why: str, image: bytes = b"") -> None:
        await self._stop(self._condition, "")
        self._events.add("reset", kind="warm")
        self._imem().set_word(REASON_OFFSET, 0)
        requests, self._flips = self._flips, []
        for request in requests:
            self._flip(request)
        paused, self._hang_next = self._hang_next, False
        if paused:
            self._events.add("hang")
        # The board is dead then, which its state and the event log tell.
        with contextlib.suppress(BenchError):
            await self._start("warm", stage=stage, why=why, image=image, paused=paused)

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

    def boot_with(self, append: str, ecc_size_bytes: int | None, boots: int) -> None:
        """Let the next ``boots`` boots differ; 0: none any more."""
        self._boot_with = BootWith(append, ecc_size_bytes, boots) if boots else None
        self._events.add("boot-with", append=append, ecc_size=ecc_size_bytes, boots=boots)

    async def reset(self) -> None:
        """Reset the chip as its reset line, or its watchdog's bite, would; the DRAM stays."""
        async with self._switching:
            if self._machine is None:
                raise BenchError("the board runs no kernel", part="board")
            self._events.add("reset-line")
            # What hangs until power is cycled does so after a reset, too.
            self._hang_next = self._hang_next or self._condition is Condition.HUNG
            stage, why = self._imem().after_reset()
            await self._warm_reset(stage, why)
            self._on_change()

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

    async def set_usb_fault(self, name: str, value: str) -> None:
        """Switch a fault of the boot programs' USB on or off; raises UsageError.

        A change of the packet size is seen by hosts when the device is plugged in again.
        """
        self._programs.faults.set(name, value)
        self._events.add("fault", fault=f"usb {name} {value}")
        if name.replace("_", "-") in ("packet-bytes", "narrow", "hostile-names", "swallow-hello"):
            await asyncio.to_thread(self._programs.replug)
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
            had_usb_faults = bool(self._programs.faults.shown())
            self._programs.faults.clear()
            if had_usb_faults:
                await asyncio.to_thread(self._programs.replug)
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
            await asyncio.to_thread(self._programs.close)
            self.line.close()
