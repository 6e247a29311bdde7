"""Places that a controller left acquired when it was killed, and whose night nobody goes on with.

The holder of a place that a night has is HOST.night-NIGHT-ID/USER. The night's own next controller
has it under the same name. Another one may release it when the night's journal, which its
controller keeps locked, lies in the same folder and is locked by nobody: that controller is dead.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from pathlib import Path

from farm.errors import BenchError
from farm.hosts.coordinator import Coordinator
from farm.nightly.journal import JOURNAL_NAME

__all__ = ["mark_of", "release_left_behind"]

_PREFIX = "night-"


def mark_of(night_id: str) -> str:
    """The mark in the name of who has a place for this night."""
    return f"{_PREFIX}{night_id}"


def _night_of(holder: str, host: str, user: str) -> str:
    """The night of a holder on this host and of this user, or an empty text."""
    before, _, its_user = holder.rpartition("/")
    its_host, mark, night_id = before.partition(f".{_PREFIX}")
    if not mark or (its_host, its_user) != (host, user) or "/" in night_id:
        return ""
    return night_id


def _is_dead(journal: Path) -> bool:
    try:
        with journal.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # there is none, or it is locked
    return True


def release_left_behind(
    coordinator: Coordinator, places: Iterable[str], nights: Path, night_id: str
) -> list[str]:
    """Release the wanted places that a dead night in ``nights`` has; returns what was done."""
    said = []
    seen = coordinator.places()
    host, _, user = coordinator.holder.replace(f".{mark_of(night_id)}/", "/").partition("/")
    for name in places:
        holder = seen[name].acquired if name in seen else ""
        night = _night_of(holder, host, user)
        if not night or night == night_id or not _is_dead(nights / night / JOURNAL_NAME):
            continue
        try:
            coordinator.release_for(name, holder)
        except BenchError as error:
            said.append(error.message)
            continue
        said.append(f"{name}: released, the night {night} had left it acquired")
    return said
