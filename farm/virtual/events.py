"""The event log of a board: JSON lines, one event each, with wall and monotonic time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO


class EventLog:
    """Appends events; a line is in the file, and with every follower, when ``add`` returns."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)
        self.followers: set[Callable[[dict[str, Any]], None]] = set()

    def add(self, event: str, **fields: Any) -> None:
        """Log one event with its fields, which must be JSON values."""
        stamp = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "monotonic_s": round(time.monotonic(), 6),
            "event": event,
        }
        entry = stamp | fields
        self._file.write(json.dumps(entry) + "\n")
        for follower in tuple(self.followers):
            follower(entry)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a log, oldest first; a line cut off by a dying daemon is left out."""
    if not path.exists():
        return []
    events: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
