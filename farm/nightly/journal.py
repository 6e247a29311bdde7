"""The night's journal: what happened, a line each, on the disk before anything follows from it.

``journal.jsonl`` is only ever appended to, and synced line by line. A killed controller leaves at
most its last line cut; the rest tells everything that the next one needs.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from farm.errors import BenchError, UsageError
from farm.model import Frozen, NightCell, NightCycle, NightKernel, Purpose

__all__ = [
    "JOURNAL_NAME",
    "Begun",
    "BenchStarted",
    "Closed",
    "Died",
    "Entry",
    "Finished",
    "Journal",
    "KernelReady",
    "Opened",
    "PlaceTold",
    "StoredPlace",
    "StoredTrust",
    "read_journal",
]

JOURNAL_NAME = "journal.jsonl"


class StoredTrust(Frozen):
    """What was known of a board when the night began."""

    board: str
    set_aside: str
    bench_failures: int
    clean_trainings: int


class StoredPlace(Frozen):
    """A place that was chosen, what its board is described by, and whose cells are run there."""

    name: str
    description: str
    board: str


class Opened(Frozen):
    """A controller took the night up: the first, or one that goes on."""

    entry: Literal["opened"] = "opened"
    at: str
    night_id: str
    plan: str
    plan_sha256: str
    boards: tuple[StoredTrust, ...]
    places: tuple[StoredPlace, ...] = ()


class KernelReady(Frozen):
    """A kernel is built or found."""

    entry: Literal["kernel"] = "kernel"
    at: str
    kernel: NightKernel


class BenchStarted(Frozen):
    """A bench was down and is about to be started: the night stops it in the end."""

    entry: Literal["bench"] = "bench"
    at: str
    board: str


class Begun(Frozen):
    """A cycle begins, in this run under this number."""

    entry: Literal["begun"] = "begun"
    at: str
    cell: NightCell
    attempt: int
    purpose: Purpose
    run: str
    number: int
    place: str = ""

    @property
    def seat(self) -> str:
        """Where: the place, or the board that has its cells to itself."""
        return self.place or self.cell.board


class Finished(Frozen):
    """A cycle has its verdict; one that was ``interrupted`` is run again."""

    entry: Literal["finished"] = "finished"
    at: str
    cycle: NightCycle
    interrupted: bool = False


class Died(Frozen):
    """The board's worker ended in a cycle, which has no verdict."""

    entry: Literal["died"] = "died"
    at: str
    cell: NightCell
    why: str
    place: str = ""

    @property
    def seat(self) -> str:
        """Where: the place, or the board that has its cells to itself."""
        return self.place or self.cell.board


class PlaceTold(Frozen):
    """What became of a place; the ``cell`` that was run there meanwhile is run again."""

    entry: Literal["place"] = "place"
    at: str
    place: str
    what: str
    cell: NightCell | None = None


class Closed(Frozen):
    """The controller left the night: ``complete``, or to be taken up again."""

    entry: Literal["closed"] = "closed"
    at: str
    complete: bool
    interrupted: bool = False
    ended_early: str = ""


Entry = Opened | KernelReady | BenchStarted | Begun | Finished | Died | PlaceTold | Closed
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="entry")])


def read_journal(path: Path, begin: int = 0) -> tuple[list[Entry], int]:
    """The entries from byte ``begin`` on, and where they end: a line that was cut is left out.

    Raises UsageError for a line that is whole and yet none of a journal.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    whole = data[: data.rfind(b"\n") + 1]
    from_byte = f" from byte {begin} on" if begin else ""
    entries = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entries.append(_ENTRY.validate_json(line))
        except ValidationError as error:
            raise UsageError(
                f"{path}:{number}{from_byte}: this is no entry of a journal: "
                f"{error.errors()[0]['msg']}",
                "The night cannot be taken up; begin another with --new.",
            ) from error
    return entries, begin + len(whole)


class Journal:
    """The journal, open to be appended to; a cut last line is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.entries, length = read_journal(path)
            self._file.truncate(length)
            _sync_folder(path.parent)
        except BlockingIOError as error:
            raise UsageError(
                f"another `farm nightly` works on {path.parent}", "Wait for it, or use --new."
            ) from error
        except OSError as error:
            raise _disk_error(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, entry: Entry) -> None:
        """Add ``entry``; on return it is on the disk. Raises BenchError (part ``disk``)."""
        try:
            self._file.write(entry.model_dump_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _disk_error(self._path, error) from error
        self.entries.append(entry)


def _sync_folder(folder: Path) -> None:
    """A new file's name must reach the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(path: Path, error: OSError) -> BenchError:
    return BenchError(
        f"{path} cannot be written: {error.strerror}",
        part="disk",
        next_step="Make room; the same command then goes on with the night.",
    )
