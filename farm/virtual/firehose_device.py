"""The programmer's own half of Firehose, on the board's disk and memory.

Source: the exchange as linux-msm/qdl shows it (commands, attributes, expressions in rawprogram and
patch files); greeting and getstorageinfo as published logs of programmers have them.
Left out: digests, NAND, UFS provisioning.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable
from typing import Any

from farm.virtual.disk import DISK_BYTES, SECTOR_BYTES, Disk
from farm.virtual.sahara_device import Memory
from farm.virtual.usb_device import Device

_PAYLOAD_BYTES = 1 << 20
_GOODBYE_S = 0.3
_PEEK_LIMIT_BYTES = 1 << 16
_PEEK_LINE_BYTES = 256
_FUNCTIONS = (
    "configure",
    "program",
    "read",
    "erase",
    "patch",
    "getstorageinfo",
    "peek",
    "power",
    "setbootablestoragedrive",
    "nop",
)


class _Refusal(Exception):
    """A NAK with its reason."""


class FirehoseDevice:
    """Serves commands until a power command ends it."""

    def __init__(
        self,
        disk: Disk,
        memory: Memory,
        serial: int,
        *,
        on_power: Callable[[str], None],
        on_bootable: Callable[[int], None],
    ) -> None:
        self._disk = disk
        self._memory = memory
        self._serial = serial
        self._on_power = on_power
        self._on_bootable = on_bootable
        self._commands = 0
        self._ended = False

    def run(self, device: Device) -> None:
        """Serve ``device`` until it is reset or unplugged."""
        for line in (
            "Binary build date: Jan  1 2024 @ 00:00:00",
            f"Chip serial num: {self._serial} (0x{self._serial:x})",
            f"Supported Functions ({len(_FUNCTIONS)}):",
            *_FUNCTIONS,
            "End of supported functions",
        ):
            self._log(device, line)
        waiting = b""
        while not self._ended:
            waiting += device.receive(4096)
            while (end := waiting.find(b"</data>")) >= 0:
                document, waiting = waiting[: end + 7], waiting[end + 7 :].lstrip(b"\0\r\n ")
                self._document(device, document)

    # -- answers

    def _say(self, device: Device, body: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8" ?>\n<data>\n{body}\n</data>'
        device.send(text.encode())

    def _log(self, device: Device, text: str) -> None:
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        self._say(device, f'<log value="{escaped}" />')

    def _respond(self, device: Device, value: str, **attributes: Any) -> None:
        words = "".join(f' {name}="{text}"' for name, text in attributes.items())
        self._say(device, f'<response value="{value}"{words} />')
        if device.faults.log_after and attributes.get("rawmode") != "true":
            self._log(device, "a word after the response")

    # -- commands

    def _document(self, device: Device, document: bytes) -> None:
        try:
            root = ElementTree.fromstring(document.strip())
        except ElementTree.ParseError as error:
            self._log(device, f"XML not formed correctly: {error}")
            self._respond(device, "NAK", rawmode="false")
            return
        for element in root:
            self._commands += 1
            try:
                if device.faults.nak_at == self._commands:
                    raise _Refusal("this one is refused")
                action = getattr(self, f"_do_{element.tag.lower()}", None)
                if action is None:
                    raise _Refusal(f"command {element.tag} is not supported")
                action(device, dict(element.attrib))
            except _Refusal as refusal:
                self._log(device, f"ERROR: {refusal}")
                self._respond(device, "NAK", rawmode="false")

    def _do_nop(self, device: Device, words: dict[str, str]) -> None:
        self._respond(device, "ACK")

    def _do_configure(self, device: Device, words: dict[str, str]) -> None:
        name = words.get("MemoryName", "").lower()
        if name not in ("ufs", "emmc"):
            raise _Refusal(f"no storage called {name}")
        asked = int(words.get("MaxPayloadSizeToTargetInBytes", "0") or 0)
        sizes = {
            "MemoryName": name.upper(),
            "MaxPayloadSizeFromTargetInBytes": 4096,
            "MaxPayloadSizeToTargetInBytesSupported": _PAYLOAD_BYTES,
            "TargetName": "virtual",
        }
        if asked > _PAYLOAD_BYTES:
            self._respond(device, "NAK", MaxPayloadSizeToTargetInBytes=_PAYLOAD_BYTES, **sizes)
        else:
            self._respond(
                device,
                "ACK",
                MaxPayloadSizeToTargetInBytes=asked,
                MinVersionSupported=1,
                Version=1,
                **sizes,
            )

    def _do_getstorageinfo(self, device: Device, words: dict[str, str]) -> None:
        self._log(
            device,
            'INFO: {"storage_info": {"total_blocks":'
            f'{self._disk.sectors}, "block_size":{SECTOR_BYTES}, "page_size":{SECTOR_BYTES}, '
            '"num_physical":1, "manufacturer_id":0, "serial_num":'
            f'{self._serial}, "fw_version":"1","mem_type":"UFS","prod_name":"VIRTUAL"}}}}',
        )
        self._respond(device, "ACK")

    def _sector(self, text: str) -> int:
        """A sector as rawprogram files write it: a number, or counted from the disk's end."""
        match = re.fullmatch(r"\s*(NUM_DISK_SECTORS\s*-\s*)?(\d+)\.?\s*", text)
        if match is None:
            raise _Refusal(f"start_sector {text} is not understood")
        number = int(match[2])
        return self._disk.sectors - number if match[1] else number

    def _span(self, words: dict[str, str]) -> tuple[int, int]:
        """(offset, size) in bytes of what a command is about."""
        if int(words.get("SECTOR_SIZE_IN_BYTES", SECTOR_BYTES)) != SECTOR_BYTES:
            raise _Refusal(f"sectors have {SECTOR_BYTES} bytes here")
        if int(words.get("physical_partition_number", "0")) != 0:
            raise _Refusal("there is one physical partition")
        start = self._sector(words.get("start_sector", "0"))
        count = int(words.get("num_partition_sectors", "0"))
        if start < 0 or count < 0 or (start + count) * SECTOR_BYTES > DISK_BYTES:
            raise _Refusal(f"sectors {start}+{count} are not on the disk")
        return start * SECTOR_BYTES, count * SECTOR_BYTES

    def _do_program(self, device: Device, words: dict[str, str]) -> None:
        offset, size = self._span(words)
        self._respond(device, "ACK", rawmode="true")
        at = 0
        while at < size:
            piece = device.receive_exactly(min(_PAYLOAD_BYTES, size - at))
            self._disk.write(offset + at, piece)
            at += len(piece)
        self._log(device, f"INFO: wrote {size} bytes")
        self._respond(device, "ACK", rawmode="false")

    def _do_read(self, device: Device, words: dict[str, str]) -> None:
        offset, size = self._span(words)
        self._respond(device, "ACK", rawmode="true")
        for at in range(0, size, _PAYLOAD_BYTES):
            device.send_stream(self._disk.read(offset + at, min(_PAYLOAD_BYTES, size - at)))
        device.end_stream()
        self._respond(device, "ACK", rawmode="false")

    def _do_erase(self, device: Device, words: dict[str, str]) -> None:
        offset, size = self._span(words)
        if not size and "num_partition_sectors" not in words:
            size = DISK_BYTES - offset
        self._disk.erase(offset, size)
        self._respond(device, "ACK", rawmode="false")

    def _do_patch(self, device: Device, words: dict[str, str]) -> None:
        if words.get("filename", "DISK").upper() == "DISK":
            offset, _ = self._span({**words, "num_partition_sectors": "0"})
            size = int(words.get("size_in_bytes", "0"))
            if not 0 < size <= 8:
                raise _Refusal(f"a patch of {size} bytes")
            value = self._value(words.get("value", ""))
            at = offset + int(words.get("byte_offset", "0"))
            self._disk.write(at, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        self._respond(device, "ACK", rawmode="false")

    def _value(self, text: str) -> int:
        """A patch's value: a number, a sector from the end, or a sum over bytes of the disk."""
        sum_of = re.fullmatch(r"\s*CRC32\(\s*([^,]+),\s*(\d+)\s*\)\s*", text)
        if sum_of:
            offset = self._sector(sum_of[1]) * SECTOR_BYTES
            return zlib.crc32(self._disk.read(offset, int(sum_of[2])))
        return self._sector(text)

    def _do_peek(self, device: Device, words: dict[str, str]) -> None:
        spelling = device.faults.peek_spelling
        if spelling not in words:
            raise _Refusal(f"peek wants {spelling}")
        address, size = int(words.get("address64", "0"), 0), int(words[spelling], 0)
        if not 0 < size <= _PEEK_LIMIT_BYTES:
            raise _Refusal(f"peek of {size} bytes")
        data = self._memory.read(address, size)
        if data is None:
            raise _Refusal(f"no memory at 0x{address:x}")
        for at in range(0, size, _PEEK_LINE_BYTES):
            line = " ".join(f"0x{byte:02x}" for byte in data[at : at + _PEEK_LINE_BYTES])
            self._log(device, line + " ")
        self._respond(device, "ACK")

    def _do_setbootablestoragedrive(self, device: Device, words: dict[str, str]) -> None:
        self._on_bootable(int(words.get("value", "0")))
        self._respond(device, "ACK")

    def _do_power(self, device: Device, words: dict[str, str]) -> None:
        value = words.get("value", "reset")
        self._log(device, f"INFO: Calling handler for power {value}")
        self._respond(device, "ACK", rawmode="false")
        self._ended = True
        device.to_host.wait_idle(_GOODBYE_S)
        self._on_power(value)
