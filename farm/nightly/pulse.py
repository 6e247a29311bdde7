"""``live.json``: what a night does at this moment, for whoever looks at it from outside.

The journal tells what has happened, this what is being done, and by which process. It is replaced
as a whole, once a second at most, and again after five seconds without news: who reads it sees
when the controller fell silent. Nothing follows from it, so it is not synced, and a disk that does
not take it disturbs no night.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from farm.model import Frozen

__all__ = ["BEAT_S", "PULSE_NAME", "Pulse", "PulseWriter", "SeatPulse", "is_alive", "wall_clock"]

PULSE_NAME = "live.json"
PULSE_SCHEMA_VERSION = 1
BEAT_S = 5.0
_NEWS_S = 1.0


class SeatPulse(Frozen):
    """A board or place: where it is, in the words of ``farm where``, and what it does now.

    ``since`` is when the cycle began, ``stage_since`` the stage, which has ``deadline_s`` to end.
    """

    seat: str
    where: str
    doing: str
    stage: str
    since: str
    stage_since: str
    deadline_s: float | None = None


class Pulse(Frozen):
    """The whole of ``live.json``; ``kernel`` tells whether ``pid`` is of the reader's processes."""

    schema_version: int = PULSE_SCHEMA_VERSION
    at: str
    host: str
    kernel: str
    pid: int
    pid_started: int
    total_cells: int
    budget_s: float | None
    seats: tuple[SeatPulse, ...]


def wall_clock(monotonic: float) -> str:
    """A moment of this process's clock as RFC 3339, UTC."""
    moment = time.time() - (time.monotonic() - monotonic)
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _kernel() -> str:
    """Which kernel and which of its numberings of processes this one is in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process began, in ticks since boot; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def is_alive(pulse: Pulse) -> bool | None:
    """Whether the controller still runs; None where that cannot be seen from here."""
    if not pulse.kernel or pulse.kernel != _kernel():
        return None
    return _started(pulse.pid) == pulse.pid_started


class PulseWriter:
    """Keeps ``live.json`` of a night's folder true."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PULSE_NAME
        self._unfinished = folder / f".{PULSE_NAME}.part"
        self._host, self._kernel = socket.gethostname(), _kernel()
        self._pid, self._pid_started = os.getpid(), _started(os.getpid())
        self._last: tuple[SeatPulse, ...] | None = None
        self._beaten_at = float("-inf")

    def is_due(self) -> bool:
        """Whether news would be written."""
        return time.monotonic() - self._beaten_at >= _NEWS_S

    def beat(self, seats: Sequence[SeatPulse], total_cells: int, budget_s: float | None) -> None:
        """Write what there is, if it is news or time for it."""
        told = tuple(seats)
        if told == self._last and time.monotonic() - self._beaten_at < BEAT_S:
            return
        self._last, self._beaten_at = told, time.monotonic()
        pulse = Pulse(
            at=wall_clock(self._beaten_at),
            host=self._host,
            kernel=self._kernel,
            pid=self._pid,
            pid_started=self._pid_started,
            total_cells=total_cells,
            budget_s=budget_s,
            seats=told,
        )
        with suppress(OSError):
            self._unfinished.write_text(pulse.model_dump_json(), encoding="utf-8")
            self._unfinished.replace(self._path)
