"""What controller and workers say to each other: a JSON line each, over pipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from farm.model import Blame, Frozen, Policy, Verdict

__all__ = [
    "REPORT",
    "Began",
    "Ended",
    "Failed",
    "Note",
    "Order",
    "Report",
    "Task",
    "Work",
]


class Work(Frozen):
    """The first line to a worker: its board, and where its runs go.

    ``afresh``: the worker before it ended in a cycle, and what it wanted of the board still holds.
    """

    lg_env: Path
    out: Path
    flash: str | None
    policy: Policy
    command: tuple[str, ...]
    afresh: bool


class Task(Frozen):
    """A cycle to run; ``boot_image`` is flashed when the kernel is another than before."""

    kernel: str
    boot_image: Path | None
    build_id: str | None
    scenario: str
    channels: tuple[str, ...]
    repeat: int


class Order(Frozen):
    """A line to a worker: the next cycle, or, without one, the end."""

    task: Task | None


class Began(Frozen):
    """The cycle begins, in this run under this number."""

    said: Literal["began"] = "began"
    run: str
    number: int


class Note(Frozen):
    """What the board does now, or a remark (``lasting``) that the log keeps.

    ``where`` is where the board is by that, in the words of ``farm where``, or empty.
    """

    said: Literal["note"] = "note"
    text: str
    lasting: bool = False
    where: str = ""
    deadline_s: float | None = None


class Ended(Frozen):
    """The cycle has its verdict, which is stored; ``part`` is that of its fault, if it had one."""

    said: Literal["ended"] = "ended"
    run: str
    number: int
    started: str
    wall_s: float
    verdict: Verdict
    blame: Blame | None
    why: str
    interrupted: bool
    part: str = ""


class Failed(Frozen):
    """The worker cannot go on; ``usage``: the plan or an environment is wrong."""

    said: Literal["failed"] = "failed"
    message: str
    usage: bool


Report = Began | Note | Ended | Failed
REPORT: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="said")])
