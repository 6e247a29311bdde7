"""The console as a stream: fed by a link's thread, recorded, and searched by whoever waits.

Searching costs time linear in the bytes received: each byte is looked at once, plus a bounded
overlap per wake-up, so a pattern must not need more than ``OVERLAP_BYTES`` to match.
"""

from __future__ import annotations

import bisect
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.bench.recording import Recording, printable
from farm.errors import BenchError, DeadlineError

OVERLAP_BYTES = 1024
BACKLOG_LIMIT_BYTES = 64 << 20

_TIME_STEP_S = 0.001
RECENT_BYTES = 1 << 16
_TAIL_BYTES = 2048

Patterns = str | bytes | re.Pattern[bytes] | Sequence[str | bytes | re.Pattern[bytes]]


@dataclass(frozen=True)
class Seen:
    """A pattern that was found: which, when its bytes arrived (monotonic), and the bytes.

    ``before`` is everything from the last mark up to ``matched``.
    """

    index: int
    at: float
    before: bytes
    matched: bytes
    groups: tuple[bytes | None, ...]

    @property
    def text(self) -> str:
        """``before`` and ``matched`` as text, with line ends of ``\\n`` alone."""
        whole = self.before + self.matched
        return whole.decode("utf-8", errors="backslashreplace").replace("\r\n", "\n")


def compiled(patterns: Patterns) -> list[re.Pattern[bytes]]:
    """One or more patterns over bytes; text is a regular expression too."""
    if isinstance(patterns, str | bytes | re.Pattern):
        patterns = [patterns]
    return [
        re.compile(one.encode() if isinstance(one, str) else one)
        if isinstance(one, str | bytes)
        else one
        for one in patterns
    ]


class ConsoleStream:
    """All that a serial port delivers; the mark is where the next wait begins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._mark = 0
        self._received = 0
        self._times: list[tuple[int, float]] = []
        self._tail = b""
        self._recent = bytearray()
        self._last_at = float("-inf")
        self._lost: str | None = None
        self._fault: BenchError | None = None
        self._recording: Recording | None = None

    def feed(self, data: bytes) -> None:
        """Take what the port delivered; called from the link's thread, never raises."""
        now = time.monotonic()
        with self._changed:
            self._last_at = now
            self._buffer += data
            self._received += len(data)
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._recent += data
            if len(self._recent) > 2 * RECENT_BYTES:
                del self._recent[:-RECENT_BYTES]
            if self._times and now - self._times[-1][1] < _TIME_STEP_S:
                self._times[-1] = (self._received, self._times[-1][1])
            else:
                self._times.append((self._received, now))
            if len(self._buffer) > BACKLOG_LIMIT_BYTES:
                self._consume(self._mark + BACKLOG_LIMIT_BYTES // 2)
            if self._recording is not None and self._fault is None:
                try:
                    self._recording.add(data)
                except BenchError as error:
                    self._fault = error
            self._changed.notify_all()

    def lose(self, reason: str) -> None:
        """Say that the port has vanished: every wait ends now, when nothing more can match."""
        with self._changed:
            self._lost = reason
            self._changed.notify_all()

    def begin(self) -> None:
        """Say that a port has been opened."""
        with self._changed:
            self._lost = None

    @property
    def lost(self) -> str | None:
        """Why the port is gone; None while it is there."""
        return self._lost

    @property
    def received_bytes(self) -> int:
        """How many bytes were ever received."""
        return self._received

    def record_to(self, folder: Path | None) -> None:
        """Record into ``folder`` from the next byte on, None for nowhere; raises BenchError."""
        recording = None if folder is None else Recording(folder)
        with self._changed:
            before, self._recording = self._recording, recording
            self._fault = None
        if before is not None:
            before.close()

    def mark(self) -> None:
        """Let the next wait begin with what arrives from now on."""
        with self._changed:
            self._consume(self._received)

    def last_line(self) -> str:
        """The last line that was not empty, finished or not."""
        for line in reversed(self._tail.split(b"\n")):
            if text := printable(line).strip():
                return text
        return ""

    def recent(self) -> bytes:
        """What was received last, seen by a wait or not; at least 64 KiB of it."""
        with self._changed:
            return bytes(self._recent)

    def pending(self) -> bytes:
        """What arrived since the mark; the next wait begins with it all the same."""
        with self._changed:
            return bytes(self._buffer)

    @property
    def quiet_s(self) -> float:
        """How long ago the last byte came; infinite before the first."""
        with self._changed:
            return time.monotonic() - self._last_at

    def lines_since(self, moment: float) -> list[str]:
        """The lines that arrived after ``moment`` (monotonic) and that no wait has passed yet."""
        with self._changed:
            at = bisect.bisect_left(self._times, moment, key=lambda time: time[1])
            begin = self._times[at - 1][0] if at else self._mark
            data = bytes(self._buffer[max(0, begin - self._mark) :])
        return [printable(line) for line in data.split(b"\n")]

    def wait_quiet(self, seconds: float) -> None:
        """Let so much time pass; returns early when the port is lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None, seconds)

    def _consume(self, upto: int) -> bytes:
        """Move the mark to stream offset ``upto``; return the bytes passed over."""
        count = upto - self._mark
        passed = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._mark = upto
        del self._times[: max(0, bisect.bisect_right(self._times, (upto, float("inf"))) - 1)]
        return passed

    def _arrival(self, offset: int) -> float:
        at = bisect.bisect_left(self._times, (offset, 0.0))
        return self._times[min(at, len(self._times) - 1)][1]

    def _search(self, patterns: list[re.Pattern[bytes]], start: int) -> Seen | None:
        """Find the earliest match at or after stream offset ``start`` and consume up to its end."""
        best: tuple[int, int] | None = None
        found = None
        for index, pattern in enumerate(patterns):
            match = pattern.search(self._buffer, start - self._mark)
            if match is not None and (best is None or (match.start(), index) < best):
                best, found = (match.start(), index), match
        if best is None or found is None:
            return None
        begin, end = found.span()
        groups = tuple(None if one is None else bytes(one) for one in found.groups())
        at = self._arrival(self._mark + end)
        passed = self._consume(self._mark + end)
        return Seen(best[1], at, passed[:begin], passed[begin:], groups)

    def _raise_fault(self, what: str) -> None:
        if self._fault is not None:
            raise self._fault
        if self._lost is not None:
            raise BenchError(
                f"the serial port vanished while waiting for {what}: {self._lost}",
                part="serial",
                next_step="Check the serial adapter, its server and its cable.",
            )

    def wait_for(
        self,
        patterns: Patterns,
        deadline_s: float,
        what: str,
        *,
        part: str = "board",
        stall_s: float | None = None,
    ) -> Seen:
        """Wait for one of ``patterns`` after the mark, and set the mark behind it.

        ``stall_s`` ends the wait early when not one byte arrives for so long. Raises DeadlineError
        naming ``what`` and the last line, BenchError at once when the port or the disk is gone.
        """
        wanted = compiled(patterns)
        started = time.monotonic()
        with self._changed:
            scanned = self._mark
            before = self._received
            while True:
                start = max(self._mark, scanned - OVERLAP_BYTES)
                if (seen := self._search(wanted, start)) is not None:
                    return seen
                scanned = self._received
                self._raise_fault(what)
                limit = started + deadline_s
                if stall_s is not None:
                    last = self._times[-1][1] if self._times else started
                    limit = min(limit, max(started, last) + stall_s)
                left = limit - time.monotonic()
                if left <= 0:
                    waited = min(deadline_s, limit - started)
                    raise self._deadline(what, part, waited, self._received == before)
                self._changed.wait(left)

    def _deadline(self, what: str, part: str, deadline_s: float, silent: bool) -> DeadlineError:
        hint = "Not one byte came from the board in that time." if silent else ""
        return DeadlineError(
            what,
            part=part,
            deadline_s=round(deadline_s, 3),
            last=self.last_line(),
            next_step=hint,
            silent=silent,
        )

    def take(self, size: int, limit: int | None, deadline_s: float) -> bytes:
        """At least ``size`` bytes from the mark, at most ``limit``; fewer at the deadline."""
        end = time.monotonic() + deadline_s
        with self._changed:
            while len(self._buffer) < size and self._lost is None:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not self._buffer:
                self._raise_fault("bytes")
            count = len(self._buffer) if limit is None else min(limit, len(self._buffer))
            return self._consume(self._mark + count)
