"""What the history answers with: small frozen rows, for a hundred thousand of them are loaded.

Cycles are the many ones, hence tuples with names: a dataclass of so many fields takes ten times as
long to make.

Verdict, blame and purpose are the values of `farm.model`'s enumerations as text, which compare
equal to them. Times are RFC 3339, UTC. Text that came from a board is as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class NightRow:
    """One night; ``totals`` as in night.json."""

    night_id: str
    plan: str
    plan_sha256: str
    farm_version: str
    started: str
    finished: str | None
    wall_s: float
    verdict: str
    totals: dict[str, int]
    holes: int
    ended_early: str
    interrupted: bool


class CycleRow(NamedTuple):
    """One cycle. ``path`` is its run's folder, relative to the folder that all runs lie under.

    ``kernel`` is the plan's name for the kernel, "" outside a night; ``channels`` are sorted and
    joined by commas. ``finding_*`` tell the weightiest finding, None where nothing is wrong; its
    offset is in bytes from the region's start, or from the capture's where no region is named.
    """

    id: int
    night_id: str | None
    run_id: str
    path: str
    number: int
    started: str
    kernel: str
    release: str | None
    build_id: str | None
    board: str
    virtual: bool
    scenario: str
    channels: str
    repeat: int
    attempt: int
    purpose: str
    counts: bool
    verdict: str
    blame: str | None
    why: str
    wall_s: float
    board_s: float
    used_bytes: int
    capacity_bytes: int
    finding_kind: str | None
    finding_driver: str | None
    finding_device: str | None
    finding_offset: int | None


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """What arrived of one device in one cycle."""

    cycle_id: int
    device: str
    driver: str
    record_bytes: int
    data_bytes: int
    budget_bytes: int | None
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class DeviceTotal:
    """A device over all cycles that are alike: one build, board, scenario, purpose and verdict.

    ``cycle_id`` is the first of them that has the device, ``cycles`` how many have it; ``bad`` how
    often it is not PASS in them, ``largest_bytes`` its largest record.
    """

    cycle_id: int
    driver: str
    device: str
    cycles: int
    bad: int
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class SizePoint:
    """The smallest and the largest record of a device in a night, of cycles that count."""

    night_id: str
    started: str
    driver: str
    device: str
    min_bytes: int
    max_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True)
class BoardState:
    """Whether a board can be trusted as a bench, kept from night to night.

    ``set_aside`` is why it was set aside, "" if it was not; ``bench_failures`` counts bench
    failures in a row, ``clean_trainings`` the clean training cycles in a row since it was set
    aside; ``last`` names the cycle that brought it there.
    """

    board: str
    set_aside: str = ""
    bench_failures: int = 0
    clean_trainings: int = 0
    changed: str = ""
    last: str = ""
