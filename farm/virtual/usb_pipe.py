"""A bulk endpoint as both its ends see it: packets, and short ones that end a transfer.

Source: USB 2.0, 5.8.3: a transfer ends with its last byte asked for, or with a packet shorter than
the endpoint's largest. A device whose data is a whole number of packets says so with a packet of
no length (ZLP), or does not: both exist, and both are modelled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

_NEVER = threading.Event()


class OverflowedError(Exception):
    """The host asked for less than the next packet holds (babble)."""


class UnpluggedError(Exception):
    """The device is gone."""


@dataclass
class _Packets:
    """A run of whole packets, or one short packet, which may be empty and ends a transfer."""

    data: memoryview
    short: bool


class BulkPipe:
    """What one side has to say, cut into packets of at most ``packet_bytes``."""

    def __init__(self, packet_bytes: int, limit_bytes: int = 8 << 20) -> None:
        self.packet_bytes = packet_bytes
        self._limit = limit_bytes
        self._queue: deque[_Packets] = deque()
        self._queued = 0
        self._changed = threading.Condition(threading.RLock())
        self._gone = False
        self.taken_bytes = 0
        self.version = 0

    def _notify(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def put(self, data: bytes | bytearray | memoryview, *, zlp: bool = False) -> None:
        """Queue one transfer; blocks while too much is queued; raises UnpluggedError."""
        view = memoryview(data)
        cut = len(view) - len(view) % self.packet_bytes
        with self._changed:
            while self._queued and self._queued + len(view) > self._limit and not self._gone:
                self._changed.wait()
            if self._gone:
                raise UnpluggedError
            if cut:
                self._queue.append(_Packets(view[:cut], short=False))
            if cut < len(view) or zlp or not cut:
                self._queue.append(_Packets(view[cut:], short=True))
            self._queued += len(view)
            self._notify()

    def clear(self) -> None:
        """Forget what is queued."""
        with self._changed:
            self._queue.clear()
            self._queued = 0
            self._notify()

    @property
    def idle(self) -> bool:
        """Whether the host has taken everything."""
        with self._changed:
            return not self._queue

    def wait_idle(self, deadline_s: float) -> bool:
        """Wait until the host has taken everything; False at the deadline."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue or self._gone, deadline_s)

    def unplug(self) -> None:
        """End every wait: the device is gone."""
        with self._changed:
            self._gone = True
            self._queue.clear()
            self._queued = 0
            self._notify()

    def take(self, size_bytes: int, end: float | None, cancel: threading.Event) -> list[memoryview]:
        """One transfer of the host's: pieces of at most ``size_bytes`` together.

        ``end`` is a time.monotonic() or None. Raises TimeoutError, InterruptedError on ``cancel``,
        OverflowedError, UnpluggedError. What had come before a timeout stays in the queue.
        """
        with self._changed:
            while True:
                if self._gone:
                    raise UnpluggedError
                pieces = self._ready(size_bytes)
                if pieces is not None:
                    taken = sum(map(len, pieces))
                    self._queued -= taken
                    self.taken_bytes += taken
                    self._notify()
                    return pieces
                if cancel.is_set():
                    raise InterruptedError
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._changed.wait(0.5 if left is None else min(left, 0.5))

    def offer(self, data: bytes | bytearray | memoryview) -> bool:
        """Queue one transfer if there is room; raises UnpluggedError."""
        with self._changed:
            if self._queued and self._queued + len(data) > self._limit and not self._gone:
                return False
            self.put(data)
            return True

    def try_take(self, size_bytes: int) -> list[memoryview] | None:
        """One transfer if it is complete; raises OverflowedError, UnpluggedError."""
        try:
            return self.take(size_bytes, time.monotonic(), _NEVER)
        except TimeoutError:
            return None

    def take_part(self, size_bytes: int) -> list[memoryview]:
        """The packets that are there: what a host gets that gives up waiting for the rest."""
        with self._changed:
            pieces = []
            got = 0
            while self._queue and len(self._queue[0].data) <= size_bytes - got:
                packets = self._queue.popleft()
                pieces.append(packets.data)
                got += len(packets.data)
            self._queued -= got
            self.taken_bytes += got
            self._notify()
            return pieces

    def wait_change(self, seconds: float, since: int) -> None:
        """Wait for a ``version`` other than ``since``, at most so long."""
        with self._changed:
            if self.version == since:
                self._changed.wait(seconds)

    def wake(self) -> None:
        """Let waiting hosts look at their ``cancel``."""
        with self._changed:
            self._notify()

    def _ready(self, size_bytes: int) -> list[memoryview] | None:
        """The pieces of a transfer that is complete, taken off the queue; None if none is."""
        got, ended = 0, False
        plan: list[int] = []
        for packets in self._queue:
            room = size_bytes - got
            if not room and plan:
                break
            count = len(packets.data)
            if count > room:
                count = room - room % self.packet_bytes
                if packets.short or count < room:
                    raise OverflowedError
            plan.append(count)
            got += count
            if packets.short:
                ended = True
                break
        if not ended and (got < size_bytes or not plan):
            return None
        pieces = []
        for count in plan:
            packets = self._queue[0]
            pieces.append(packets.data[:count])
            packets.data = packets.data[count:]
            if packets.short or not len(packets.data):
                self._queue.popleft()
        return pieces
