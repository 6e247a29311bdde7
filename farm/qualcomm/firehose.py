"""Firehose: what a programmer speaks once the boot ROM has started it.

Source: the exchange that linux-msm/qdl and fwupd's qc-firehose plugin document. One XML document
per command; the answer is any number of ``<log>`` and one ``<response value="ACK|NAK">``, after
which logs may still come. With ``rawmode="true"`` raw sectors follow, then another response.
Left out: UFS provisioning, NAND, digest tables, sparse rawprogram entries.
"""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from farm.errors import BenchError, DeadlineError
from farm.qualcomm.transport import Bytes, Pipe, RefusedError, Transport, ViolationError

STEP_DEADLINE_S = 10.0
STORAGE_DEADLINE_S = 30.0
GREETING_DEADLINE_S = 3.0
PAYLOAD_BYTES = 1 << 20
PEEK_BYTES = 1 << 14
_DOCUMENT_LIMIT_BYTES = 1 << 20
_READ_BYTES = 1 << 14
_QUIET_S = 0.05
_CONFIGURE_ATTEMPTS = 4
_SMALLEST_PAYLOAD_BYTES = 512
_LARGEST_PAYLOAD_BYTES = 1 << 26
# The longest document that says no.
_REFUSAL_BYTES = 4096
_NUMBER = re.compile(r"[0-9]{1,18}")
_END = b"</data>"
_PEEK_BYTE = re.compile(r"(?:0x)?([0-9A-Fa-f]{2})(?=[\s,]|$)")
_PEEK_LINE = re.compile(r"\s*(?:0x[0-9A-Fa-f]{2}[\s,]+)*0x[0-9A-Fa-f]{2}[\s,]*")

Attributes = Mapping[str, object]


@dataclass(frozen=True)
class Response:
    """An answer: its attributes, and the logs that came before it."""

    value: str
    attributes: dict[str, str]
    logs: tuple[str, ...]

    @property
    def acknowledged(self) -> bool:
        """Whether it is an ACK."""
        return self.value == "ACK"

    @property
    def raw_mode(self) -> bool:
        """Whether raw data follows."""
        return self.attributes.get("rawmode", "").lower() == "true"


@dataclass
class Documents:
    """Splits a byte stream into XML documents, however transfers cut it; rests stay as raw data."""

    buffered: bytearray = field(default_factory=bytearray)

    def feed(self, data: Bytes) -> None:
        """Add what came."""
        self.buffered += data

    def next(self) -> list[ElementTree.Element] | None:
        """The elements of the next whole document; None when it is not whole yet.

        Raises ValueError for what is no document of this protocol.
        """
        start = len(self.buffered) - len(self.buffered.lstrip(b"\0 \r\n\t"))
        if start:
            del self.buffered[:start]
        if self.buffered and not self.buffered.startswith(b"<"):
            raise ValueError(f"{bytes(self.buffered[:16]).hex(' ')} begins no document")
        end = self.buffered.find(_END)
        if end < 0:
            if len(self.buffered) > _DOCUMENT_LIMIT_BYTES:
                raise ValueError(f"a document of over {_DOCUMENT_LIMIT_BYTES} bytes has no end")
            return None
        text = bytes(self.buffered[: end + len(_END)])
        del self.buffered[: end + len(_END)]
        if b"<!" in text:
            raise ValueError("a document declares a document type")
        # A programmer puts what it likes into a log, bytes that are no UTF-8 among it.
        text = re.sub(rb"<\?xml[^>]*\?>", b"", text)
        cleaned = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", text.decode("utf-8", "replace"))
        try:
            return list(ElementTree.fromstring(cleaned))
        except ElementTree.ParseError as error:
            raise ValueError(f"{text[:60]!r}: {error}") from None


def command(name: str, attributes: Attributes) -> bytes:
    """The document that gives a command."""
    words = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
    return f'<?xml version="1.0" encoding="UTF-8" ?><data><{name}{words} /></data>'.encode()


def parse_peek(logs: tuple[str, ...] | list[str]) -> bytes:
    """The bytes that a peek's logs spell; logs that are words are passed over."""
    data = bytearray()
    for line in logs:
        if _PEEK_LINE.fullmatch(line):
            data += bytes.fromhex("".join(_PEEK_BYTE.findall(line)))
    return bytes(data)


@dataclass(frozen=True)
class Geometry:
    """A storage: its sector size and number of sectors, where known."""

    sector_bytes: int
    sectors: int | None
    info: str


class Firehose:
    """The host's side of one Firehose session."""

    def __init__(
        self, transport: Transport, *, storage: str = "ufs", deadline_s: float = STEP_DEADLINE_S
    ) -> None:
        self.pipe = Pipe(transport)
        self.storage = storage
        self.payload_bytes = PAYLOAD_BYTES
        self.logs: list[str] = []
        self.functions: frozenset[str] = frozenset()
        self._deadline_s = deadline_s
        self._documents = Documents()
        self._peek_spelling: int | None = None

    # -- the exchange

    def _next_elements(self, end: float, step: str, wait_s: float) -> list[ElementTree.Element]:
        while True:
            try:
                found = self._documents.next()
            except ValueError as error:
                raise ViolationError(self.pipe.name, step, f"no Firehose answer: {error}") from None
            if found is not None:
                return found
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise DeadlineError(
                    f"{self.pipe.name}: the answer to {step}",
                    part="usb",
                    deadline_s=wait_s,
                    last=self.logs[-1] if self.logs else "",
                )
            self._documents.feed(self.pipe.read(_READ_BYTES, left_s, step))

    def _response(self, step: str, deadline_s: float | None = None) -> Response:
        wait_s = self._deadline_s if deadline_s is None else deadline_s
        end = time.monotonic() + wait_s
        logs: list[str] = []
        while True:
            for element in self._next_elements(end, step, wait_s):
                if element.tag == "log":
                    logs.append(element.get("value", ""))
                    self.logs.append(element.get("value", ""))
                elif element.tag == "response":
                    attributes = dict(element.attrib)
                    return Response(attributes.get("value", ""), attributes, tuple(logs))
                else:
                    raise ViolationError(self.pipe.name, step, f"<{element.tag}> came")

    def drain_logs(self, quiet_s: float = _QUIET_S) -> None:
        """Take logs that come after a response: some programmers take no command before that."""
        end = time.monotonic() + self._deadline_s
        while time.monotonic() < end:
            try:
                elements = self._next_elements(time.monotonic() + quiet_s, "draining logs", quiet_s)
            except DeadlineError:
                return
            for element in elements:
                if element.tag == "log":
                    self.logs.append(element.get("value", ""))

    def _write(self, document: bytes, step: str) -> None:
        try:
            self.pipe.write(document, self._deadline_s, step)
        except DeadlineError:
            # It has logs to be rid of first.
            self.drain_logs()
            self.pipe.write(document, self._deadline_s, step)

    def ask(
        self, name: str, attributes: Attributes, *, step: str = "", deadline_s: float | None = None
    ) -> Response:
        """Give a command and return its answer, ACK or NAK."""
        step = step or name
        self._write(command(name, attributes), step)
        return self._response(step, deadline_s)

    def order(
        self, name: str, attributes: Attributes, *, step: str = "", deadline_s: float | None = None
    ) -> Response:
        """Give a command; raises RefusedError for a NAK."""
        response = self.ask(name, attributes, step=step, deadline_s=deadline_s)
        self._check(response, step or name)
        return response

    def _check(self, response: Response, step: str, *, offset: int | None = None) -> None:
        if not response.acknowledged:
            said = "; ".join(response.logs[-3:]) or "no reason was given"
            raise RefusedError(
                self.pipe.name, step, f"{response.value or 'no value'}: {said}", offset=offset
            )

    # -- session

    def greet(self, deadline_s: float = GREETING_DEADLINE_S) -> None:
        """Take the programmer's first logs and what they say it supports."""
        end = time.monotonic() + deadline_s
        first = True
        while time.monotonic() < end:
            wait_s = deadline_s if first else 4 * _QUIET_S
            try:
                elements = self._next_elements(time.monotonic() + wait_s, "the greeting", wait_s)
            except DeadlineError:
                break
            first = False
            for element in elements:
                self.logs.append(element.get("value", ""))
        self.functions = _supported(self.logs)

    def configure(self) -> int:
        """Agree on a payload size; returns it in bytes; raises RefusedError."""
        wanted = self.payload_bytes
        step = "configure"
        for _ in range(_CONFIGURE_ATTEMPTS):
            response = self.ask(
                "configure",
                {
                    "MemoryName": self.storage,
                    "MaxPayloadSizeToTargetInBytes": wanted,
                    "verbose": 0,
                    "ZLPAwareHost": 1,
                    "SkipStorageInit": 0,
                },
                step=step,
            )
            key = "MaxPayloadSizeToTargetInBytes"
            if response.acknowledged:
                key += "Supported"
            offered = response.attributes.get(key, "")
            sane = _NUMBER.fullmatch(offered) is not None and (
                _SMALLEST_PAYLOAD_BYTES <= int(offered) <= _LARGEST_PAYLOAD_BYTES
            )
            if not sane:
                if response.acknowledged and not offered:
                    break
                self._check(response, step)
                raise ViolationError(self.pipe.name, step, f"it offers {key}={offered!r}")
            agreed = min(int(offered), PAYLOAD_BYTES)
            if response.acknowledged and agreed == wanted:
                break
            wanted = agreed
        else:
            raise RefusedError(self.pipe.name, step, "no payload size is good enough")
        self.payload_bytes = wanted
        self.drain_logs()
        return wanted

    # -- memory

    def peek(self, address: int, length: int, sink: Callable[[bytes], object]) -> None:
        """Read memory by peek, handed to ``sink`` in pieces; raises RefusedError.

        Both spellings that programmers know are tried.
        """
        done = 0
        while done < length:
            count = min(PEEK_BYTES, length - done)
            sink(self._peek_piece(address + done, count, done))
            done += count

    def _peek_piece(self, address: int, count: int, offset: int) -> bytes:
        step = f"peek of {count} bytes at {address:#x}"
        spellings = (
            {"address64": f"{address:#x}", "size_in_bytes": count},
            {"address64": f"{address:#x}", "SizeInBytes": count},
        )
        order = (0, 1) if self._peek_spelling is None else (self._peek_spelling,)
        response = None
        for spelling in order:
            response = self.ask("peek", spellings[spelling], step=step)
            if response.acknowledged:
                self._peek_spelling = spelling
                break
        assert response is not None
        self._check(response, step, offset=offset)
        data = parse_peek(response.logs)
        if len(data) != count:
            raise ViolationError(
                self.pipe.name,
                step,
                f"{len(data)} bytes came for {count}",
                offset=offset,
            )
        return data

    # -- storage

    def storage_info(self, lun: int = 0) -> Geometry:
        """What getstorageinfo says; raises RefusedError."""
        response = self.order("getstorageinfo", {"physical_partition_number": lun})
        text = " ".join(response.logs)
        block = re.search(r'"?block_size"?\s*[:=]\s*"?([0-9]{1,18})', text)
        total = re.search(r'"?total_blocks"?\s*[:=]\s*"?([0-9]{1,18})', text)
        return Geometry(
            sector_bytes=int(block[1]) if block else 0,
            sectors=int(total[1]) if total else None,
            info=text,
        )

    def sector_bytes(self, lun: int = 0) -> int:
        """The sector size, by reading sector 1 at 512 and at 4096; raises RefusedError."""
        for size in (512, 4096):
            try:
                if self.read(lun, 1, 1, size)[:8] == b"EFI PART":
                    return size
            except RefusedError:
                continue
        raise RefusedError(self.pipe.name, "finding the sector size", "no GPT in sector 1")

    def read(self, lun: int, start: int | str, sectors: int, sector_bytes: int) -> bytes:
        """Read sectors; raises RefusedError, ViolationError, DeadlineError."""
        step = f"read of {sectors} sectors at {start}"
        response = self.order(
            "read",
            {
                "SECTOR_SIZE_IN_BYTES": sector_bytes,
                "num_partition_sectors": sectors,
                "physical_partition_number": lun,
                "start_sector": start,
            },
            step=step,
        )
        if not response.raw_mode:
            raise ViolationError(self.pipe.name, step, "the answer promises no data")
        wanted = sectors * sector_bytes
        data = bytearray()
        kept = self._documents.buffered
        while len(data) < wanted:
            if kept:
                taken = min(len(kept), wanted - len(data))
                data += kept[:taken]
                del kept[:taken]
                continue
            data += self.pipe.read(wanted - len(data), STORAGE_DEADLINE_S, step, offset=len(data))
            self._check_cut_short(data, wanted, step)
        self._check(self._response(step), step)
        return bytes(data)

    def _check_cut_short(self, data: bytearray, wanted: int, step: str) -> None:
        """A programmer that fails half-way sends its NAK where data should be."""
        if len(data) == wanted:
            return
        at = data.rfind(b"<?xml", max(0, len(data) - _REFUSAL_BYTES))
        if at >= 0 and data.rstrip(b"\0\r\n ").endswith(_END) and b"NAK" in data[at:]:
            raise RefusedError(self.pipe.name, step, f"NAK after {at} bytes", offset=at)

    def program(
        self,
        lun: int,
        start: int | str,
        data: bytes,
        sector_bytes: int,
        *,
        name: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Write ``data``, filled up to whole sectors; raises RefusedError, DeadlineError."""
        sectors = -(-len(data) // sector_bytes)
        step = f"program of {sectors} sectors at {start}" + (f" ({name})" if name else "")
        response = self.order(
            "program",
            {
                "SECTOR_SIZE_IN_BYTES": sector_bytes,
                "num_partition_sectors": sectors,
                "physical_partition_number": lun,
                "start_sector": start,
                "filename": name,
            },
            step=step,
        )
        if not response.raw_mode:
            raise ViolationError(self.pipe.name, step, "the answer takes no data")
        piece_bytes = max(sector_bytes, self.payload_bytes // sector_bytes * sector_bytes)
        whole = data.ljust(sectors * sector_bytes, b"\0")
        for at in range(0, len(whole), piece_bytes):
            piece = whole[at : at + piece_bytes]
            self.pipe.write(piece, STORAGE_DEADLINE_S, step)
            if len(piece) % self.pipe.transport.packet_bytes == 0:
                self.pipe.write(b"", STORAGE_DEADLINE_S, step)
            if progress is not None:
                progress(min(at + len(piece), len(data)), len(data))
        self._check(self._response(step, STORAGE_DEADLINE_S), step, offset=len(whole))
        self.drain_logs()

    def erase(self, lun: int, start: int | str, sectors: int, sector_bytes: int) -> None:
        """Erase sectors; raises RefusedError."""
        self.order(
            "erase",
            {
                "SECTOR_SIZE_IN_BYTES": sector_bytes,
                "num_partition_sectors": sectors,
                "physical_partition_number": lun,
                "start_sector": start,
            },
            deadline_s=STORAGE_DEADLINE_S,
        )

    def set_bootable(self, lun: int) -> None:
        """Boot from this drive; raises RefusedError."""
        self.order("setbootablestoragedrive", {"value": lun})

    def power(self, value: str = "reset") -> None:
        """Reset the board, or switch it; a board that vanishes at once has done so too."""
        step = f"power {value}"
        self._write(command("power", {"value": value}), step)
        try:
            self._check(self._response(step), step)
        except BenchError as error:
            if isinstance(error, RefusedError | ViolationError | DeadlineError):
                raise


def _supported(logs: list[str]) -> frozenset[str]:
    """The functions that a programmer's greeting lists."""
    for at, line in enumerate(logs):
        if "supported functions" in line.lower():
            tail = [line.rsplit(":", 1)[-1], *logs[at + 1 :]]
            words = re.findall(r"[a-z_]+", " ".join(tail).lower())
            return frozenset(words) - {"end", "of", "supported", "functions"}
    return frozenset()
