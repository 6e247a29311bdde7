"""The recorded console: labgrid's ConsoleProtocol over a link that reads all the time."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import attr
import pexpect
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.protocol import ConsoleProtocol
from labgrid.resource import SerialPort

from farm.bench.hosts import forward
from farm.bench.ports import Link, Rfc2217Link, SocketLink, TtyLink
from farm.bench.stream import ConsoleStream, Patterns, Seen, compiled
from farm.errors import BenchError, UsageError


@target_factory.reg_driver
@attr.s(eq=False)
class RecordedConsole(Driver, ConsoleProtocol):  # type: ignore[misc]  # labgrid has no types
    """A serial console that loses no byte and notices at once when its port vanishes.

    Binds a RawSerialPort or a NetworkSerialPort (protocol rfc2217 or raw). ``txdelay`` seconds
    are waited after every ``txchunk`` bytes sent, for boards without flow control. labgrid's own
    SerialDriver reads only while someone waits, and its search is quadratic in what it has read.
    """

    bindings = {"port": {"SerialPort", "NetworkSerialPort"}}  # noqa: RUF012  # labgrid's way

    txdelay: float = attr.ib(default=0.0, converter=float)
    txchunk: int = attr.ib(default=1, validator=attr.validators.instance_of(int))
    timeout: float = attr.ib(default=3.0, converter=float)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.stream = ConsoleStream()
        self._link: Link | None = None

    def on_activate(self) -> None:
        """Open the port and begin to read; raises BenchError(part="serial")."""
        self._open()

    def on_deactivate(self) -> None:
        """Close the port and the recording."""
        self._close()
        self.stream.record_to(None)

    def _open(self) -> None:
        stream = self.stream
        stream.begin()
        if isinstance(self.port, SerialPort):
            self._link = TtyLink(self.port.port, self.port.speed, stream.feed, stream.lose)
            return
        host, port = forward(self.port)
        if self.port.protocol == "rfc2217":
            self._link = Rfc2217Link(
                host, port, self.port.speed, stream.feed, stream.lose, self.timeout
            )
        elif self.port.protocol == "raw":
            self._link = SocketLink(host, port, stream.feed, stream.lose)
        else:
            raise UsageError(
                f"the serial port {host}:{port} has the protocol {self.port.protocol!r}",
                "Use rfc2217 or raw.",
            )

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    @property
    def link(self) -> Link:
        """The open port; raises BenchError(part="serial")."""
        if self._link is None:
            raise BenchError("the serial port is not open", part="serial")
        return self._link

    @property
    def lost(self) -> str | None:
        """Why the port is gone; None while it is there."""
        return self.stream.lost if self._link is not None else "it is not open"

    def reopen(self) -> None:
        """Open the port again after it was lost; raises BenchError(part="serial")."""
        self._close()
        self._open()

    def record_to(self, folder: Path | None) -> None:
        """Record into ``folder`` from the next byte on; raises BenchError(part="disk")."""
        self.stream.record_to(folder)

    def mark(self) -> None:
        """Let the next wait begin with what arrives from now on."""
        self.stream.mark()

    def last_line(self) -> str:
        """The last line that was not empty."""
        return self.stream.last_line()

    def wait_for(
        self,
        patterns: Patterns,
        deadline_s: float,
        what: str,
        *,
        part: str = "board",
        stall_s: float | None = None,
    ) -> Seen:
        """See ``ConsoleStream.wait_for``."""
        return self.stream.wait_for(patterns, deadline_s, what, part=part, stall_s=stall_s)

    def send_break(self, seconds: float = 0.05) -> None:
        """Hold the line in BREAK for so long; raises BenchError, UsageError."""
        link = self.link
        link.set_break(True)
        try:
            # A BREAK is a length of time: there is nothing to wait for.
            threading.Event().wait(seconds)
        finally:
            link.set_break(False)

    def write(self, data: bytes) -> int:
        """Send ``data``; returns how many bytes that were; raises BenchError(part="serial")."""
        if not self.txdelay:
            self.link.write(data)
            return len(data)
        for at in range(0, len(data), self.txchunk):
            self.link.write(data[at : at + self.txchunk])
            threading.Event().wait(self.txdelay)
        return len(data)

    def sendline(self, line: str) -> None:
        """Send ``line`` and a line feed."""
        self.write(line.encode() + b"\n")

    def sendcontrol(self, char: str) -> None:
        """Send a control character, e.g. ``c`` for Ctrl-C."""
        self.write(bytes([ord(char.lower()) & 0x1F]))

    def read(self, size: int = 1, timeout: float = 0.0, max_size: int | None = None) -> bytes:
        """At least ``size`` bytes; raises pexpect.TIMEOUT for none, as SerialDriver does."""
        data = self.stream.take(size, max_size or None, timeout)
        if not data:
            raise pexpect.TIMEOUT(f"no byte within {timeout:.2f} s")
        return data

    def expect(self, pattern: Any, timeout: float = -1) -> tuple[int, bytes, Any, bytes]:
        """Wait as labgrid's consoles do: (index, before, match, after); pexpect.TIMEOUT.

        A list may hold pexpect.TIMEOUT, whose index is then returned instead of an error.
        """
        wanted = list(pattern) if isinstance(pattern, list | tuple) else [pattern]
        places = [at for at, one in enumerate(wanted) if one is not pexpect.TIMEOUT]
        patterns = compiled([wanted[at] for at in places])
        deadline_s = 30.0 if timeout < 0 else timeout
        try:
            seen = self.stream.wait_for(patterns, deadline_s, "the expected text")
        except BenchError as error:
            if error.part != "board":
                raise
            if pexpect.TIMEOUT in wanted:
                return wanted.index(pexpect.TIMEOUT), b"", pexpect.TIMEOUT, b""
            raise pexpect.TIMEOUT(str(error)) from error
        whole = seen.before + seen.matched
        match = patterns[seen.index].search(whole, len(seen.before)) or re.match(b"", b"")
        return places[seen.index], seen.before, match, seen.matched

    def settle(self, quiet_time: float, timeout: float = 120.0) -> bool:
        """Wait until nothing arrived for ``quiet_time`` seconds; False at the timeout."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                self.read(timeout=quiet_time)
            except pexpect.TIMEOUT:
                return True
        return False
