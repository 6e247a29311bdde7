"""The board's states: off, EDL, crash mode, fastboot, shell. Each can be reached from each.

Warm ways come first, for they keep the memory; what cannot be asked any more is power-cycled. A
board that is found in crash mode, although nobody here brought it there, holds somebody's crash:
its memory is saved before it is led on.
"""

from __future__ import annotations

import contextlib
import enum
import time
from pathlib import Path
from typing import Any

import attr
from labgrid.binding import BindingState
from labgrid.driver.exception import ExecutionError
from labgrid.exceptions import NoDriverFoundError
from labgrid.factory import target_factory
from labgrid.protocol import PowerProtocol
from labgrid.strategy import Strategy

from farm.bench import hooks
from farm.bench.bootmodes import CrashMode, DownloadMode, Edl, Fastboot
from farm.bench.console import RecordedConsole
from farm.bench.hosts import link
from farm.bench.inject import BOOT
from farm.bench.options import BenchOptions
from farm.bench.power import Power
from farm.bench.shell import BoardShell
from farm.bench.usb import Progress, UsbBoot
from farm.bench.whereabouts import Whereabouts, where_is
from farm.errors import BenchError, FarmError, UsageError
from farm.qualcomm.identity import Mode

_ANSWER_DEADLINE_S = 3.0
_LOOK_S = 0.2


class Status(enum.Enum):
    """What is known of the board."""

    unknown = "unknown"
    off = "off"
    edl = "edl"
    crash = "crash"
    fastboot = "fastboot"
    shell = "shell"


_MODES = {Status.edl: Mode.EDL, Status.crash: Mode.CRASH, Status.fastboot: Mode.FASTBOOT}


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
        "usb": {UsbBoot, None},
        "crash": {CrashMode, None},
        "edl": {Edl, None},
        "fastboot": {Fastboot, None},
        "download": {DownloadMode, None},
    }

    boot_deadline_s: float = attr.ib(default=60.0, converter=float)
    # How the board's shell reboots into a mode.
    reboot: str = attr.ib(default="reboot {}", converter=str)
    # How a mode's key or strap is held: by commands, {"edl": {"hold": [...], "release": [...]}}; by
    # a driver of the target, {"fastboot": {"driver": "QcomltFastbootKey"}}: a digital output, or
    # one that boots the board into the mode by itself.
    keys: dict[str, dict[str, Any]] = attr.ib(factory=dict)
    # The modes that the kernel's reboot knows, by its device tree. EDL is then reached from the
    # bootloader, for few kernels can `reboot edl`.
    reboot_modes: list[str] = attr.ib(factory=lambda: ["bootloader", "edl"])

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.status = Status.unknown
        self.board = ""
        self._power_links: list[Any] = []
        self.rescue_to: Path | None = None
        self.rescued: list[Path] = []
        # The dump that was begun and is not whole: the board still holds the rest.
        self.unfinished: Path | None = None
        self.progress: Progress | None = None

    def use(self, options: BenchOptions) -> None:
        """Take the board's name and the deadlines from a target's options."""
        self.boot_deadline_s = options.deadlines_s.boot
        self.board = options.board

    @property
    def switch(self) -> Power:
        """The board's power."""
        self._activate_power()
        return Power(self.power)

    def _activate_power(self) -> None:
        links = [link(one) for one in self.power.get_bound_resources()]
        if self.power.state is BindingState.active and links != self._power_links:
            # What it reaches its switch through has gone with the connection to that host.
            self.target.deactivate(self.power)
        self._power_links = links
        try:
            self.target.activate(self.power)
        except ExecutionError as error:
            raise BenchError(
                f"the power switch cannot be reached: {error.args[0]}", part="power"
            ) from error

    def where(self) -> Whereabouts:
        """Find out where the board is, within 5 s."""
        self._listen()
        if self.usb is not None:
            self.target.activate(self.usb)
        self._activate_power()
        return where_is(self.console, self.shell, self.power, self.usb)

    def transition(self, status: Any) -> None:
        """Go to a state; raises BenchError naming what failed, UsageError."""
        try:
            wanted = status if isinstance(status, Status) else Status(status)
        except ValueError:
            wanted = Status.unknown
        if wanted is Status.unknown:
            names = ", ".join(one.value for one in Status if one is not Status.unknown)
            raise UsageError(f"a board cannot be brought to the state {status!r}, only to {names}")
        before, self.status = self.status, Status.unknown
        if wanted is Status.off:
            self._save_found_crash(before)
            self.switch.off()
        elif wanted is Status.shell:
            self._to_shell(before)
        else:
            self._to_mode(wanted, before)
        self.status = wanted

    # -- modes over USB

    def driver(self, name: str) -> Any:
        """The activated driver `crash`, `edl`, `fastboot`, `usb` or `download`; UsageError."""
        driver = getattr(self, name)
        if driver is None:
            raise UsageError(
                f"target {self.target.name}: this environment has no driver for {name}",
                "See devices/virtual.yaml.",
            )
        self.target.activate(driver)
        return driver

    def _mode(self) -> Mode | None:
        """What the board shows on USB; None without a cable, too."""
        if self.usb is None:
            return None
        self.target.activate(self.usb)
        found = self.usb.find()
        return None if found is None else found.mode

    def _wait_mode(self, mode: Mode, what: str) -> None:
        self.usb.wait_for(frozenset({mode}), self.boot_deadline_s, what)

    def wait_crash(self) -> None:
        """Wait for crash mode after a panic that was wanted; raises BenchError."""
        self.shell.fresh_boot()
        self.driver("usb")
        mode = self._mode_or_boot(self.boot_deadline_s)
        if mode is not Mode.CRASH:
            raise BenchError(
                "the board is not in crash mode after the panic, but "
                + (f"in {mode.value} mode" if mode is not None else "boots, or shows nothing"),
                part="board",
                next_step="Is download mode on, and kept by its firmware? See DownloadMode.",
            )
        self.status = Status.crash

    def leave_unasked_mode(self, deadline_s: float) -> Mode | None:
        """After a panic, lead the board out of a mode that nobody asked for, by a warm reset.

        Returns the mode, None when the board just boots. Raises BenchError when it cannot be left.
        """
        if self.usb is None:
            return None
        try:
            self.target.activate(self.usb)
            mode = self._mode_or_boot(deadline_s)
        except BenchError:
            # A panic that needs no USB must not fail for it.
            return None
        if mode is not None and not self._leave(mode):
            raise BenchError(
                f"the board is in {mode.value} mode after the panic and does not leave it",
                part="board",
                next_step="Give the environment a driver for that mode; see devices/virtual.yaml.",
            )
        return mode

    def _mode_or_boot(self, deadline_s: float) -> Mode | None:
        """The mode that a board shows after a panic; None when it boots, or at the deadline."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end and self.console.lost is None:
            if BOOT.search(self.console.stream.pending()) is not None:
                return None
            if (mode := self._mode()) is not None:
                return mode
            self.console.stream.wait_quiet(_LOOK_S)
        return None

    def _save_found_crash(self, before: Status) -> None:
        """Save the memory of a board that somebody else's crash has left in crash mode."""
        if before is not Status.unknown or self.rescue_to is None or self.crash is None:
            return
        if self.switch.is_on() is False or self._mode() is not Mode.CRASH:
            return
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = self.unfinished or self.rescue_to / f"crash-{stamp}"
        self.dump(folder)
        self.rescued.append(folder)

    def dump(self, folder: Path) -> dict[str, Any]:
        """Dump the memory of the board, which is in crash mode; raises BenchError.

        Until that is done, ``safe_state`` leaves the board as it is.
        """
        self.unfinished = folder
        said: dict[str, Any] = self.driver("crash").dump(folder, self.progress)
        self.unfinished = None
        # A dump outlives the connection to its host; the console hangs on the same, and a board in
        # crash mode has nothing to say meanwhile.
        self._listen()
        return said

    def _to_mode(self, wanted: Status, before: Status) -> None:
        self._listen()
        mode = _MODES[wanted]
        self.driver("usb")
        now = None if self.switch.is_on() is False else self._mode()
        if now is mode:
            return
        if wanted is Status.crash:
            self._to_crash(before)
        elif now is Mode.FASTBOOT and wanted is Status.edl and self._bootloader_to_edl():
            self._wait_mode(mode, "EDL after `oem reboot-edl`")
        elif wanted.value in self.keys and not self._warm(wanted):
            self._by_key(wanted)
        elif self._word(wanted) in self.reboot_modes:
            self._to_shell(before)
            self._reboot_into(wanted)
        elif wanted is Status.edl:
            self._to_edl_by_bootloader(before)
        elif wanted.value in self.keys:
            self._by_key(wanted)
        else:
            raise BenchError(
                f"this board's kernel cannot reboot into {wanted.value}, and the bench has no key",
                part="bench",
                next_step="Give the strategy a key for it (`keys`).",
            )

    def _to_edl_by_bootloader(self, before: Status) -> None:
        self._to_mode(Status.fastboot, before)
        if self._bootloader_to_edl():
            self._wait_mode(Mode.EDL, "EDL after `oem reboot-edl`")
        elif Status.edl.value in self.keys:
            self._by_key(Status.edl)
        else:
            raise BenchError(
                "the bootloader does not go to EDL by `oem reboot-edl`",
                part="board",
                next_step="Give the strategy a key or strap for EDL (`keys`).",
            )

    @staticmethod
    def _word(wanted: Status) -> str:
        """What the kernel's reboot calls a mode."""
        return "bootloader" if wanted is Status.fastboot else wanted.value

    def _bootloader_to_edl(self) -> bool:
        """Whether the bootloader takes the board to EDL; not all of them know how."""
        try:
            self.driver("fastboot").run("oem", "reboot-edl")
        except BenchError:
            return False
        return True

    def _warm(self, wanted: Status) -> bool:
        """Whether the shell is there to be asked, so that no power has to be cut."""
        return self.switch.is_on() is not False and self.shell.answers(_ANSWER_DEADLINE_S)

    def _reboot_into(self, wanted: Status) -> None:
        word = self._word(wanted)
        self.console.mark()
        self.console.write(f"{self.reboot.format(word)}\n".encode())
        self.shell.fresh_boot()
        self._wait_mode(_MODES[wanted], f"{wanted.value} after `{self.reboot.format(word)}`")

    def _hold(self, key: dict[str, Any], held: bool) -> None:
        if "driver" in key:
            self._key_driver(key).set(held)
        else:
            hooks.run_command(self.key_command(key, "hold" if held else "release"))

    def key_command(self, key: dict[str, Any], what: str) -> list[str]:
        """The command that holds or releases a key, for this board."""
        return hooks.filled(key[what], {"board": self.board})

    def _key_driver(self, key: dict[str, Any]) -> Any:
        try:
            return self.target.get_driver(key["driver"])
        except (NoDriverFoundError, KeyError) as error:
            raise UsageError(
                f"target {self.target.name}: keys name the driver {key['driver']}: {error}",
                "Add it to the target's drivers.",
            ) from error

    def _by_key(self, wanted: Status) -> None:
        """Cut the power with the key or strap held."""
        key = self.keys[wanted.value]
        if "driver" in key and hasattr(driver := self._key_driver(key), "boot_to"):
            self.console.mark()
            driver.boot_to(wanted.value)
            self._wait_mode(_MODES[wanted], f"{wanted.value} by {key['driver']}")
            return
        self._hold(key, True)
        try:
            self.switch.off()
            self.console.mark()
            self.switch.on()
            self._wait_mode(_MODES[wanted], f"{wanted.value} after power-on with its key held")
        finally:
            self._hold(key, False)

    def _to_crash(self, before: Status) -> None:
        self._to_shell(before)
        self.driver("download").set(True)
        self.console.mark()
        self.console.write(b"echo c > /proc/sysrq-trigger\n")
        self.shell.fresh_boot()
        self._wait_mode(Mode.CRASH, "crash mode after a panic")

    def _leave(self, mode: Mode) -> bool:
        """Have a boot program reset the board; False when it cannot or does not."""
        try:
            if mode is Mode.CRASH and self.crash is not None:
                self.driver("crash").reset()
            elif mode is Mode.EDL and self.edl is not None:
                self.driver("edl").reset()
            elif mode is Mode.FASTBOOT and self.fastboot is not None:
                self.driver("fastboot").run("reboot")
            else:
                return False
        except BenchError:
            return False
        return True

    def _to_shell(self, before: Status) -> None:
        self._listen()
        switch = self.switch
        running = before is not Status.off and switch.is_on() is not False
        if running and before is Status.shell and self.shell.answers(_ANSWER_DEADLINE_S):
            return
        mode = self._mode() if running else None
        if mode is not None:
            self._save_found_crash(before)
            self.console.mark()
            if self._leave(mode):
                try:
                    self.shell.wait_prompt(
                        self.boot_deadline_s, f"the shell's prompt after {mode.value}"
                    )
                    return
                except BenchError as error:
                    if error.part != "board":
                        raise
        elif running and self.shell.answers(_ANSWER_DEADLINE_S):
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
        """Switch the power off; an error is returned: another one may be on its way already.

        A board in crash mode whose memory is read in part keeps its power, for it holds the rest.
        """
        if self.unfinished is not None:
            with contextlib.suppress(BenchError):
                if self._mode() is Mode.CRASH:
                    return None
            self.unfinished = None
        try:
            self.transition(Status.off)
        except FarmError as error:
            return error
        return None
