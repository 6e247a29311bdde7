"""Steps, what came of them, and what an earlier run has proven.

A step is known by a key of all that decides it, so that a run pays only for what has changed. Only
what passed is kept.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from farm.build.progress import BuildProgress
from farm.errors import BuildError

_DISK_FULL = "the disk is full"


@dataclass(frozen=True)
class Outcome:
    """What a step found; no ``faults`` means that it passed. ``data`` is for later steps."""

    detail: str
    faults: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One thing to check; ``act`` gets the file for the log of the tools it runs."""

    base: str
    part: str
    what: str
    key: str
    act: Callable[[Path], Outcome]

    @property
    def log_name(self) -> str:
        """The name of its log."""
        name = f"{self.base}-{self.part}-{self.what}"
        return "".join(c if c.isalnum() or c in ".-" else "-" for c in name) + ".log"


@dataclass(frozen=True)
class Result:
    """A step that was taken; ``known``: by an earlier run.

    ``cpu_s`` is the processor time of the tools that it ran, on all processors.
    """

    base: str
    part: str
    what: str
    passed: bool
    detail: str
    faults: tuple[str, ...]
    seconds: float
    cpu_s: float
    known: bool
    log: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Ledger:
    """What passed, in ``folder``; with ``again`` what is there does not count."""

    def __init__(self, folder: Path, logs: Path, *, again: bool = False) -> None:
        self._folder = folder
        self._logs = logs
        self._again = again
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def known(self, key: str) -> dict[str, Any] | None:
        """Return the record of the step with this key if it passed."""
        path = self._folder / f"{key}.json"
        if (self._again and key not in self._taken) or not path.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text())
        except ValueError:
            return None
        return record

    def take(self, step: Step, progress: BuildProgress) -> Result:
        """Take ``step``, unless it is known to pass; raises ``BuildError`` for a full disk."""
        log = self._logs / step.log_name
        known = self.known(step.key)
        if known is not None:
            times = (known["seconds"], known.get("cpu_s", 0.0))
            return self._result(step, Outcome(known["detail"]), times, True, log)
        progress.stage(f"{step.base} {step.part}: {step.what}")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        begin, cpu_begin = time.monotonic(), _cpu_s()
        try:
            outcome = step.act(log)
        except BuildError as error:
            if _DISK_FULL in error.message:
                raise
            outcome = Outcome("", (error.message,))
        seconds = round(time.monotonic() - begin, 2)
        cpu_s = round(_cpu_s() - cpu_begin, 2)
        if outcome.faults:
            progress.say(f"{step.base} {step.part}: {step.what}: FAIL, see {log}")
        else:
            record = {
                "detail": outcome.detail,
                "seconds": seconds,
                "cpu_s": cpu_s,
                "data": outcome.data,
            }
            fresh = self._folder / f"{step.key}.new"
            fresh.write_text(json.dumps(record))
            fresh.replace(self._folder / f"{step.key}.json")
            self._taken.add(step.key)
        return self._result(step, outcome, (seconds, cpu_s), False, log)

    def _result(
        self, step: Step, outcome: Outcome, times: tuple[float, float], known: bool, log: Path
    ) -> Result:
        return Result(
            step.base,
            step.part,
            step.what,
            not outcome.faults,
            outcome.detail,
            outcome.faults,
            *times,
            known,
            str(log),
        )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
