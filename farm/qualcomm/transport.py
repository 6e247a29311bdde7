"""The seam under every protocol of this room: read, write and close over two bulk endpoints.

Real USB, a recording and a test's device stand behind it alike. Left out: control transfers.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Protocol, TypeAlias

from farm.errors import BenchError, DeadlineError

PART = "usb"
# Some devices send a packet of no length where none belongs; none sends a hundred in a row.
_EMPTY_LIMIT = 100
# What a transfer comes as: whatever the library below makes of it, without a copy.
Bytes: TypeAlias = "bytes | bytearray | array[int]"


class UsbLostError(BenchError):
    """The device is gone: unplugged, reset, or given another address."""

    def __init__(self, name: str, step: str, reason: object, *, offset: int | None = None) -> None:
        where = "" if offset is None else f" after {offset} bytes"
        super().__init__(
            f"{name}: the device vanished during {step}{where}: {reason}",
            part=PART,
            next_step="Find out where the board is; what was read so far is kept.",
        )
        self.step = step
        self.offset = offset


class RefusedError(BenchError):
    """The device said no, in its protocol; ``status`` is its word for it."""

    def __init__(
        self, name: str, step: str, status: str, *, offset: int | None = None, next_step: str = ""
    ) -> None:
        where = "" if offset is None else f" after {offset} bytes"
        super().__init__(
            f"{name}: {step} was refused{where}: {status}", part=PART, next_step=next_step
        )
        self.step = step
        self.status = status
        self.offset = offset


class ViolationError(BenchError):
    """The device answered what its protocol does not allow here."""

    def __init__(
        self, name: str, step: str, what: str, *, offset: int | None = None, next_step: str = ""
    ) -> None:
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{name}: {step}: {what}{where}", part=PART, next_step=next_step)
        self.step = step
        self.offset = offset


class Transport(Protocol):
    """A pair of bulk endpoints; ``name`` tells a user which device it is."""

    @property
    def name(self) -> str:
        """The board or USB path, for messages."""

    @property
    def packet_bytes(self) -> int:
        """The largest packet of the endpoints: 64, 512 or 1024."""

    def read(self, size_bytes: int, deadline_s: float) -> Bytes:
        """One transfer of at most ``size_bytes``; empty for a packet of no length.

        Raises TimeoutError when nothing came, ConnectionError when the device is gone.
        """

    def write(self, data: bytes, deadline_s: float) -> None:
        """Send all of ``data`` as it is; an empty one is a packet of no length.

        Raises TimeoutError, ConnectionError.
        """

    def close(self) -> None:
        """Let go of the device; never raises."""


class Pipe:
    """A transport whose failures name the step and how far it had come."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.monotonic) -> None:
        self.transport = transport
        self._clock = clock
        self.received_bytes = 0
        self.sent_bytes = 0
        self._empty = 0

    @property
    def name(self) -> str:
        """Which device this is."""
        return self.transport.name

    def read(
        self, size_bytes: int, deadline_s: float, step: str, *, offset: int | None = None
    ) -> Bytes:
        """One transfer; raises DeadlineError, UsbLostError, ViolationError for endless nothing."""
        try:
            data = self.transport.read(size_bytes, deadline_s)
        except TimeoutError:
            raise self._late(step, deadline_s, offset) from None
        except ConnectionError as error:
            raise UsbLostError(self.name, step, error, offset=offset) from error
        self.received_bytes += len(data)
        self._empty = 0 if data else self._empty + 1
        if self._empty > _EMPTY_LIMIT:
            raise ViolationError(
                self.name, step, f"{self._empty} packets of no length in a row", offset=offset
            )
        return data

    def read_some(self, size_bytes: int, deadline_s: float, step: str) -> Bytes:
        """One transfer that is not empty; raises DeadlineError, UsbLostError.

        Stray packets of no length are skipped: some devices put one before a transfer, others
        behind one that is whole already.
        """
        end = self._clock() + deadline_s
        while True:
            left_s = end - self._clock()
            if left_s <= 0:
                raise self._late(step, deadline_s, None)
            if data := self.read(size_bytes, left_s, step):
                return data

    def write(self, data: bytes, deadline_s: float, step: str) -> None:
        """Send all of ``data``; raises DeadlineError, UsbLostError."""
        try:
            self.transport.write(data, deadline_s)
        except TimeoutError:
            raise self._late(step, deadline_s, None) from None
        except ConnectionError as error:
            raise UsbLostError(self.name, step, error) from error
        self.sent_bytes += len(data)

    def drain(self, quiet_s: float, limit_bytes: int = 64 << 20) -> int:
        """Throw away what still comes, until nothing does for ``quiet_s``; returns how much."""
        thrown = 0
        while thrown < limit_bytes:
            try:
                thrown += len(self.read(1 << 20, quiet_s, "draining"))
            except (DeadlineError, ViolationError):
                break
        return thrown

    def _late(self, step: str, deadline_s: float, offset: int | None) -> DeadlineError:
        where = "" if offset is None else f", {offset} bytes into it"
        return DeadlineError(
            f"{self.name}: {step}{where}",
            part=PART,
            deadline_s=round(deadline_s, 3),
            next_step="Find out where the board is; a power cycle brings it back.",
        )
