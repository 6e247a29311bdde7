"""Drivers for the board's boot modes: crash mode, EDL, fastboot, and whether a crash is kept.

Each is thin: what is said over USB is `farm.qualcomm`'s, run by `UsbBoot` where the cable ends.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import attr
from labgrid.driver.common import Driver
from labgrid.factory import target_factory

from farm.bench.shell import BoardShell
from farm.bench.usb import ReadBack, UsbBoot
from farm.errors import BenchError, UsageError
from farm.qualcomm.hexdump import parse_hexdump

_READ_DEADLINE_S = 120.0
_DUMP_DEADLINE_S = 3600.0
_FLASH_DEADLINE_S = 300.0
_SHORT_DEADLINE_S = 20.0
_SHELL_DEADLINE_S = 10.0
# U-Boot's console record is small.
_CONSOLE_BYTES = 1024


@target_factory.reg_driver
@attr.s(eq=False)
class CrashMode(Driver):  # type: ignore[misc]  # labgrid has no types
    """Reads a crashed board's memory over Sahara."""

    bindings = {"usb": UsbBoot}  # noqa: RUF012  # labgrid's way

    def read(self, address: int, length: int, target: Path) -> ReadBack:
        """Read just these physical addresses into ``target``; raises BenchError."""
        return self.usb.to_file(target, _READ_DEADLINE_S, "crash_read", address, length)  # type: ignore[no-any-return]

    def dump(self, folder: Path) -> dict[str, Any]:
        """Dump every region into ``folder``, or go on with it; raises BenchError."""
        if self.usb.host:
            raise UsageError(
                "a full RAM dump goes to the host of the USB cable",
                "Run the farm there, or read the wanted addresses only.",
            )
        return self.usb.call("crash_dump", str(folder), deadline_s=_DUMP_DEADLINE_S)  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Leave crash mode."""
        self.usb.call("crash_reset", deadline_s=_SHORT_DEADLINE_S)


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
        return str(path), self.storage

    def peek(self, address: int, length: int, target: Path) -> ReadBack:
        """Read memory by the programmer's peek into ``target``; raises BenchError."""
        return self.usb.to_file(  # type: ignore[no-any-return]
            target, _READ_DEADLINE_S * 4, "edl_peek", *self._session, address, length
        )

    def flash(self, partition: str, image: Path) -> str:
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
            self.usb.call("edl_reset_to_edl", *self._session)
            self._by_qdl(partition, image, first, sectors, sector_bytes)
            return "qdl"
        self.usb.call(
            "edl_program",
            *(*self._session, first, sector_bytes, str(image), partition),
            deadline_s=_FLASH_DEADLINE_S,
        )
        self.reset()
        return "builtin"

    def _qdl_fits(self) -> bool:
        return bool(self.usb.bus_devices() == 1)

    def _by_qdl(
        self, partition: str, image: Path, first: int, sectors: int, sector_bytes: int
    ) -> None:
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
        with tempfile.TemporaryDirectory(prefix="farm-qdl-") as folder:
            rawprogram = Path(folder) / "rawprogram0.xml"
            rawprogram.write_text(
                f'<?xml version="1.0" ?>\n<data>\n<program {attributes}/>\n</data>'
            )
            programmer, storage = self._session
            self.usb.tool(
                [
                    *("qdl", "--storage", storage, "--include", str(image.resolve().parent)),
                    *(programmer, str(rawprogram)),
                ],
                _FLASH_DEADLINE_S,
                f"flashing {partition}",
                good=lambda text: f'flashed "{partition}" successfully' in text,
            )

    def reset(self) -> None:
        """Leave EDL."""
        self.usb.call("edl_reset", *self._session, deadline_s=_SHORT_DEADLINE_S)


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

    def run(self, *arguments: str, deadline_s: float = _SHORT_DEADLINE_S) -> str:
        """Run one fastboot command on this board; raises BenchError with its words."""
        found = self.usb.find()
        serial = self.serial or (found.serial if found is not None else "")
        if not serial:
            raise BenchError(
                f"{self.usb.describe()}: the board is not in fastboot",
                part="usb",
                next_step="Find out where it is; bring it to fastboot first.",
            )
        self.usb.release()
        return self.usb.tool(  # type: ignore[no-any-return]
            ["fastboot", "-s", serial, *arguments],
            deadline_s,
            f"fastboot {' '.join(arguments)}",
            good=lambda _: True,
        )

    def getvar(self, name: str) -> str:
        """A variable of the bootloader's; raises BenchError."""
        found = re.search(rf"^{re.escape(name)}: (.*)$", self.run("getvar", name), re.M)
        if found is None:
            raise BenchError(f"{self.usb.describe()}: no {name} in fastboot's answer", part="usb")
        return found[1].strip()

    def flash(self, partition: str, image: Path) -> None:
        """Write ``image`` to ``partition``; raises BenchError."""
        self.run("flash", partition, str(image), deadline_s=_FLASH_DEADLINE_S)

    def read(self, address: int, length: int, target: Path) -> None:
        """Read memory into ``target``; raises BenchError, UsageError when it cannot be."""
        if self.reader == "lk2nd":
            self.run("oem", "ramoops", "raw")
            self.run("get_staged", str(target), deadline_s=_READ_DEADLINE_S)
            size = target.stat().st_size
            if size != length:
                raise BenchError(
                    f"{self.usb.describe()}: the bootloader staged {size} bytes, "
                    f"ramoops has {length}",
                    part="usb",
                    next_step="Give the bootloader and the kernel the same region.",
                )
        elif self.reader == "u-boot":
            self._by_console(address, length, target)
        else:
            raise UsageError(
                f"target {self.target.name}: this bootloader reads no memory",
                "Use another channel, or set Fastboot's `reader`.",
            )

    def _by_console(self, address: int, length: int, target: Path) -> None:
        with target.open("wb") as file:
            for at in range(0, length, _CONSOLE_BYTES):
                count = min(_CONSOLE_BYTES, length - at)
                self.run("oem", f"run:md.b {address + at:x} {count:x}")
                file.write(parse_hexdump(self.run("oem", "console"), address + at, count))


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
