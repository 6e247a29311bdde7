"""The bootloader's own half of fastboot, over USB and TCP, in three bootloaders' manners.

Source: AOSP, system/core/fastboot/README.md (commands, answers, variables, TCP framing); lk2nd's
``oem ramoops`` and U-Boot's ``oem run`` / ``oem console`` as their sources have them; ABL has
neither. Left out: fastbootd's logical partitions, ``fetch``, locking.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from farm.virtual.disk import SLOTS, Disk, NoTableError
from farm.virtual.personality import Personality
from farm.virtual.sahara_device import Memory
from farm.virtual.sparse import BadSparseError, is_sparse, unpack

DOWNLOAD_LIMIT_BYTES = 32 << 20
_ANSWER_BYTES = 256
_INFO_BYTES = 250
_DUMP_LINE_BYTES = 16
# U-Boot's CONSOLE_RECORD_OUT_SIZE as it is by default: what is printed beyond that is lost.
_CONSOLE_RECORD_BYTES = 0x400
_UPLOAD_PIECE_BYTES = 1 << 20


class FastbootLink(Protocol):
    """A host on the other side, over USB or TCP."""

    def receive(self, size_bytes: int = ...) -> bytes:
        """The next packet."""

    def receive_exactly(self, size_bytes: int) -> bytes:
        """The data of a download."""

    def send(self, data: bytes) -> None:
        """An answer."""

    def send_data(self, data: bytes) -> None:
        """The data of an upload, in one piece."""


@dataclass(frozen=True)
class Ramoops:
    """The region that ``oem ramoops`` stages."""

    paddr: int
    length_bytes: int


class Leave(StrEnum):
    """How the bootloader is left."""

    CONTINUE = "continue"
    BOOT = "boot"
    REBOOT = "reboot"
    BOOTLOADER = "bootloader"
    EDL = "edl"
    RECOVERY = "recovery"
    POWEROFF = "powerdown"


class _Failure(Exception):
    """A FAIL with its reason."""


class Fastboot:
    """What all links of one stay in the bootloader share: what was downloaded, what is staged."""

    def __init__(
        self,
        disk: Disk,
        memory: Memory,
        *,
        personality: Personality,
        serial: str,
        ramoops: Ramoops | None,
        on_leave: Callable[[Leave, bytes], None],
    ) -> None:
        self._disk = disk
        self._memory = memory
        self._personality = personality
        self._serial = serial
        self._ramoops = ramoops
        self._on_leave = on_leave
        self._downloaded = b""
        self._staged = b""
        self._console = ""

    def command(self, link: FastbootLink, text: str) -> None:
        """Obey one command and answer it."""
        try:
            self._obey(link, text)
        except _Failure as failure:
            self._answer(link, "FAIL", str(failure))
        except NoTableError:
            self._answer(link, "FAIL", "there is no partition table")

    def _answer(self, link: FastbootLink, word: str, text: str = "") -> None:
        link.send((word + text).encode("utf-8", "replace")[:_ANSWER_BYTES])

    def _obey(self, link: FastbootLink, text: str) -> None:
        word, _, rest = text.partition(":")
        if word == "getvar":
            self._getvar(link, rest)
        elif word == "download":
            self._download(link, rest)
        elif word == "upload":
            self._upload(link)
        elif word == "flash":
            self._flash(rest)
            self._answer(link, "OKAY")
        elif word == "erase":
            partition = self._partition(rest)
            self._disk.erase(partition[0], partition[1])
            self._answer(link, "OKAY")
        elif word == "set_active":
            slot = rest.lstrip("_")
            if slot not in SLOTS:
                raise _Failure(f"there is no slot {rest}")
            self._disk.set_active(slot)
            self._answer(link, "OKAY")
        elif text.startswith("oem "):
            self._oem(link, text[4:])
        else:
            self._leave(link, text)

    def _leave(self, link: FastbootLink, text: str) -> None:
        ways = {
            "continue": Leave.CONTINUE,
            "boot": Leave.BOOT,
            "reboot": Leave.REBOOT,
            "reboot-bootloader": Leave.BOOTLOADER,
            "reboot-recovery": Leave.RECOVERY,
            "powerdown": Leave.POWEROFF,
        }
        if text not in ways:
            raise _Failure("unknown command")
        if text == "boot" and not self._downloaded:
            raise _Failure("nothing was downloaded")
        self._answer(link, "OKAY")
        self._on_leave(ways[text], self._downloaded)

    # -- variables

    def _variables(self) -> dict[str, str]:
        product = {"lk2nd": "lk2nd-virtual", "abl": "virtual", "u-boot": "u-boot-virtual"}
        values = {
            "version": "0.4",
            "product": product[self._personality],
            "serialno": self._serial,
            "secure": "no",
            "unlocked": "yes",
            "max-download-size": f"0x{DOWNLOAD_LIMIT_BYTES:x}",
            "variant": "UFS",
        }
        try:
            partitions = self._disk.partitions()
        except NoTableError:
            return values
        slots = [one for one in partitions if re.fullmatch(r"boot_[ab]", one.name)]
        if slots:
            values["slot-count"] = str(len(slots))
            values["current-slot"] = self._disk.active_slot() or ""
            values["has-slot:boot"] = "yes"
            for one in slots:
                slot = one.name[-1]
                values[f"slot-successful:{slot}"] = "yes" if one.successful else "no"
                values[f"slot-unbootable:{slot}"] = "yes" if one.unbootable else "no"
                values[f"slot-retry-count:{slot}"] = str(one.retries)
        for one in partitions:
            values[f"partition-size:{one.name}"] = f"0x{one.size_bytes:x}"
            values[f"partition-type:{one.name}"] = "raw"
        return values

    def _getvar(self, link: FastbootLink, name: str) -> None:
        values = self._variables()
        if name == "all":
            for key, value in values.items():
                self._answer(link, "INFO", f"{key}:{value}")
            self._answer(link, "OKAY")
        elif name in values:
            self._answer(link, "OKAY", values[name])
        elif name.startswith(("has-slot:", "is-logical:")):
            self._answer(link, "OKAY", "no")
        else:
            raise _Failure(f"unknown variable {name}")

    # -- data

    def _download(self, link: FastbootLink, text: str) -> None:
        if not re.fullmatch(r"[0-9a-fA-F]{8}", text):
            raise _Failure("the size is not eight hex digits")
        size = int(text, 16)
        if size > DOWNLOAD_LIMIT_BYTES:
            raise _Failure("data too large")
        self._answer(link, "DATA", f"{size:08x}")
        self._downloaded = link.receive_exactly(size)
        self._answer(link, "OKAY")

    def _upload(self, link: FastbootLink) -> None:
        if not self._staged:
            raise _Failure("nothing is staged")
        self._answer(link, "DATA", f"{len(self._staged):08x}")
        link.send_data(self._staged)
        self._answer(link, "OKAY")

    def _partition(self, name: str) -> tuple[int, int]:
        self._disk.partitions()
        found = self._disk.partition(name)
        if found is None:
            raise _Failure(f"there is no partition {name}")
        return found.first * 4096, found.size_bytes

    def _flash(self, name: str) -> None:
        if not self._downloaded:
            raise _Failure("nothing was downloaded")
        offset, size = self._partition(name)
        pieces = [(0, self._downloaded)]
        if is_sparse(self._downloaded):
            try:
                pieces = list(unpack(self._downloaded))
            except BadSparseError as error:
                raise _Failure(str(error)) from None
        if any(at + len(piece) > size for at, piece in pieces):
            raise _Failure(f"the image is larger than {name}")
        for at, piece in pieces:
            self._disk.write(offset + at, piece)

    # -- oem

    def _oem(self, link: FastbootLink, text: str) -> None:
        words = text.split()
        if words == ["reboot-edl"] and self._personality is not Personality.U_BOOT:
            self._answer(link, "OKAY")
            self._on_leave(Leave.EDL, b"")
        elif words[:1] == ["ramoops"] and self._personality is Personality.LK2ND:
            if words[1:] not in ([], ["raw"]) or self._ramoops is None:
                raise _Failure("ramoops: raw is what there is")
            data = self._memory.read(self._ramoops.paddr, self._ramoops.length_bytes)
            if data is None:
                raise _Failure("ramoops is not in memory")
            self._staged = data
            self._answer(link, "INFO", f"{len(data)} bytes staged")
            self._answer(link, "OKAY")
        elif text.startswith("run:") and self._personality is Personality.U_BOOT:
            self._console = self._run(text[4:])
            self._answer(link, "OKAY")
        elif words == ["console"] and self._personality is Personality.U_BOOT:
            for line in self._console.splitlines():
                self._answer(link, "INFO", line[:_INFO_BYTES])
            self._console = ""
            self._answer(link, "OKAY")
        else:
            raise _Failure(f"unknown oem command {text}")

    def _run(self, text: str) -> str:
        """U-Boot's ``md.b ADDRESS COUNT``: numbers in hex, sixteen bytes a line and their text."""
        match = re.fullmatch(r"md\.b\s+(?:0x)?([0-9a-fA-F]+)\s+(?:0x)?([0-9a-fA-F]+)", text)
        if match is None:
            raise _Failure("only md.b is there")
        address, count = int(match[1], 16), int(match[2], 16)
        if count > 1 << 16:
            raise _Failure("that takes too long")
        data = self._memory.read(address, count)
        if data is None:
            raise _Failure(f"no memory at {address:x}")
        lines = []
        for at in range(0, count, _DUMP_LINE_BYTES):
            piece = data[at : at + _DUMP_LINE_BYTES]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
            hexes = " ".join(f"{byte:02x}" for byte in piece)
            lines.append(f"{address + at:08x}: {hexes:<47}  {shown}")
        return "".join(f"{line}\n" for line in lines)[:_CONSOLE_RECORD_BYTES]
