"""Drivers for the board's boot modes: crash mode, EDL, fastboot, and whether a crash is kept.

Each is thin: what is said over USB is `farm.qualcomm`'s, run by `UsbBoot` where the cable ends.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import attr
from labgrid.driver.common import Driver
from labgrid.factory import target_factory

from farm.bench.shell import BoardShell
from farm.bench.usb import AgentLostError, DeviceLostError, Progress, ReadBack, UsbBoot
from farm.errors import BenchError, DeadlineError, FormatError, UsageError
from farm.qualcomm.hexdump import parse_hexdump
from farm.qualcomm.identity import Mode

_READ_DEADLINE_S = 120.0
# The longest without a byte.
_STEP_DEADLINE_S = 60.0
_BACK_DEADLINE_S = 10.0
_HOST_BACK_DEADLINE_S = 60.0
_FLASH_DEADLINE_S = 300.0
_SHORT_DEADLINE_S = 20.0
_SHELL_DEADLINE_S = 10.0


def _done_bytes(folder: Path) -> int:
    """How much of a dump is on disk."""
    return sum(one.stat().st_size for one in folder.glob("[0-9]*-*.bin*") if one.is_file())


@target_factory.reg_driver
@attr.s(eq=False)
class CrashMode(Driver):  # type: ignore[misc]  # labgrid has no types
    """Reads a crashed board's memory over Sahara."""

    bindings = {"usb": UsbBoot}  # noqa: RUF012  # labgrid's way

    def read(
        self, address: int, length: int, target: Path, progress: Progress | None = None
    ) -> ReadBack:
        """Read just these physical addresses into ``target``; raises BenchError."""
        return self.usb.to_file(  # type: ignore[no-any-return]
            target, _STEP_DEADLINE_S, "crash_read", address, length, progress=progress
        )

    def dump(self, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Dump every region into ``folder``, or go on with it; raises BenchError.

        A device that vanishes and comes back is gone on with, and so is a host that does.
        """
        in_vain = 0
        while True:
            before = _done_bytes(folder)
            try:
                return self.usb.dump(folder, _STEP_DEADLINE_S, progress)  # type: ignore[no-any-return]
            except (DeviceLostError, AgentLostError, DeadlineError) as error:
                if not self.usb.host and not isinstance(error, DeviceLostError):
                    raise
                # It may come back under another address, and may have done so before.
                in_vain = 0 if _done_bytes(folder) > before else in_vain + 1
                if in_vain > 1:
                    raise
                if not isinstance(error, DeviceLostError):
                    self.usb.wait_for_host(_HOST_BACK_DEADLINE_S)
                self.usb.wait_for(
                    frozenset({Mode.CRASH}), _BACK_DEADLINE_S, "crash mode, to go on with the dump"
                )

    def reset(self) -> None:
        """Leave crash mode."""
        self.usb.reset("crash_reset", deadline_s=_SHORT_DEADLINE_S)


@target_factory.reg_driver
@attr.s(eq=False)
class Edl(Driver):  # type: ignore[misc]  # labgrid has no types
    """Flashes and peeks through the boot ROM, with a ``programmer`` for this chip.

    ``tool`` flashes: ``qdl``, or ``builtin`` for this farm's own client. A qdl that cannot be
    given a serial number is used only when no other board is in EDL.
    """

    bindings = {"usb": UsbBoot}  # noqa: RUF012  # labgrid's way

    programmer: str = attr.ib(default="", converter=str)
    storage: str = attr.ib(default="ufs", validator=attr.validators.in_(("ufs", "emmc")))
    tool: str = attr.ib(default="qdl", validator=attr.validators.in_(("qdl", "builtin")))

    @property
    def _session(self) -> tuple[str, str]:
        path = Path(self.programmer)
        if not self.programmer:
            raise UsageError(
                f"target {self.target.name}: Edl has no programmer",
                "Give `programmer`, the file that this chip's vendor has signed for it.",
            )
        if not path.is_absolute() and self.target.env is not None:
            base = Path(self.target.env.config.filename).resolve().parent
            path = base / path
        if not path.is_file():
            raise UsageError(f"target {self.target.name}: there is no programmer {path}")
        return self.usb.placed(path), self.storage

    def peek(
        self, address: int, length: int, target: Path, progress: Progress | None = None
    ) -> ReadBack:
        """Read memory by the programmer's peek into ``target``; raises BenchError."""
        return self.usb.to_file(  # type: ignore[no-any-return]
            target,
            _STEP_DEADLINE_S,
            "edl_peek",
            *(*self._session, address, length),
            progress=progress,
        )

    def flash(self, partition: str, image: Path, progress: Progress | None = None) -> str:
        """Write ``image`` to ``partition`` and reset; returns which tool did it; BenchError."""
        first, sectors, sector_bytes = self.usb.call("edl_find", *self._session, partition)
        size = image.stat().st_size
        if size > sectors * sector_bytes:
            raise UsageError(
                f"{image} has {size} bytes, {partition} {sectors * sector_bytes}",
                "Make the partition larger or the kernel smaller.",
            )
        if self.tool == "qdl" and self._qdl_fits():
            # The boot ROM is wanted, not the programmer that found the partition.
            self.usb.reset("edl_reset_to_edl", *self._session, deadline_s=_SHORT_DEADLINE_S)
            self._by_qdl(partition, image, (first, sectors, sector_bytes), progress)
            return "qdl"
        self.usb.job(
            "edl_program",
            *(*self._session, first, sector_bytes, self.usb.placed(image), partition),
            deadline_s=_STEP_DEADLINE_S,
            progress=progress,
            again=False,
        )
        self.reset()
        return "builtin"

    def _qdl_fits(self) -> bool:
        return bool(self.usb.bus_devices() == 1)

    def _by_qdl(
        self,
        partition: str,
        image: Path,
        place: tuple[int, int, int],
        progress: Progress | None,
    ) -> None:
        first, sectors, sector_bytes = place
        there = self.usb.placed(image)
        words = {
            "SECTOR_SIZE_IN_BYTES": sector_bytes,
            "file_sector_offset": 0,
            "filename": image.name,
            "label": partition,
            "num_partition_sectors": sectors,
            "partofsingleimage": "false",
            "physical_partition_number": 0,
            "readbackverify": "false",
            "size_in_KB": sectors * sector_bytes / 1024,
            "sparse": "false",
            "start_byte_hex": hex(first * sector_bytes),
            "start_sector": first,
        }
        attributes = " ".join(f"{key}={quoteattr(str(value))}" for key, value in words.items())
        programmer, storage = self._session
        self.usb.tool(
            [
                *("qdl", "--storage", storage, "--include", str(Path(there).parent)),
                *(programmer, "{folder}/rawprogram0.xml"),
            ],
            _FLASH_DEADLINE_S,
            f"flashing {partition}",
            good=lambda text: f'flashed "{partition}" successfully' in text,
            given={
                "rawprogram0.xml": '<?xml version="1.0" ?>\n'
                f"<data>\n<program {attributes}/>\n</data>"
            },
            progress=progress,
        )

    def reset(self) -> None:
        """Leave EDL."""
        self.usb.reset("edl_reset", *self._session, deadline_s=_SHORT_DEADLINE_S)


@target_factory.reg_driver
@attr.s(eq=False)
class Fastboot(Driver):  # type: ignore[misc]  # labgrid has no types
    """The bootloader by the ``fastboot`` program, each call with a deadline.

    labgrid's own driver waits for ever, and a hung fastboot ignores all but SIGKILL. ``read`` says
    how this bootloader reads memory: ``lk2nd`` (``oem ramoops raw``, its fixed region only),
    ``u-boot`` (``oem run:md.b``), ``none``.
    """

    bindings = {"usb": UsbBoot}  # noqa: RUF012  # labgrid's way

    serial: str = attr.ib(default="", converter=str)
    reader: str = attr.ib(
        default="lk2nd", validator=attr.validators.in_(("lk2nd", "u-boot", "none"))
    )
    # How much one `md.b` prints at most: less than a fifth of U-Boot's CONSOLE_RECORD_OUT_SIZE.
    console_bytes: int = attr.ib(default=192, converter=int)

    @property
    def reads_any(self) -> bool:
        """Whether any address can be read, and slowly, instead of ramoops as a whole."""
        return self.reader == "u-boot"

    def run(
        self,
        *arguments: str,
        deadline_s: float = _SHORT_DEADLINE_S,
        taken: tuple[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Run one fastboot command on this board; raises BenchError with its words."""
        return self._run(
            self._serial(), *arguments, deadline_s=deadline_s, taken=taken, progress=progress
        )

    def _serial(self) -> str:
        found = self.usb.find()
        serial = self.serial or (found.serial if found is not None else "")
        if not serial or (found is not None and found.mode is not Mode.FASTBOOT):
            raise BenchError(
                f"{self.usb.describe()}: the board is not in fastboot",
                part="usb",
                next_step="Find out where it is; bring it to fastboot first.",
            )
        self.usb.release()
        return serial

    def _run(
        self,
        serial: str,
        *arguments: str,
        deadline_s: float = _SHORT_DEADLINE_S,
        taken: tuple[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> str:
        return self.usb.tool(  # type: ignore[no-any-return]
            ["fastboot", "-s", serial, *arguments],
            deadline_s,
            f"fastboot {' '.join(arguments)}",
            good=lambda _: True,
            taken=taken,
            progress=progress,
        )

    def getvar(self, name: str) -> str:
        """A variable of the bootloader's; raises BenchError."""
        found = re.search(rf"^{re.escape(name)}: (.*)$", self.run("getvar", name), re.M)
        if found is None:
            raise BenchError(f"{self.usb.describe()}: no {name} in fastboot's answer", part="usb")
        return found[1].strip()

    def flash(self, partition: str, image: Path, progress: Progress | None = None) -> None:
        """Write ``image`` to ``partition``; raises BenchError."""
        there = self.usb.placed(image)
        self.run("flash", partition, there, deadline_s=_FLASH_DEADLINE_S, progress=progress)

    def read(
        self, address: int, length: int, target: Path, progress: Progress | None = None
    ) -> None:
        """Read memory into ``target``; raises BenchError, UsageError when it cannot be."""
        if self.reader == "lk2nd":
            self.run("oem", "ramoops", "raw")
            self.run(
                *("get_staged", "{folder}/staged"),
                deadline_s=_READ_DEADLINE_S,
                taken=("staged", target),
                progress=progress,
            )
            size = target.stat().st_size
            if size != length:
                raise BenchError(
                    f"{self.usb.describe()}: the bootloader staged {size} bytes, "
                    f"ramoops has {length}",
                    part="usb",
                    next_step="Give the bootloader and the kernel the same region.",
                )
        elif self.reader == "u-boot":
            self._by_console(address, length, target, progress)
        else:
            raise UsageError(
                f"target {self.target.name}: this bootloader reads no memory",
                "Use another channel, or set Fastboot's `reader`.",
            )

    def _by_console(
        self, address: int, length: int, target: Path, progress: Progress | None
    ) -> None:
        serial = self._serial()
        with target.open("wb") as file:
            for at in range(0, length, self.console_bytes):
                count = min(self.console_bytes, length - at)
                self._run(serial, "oem", f"run:md.b {address + at:x} {count:x}")
                said = self._run(serial, "oem", "console")
                try:
                    file.write(parse_hexdump(said, address + at, count))
                except FormatError as error:
                    raise BenchError(
                        f"{self.usb.describe()}: memory at {address + at:#x} as U-Boot prints it: "
                        f"{error.message}",
                        part="usb",
                        next_step="Fastboot's `console_bytes` must fit U-Boot's console record.",
                    ) from error
                if progress is not None:
                    progress(at + count, length, "")


@target_factory.reg_driver
@attr.s(eq=False)
class DownloadMode(Driver):  # type: ignore[misc]  # labgrid has no types
    """Whether the board keeps its memory for a host after a crash.

    The commands run on the board's shell; the defaults are those of a kernel with qcom_scm.
    """

    bindings = {"shell": BoardShell}  # noqa: RUF012  # labgrid's way

    on: str = attr.ib(default="echo full > /sys/module/qcom_scm/parameters/download_mode")
    off: str = attr.ib(default="echo off > /sys/module/qcom_scm/parameters/download_mode")
    # Prints it: 0 or off, or something else.
    get: str = attr.ib(default="cat /sys/module/qcom_scm/parameters/download_mode")

    def set(self, enabled: bool) -> None:
        """Switch it; raises BenchError when the board has no such thing."""
        self.shell.run_script(
            self.on if enabled else self.off, _SHELL_DEADLINE_S, what="setting download mode"
        )
