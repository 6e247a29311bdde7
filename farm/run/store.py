"""The run's folder: ``reports/<run-id>/`` with ``run.json`` and one folder per cycle.

Files are replaced atomically, so a killed controller leaves either the old or the new one.

    run.json                      farm.model.Run
    report.html                   written by farm.report
    cycles/0001-sysrq-c/          one cycle
        input.json                farm.model.CycleInput: all that judging needs
        result.json               farm.model.CycleVerdict
        console.raw, console.log  every byte from the serial line; the same, time-stamped by line
        captures/pstorefs/        files as they came off the board
        old-records/              what lay in pstore before the panic
"""

from __future__ import annotations

import errno
import secrets
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from farm.errors import BenchError, UsageError
from farm.judge.run_folder import replace_text


def new_run_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time and that two runs of one second do not share."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def timestamp() -> str:
    """Return the wall clock as RFC 3339, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class RunFolder:
    """One run's folder; every write error names the path and is the bench's fault (disk)."""

    def __init__(self, out: Path, run_id: str) -> None:
        self.run_id = run_id
        self.path = out / run_id
        try:
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            raise UsageError(f"the run folder {self.path} exists already") from error
        except OSError as error:
            raise _disk_error(self.path, error) from error

    def cycle(self, number: int, scenario: str) -> Path:
        """Make and return the folder of cycle ``number`` (from 1)."""
        folder = self.path / "cycles" / f"{number:04d}-{scenario}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise _disk_error(folder, error) from error
        return folder

    def write(self, name: str, model: BaseModel) -> Path:
        """Write ``model`` as ``name`` under the run's folder."""
        return write_model(self.path / name, model)


def write_model(path: Path, model: BaseModel) -> Path:
    """Write ``model`` as JSON to ``path``, replacing it in one step; raises BenchError (disk)."""
    replace_text(path, model.model_dump_json(indent=1) + "\n")
    return path


def _disk_error(path: Path, error: OSError) -> BenchError:
    what = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
    return BenchError(
        f"cannot write {path}: {what}",
        part="disk",
        next_step="Make room, or choose another folder with --out; captures so far are kept.",
    )
