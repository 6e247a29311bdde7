"""Night folders as controllers leave them: the real journal, schedule and state, no board."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farm.model import NightBoard, NightHole, Verdict
from farm.nightly.finish import account, write_night
from farm.nightly.journal import JOURNAL_NAME, Begun, Entry
from farm.nightly.pulse import PULSE_NAME, Pulse, PulseWriter, SeatPulse, wall_clock
from farm.nightly.schedule import Schedule
from farm.nightly.state import replay
from farm.top.view import NOT_REACHED, NightNow, NightWatch, PlaceNow
from tests.nightly.imaginary import RULES, finished, opened, schedule
from tests.report.nights import hole
from tests.report.test_night import LONG
from tests.report.test_report import HOSTILE

NIGHT_ID = "20261124-220000-0000"
STARTED = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)


def after(seconds: float) -> str:
    return (STARTED + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def plan() -> Schedule:
    """Two boards, three scenarios, one kernel: six cells."""
    return schedule(kernels=1, repeats=1)


def begun_night(schedule: Schedule, done: int, why: str = "as expected") -> list[Entry]:
    """``done`` cycles of ten seconds have ended on each board, and the next has begun."""
    entries: list[Entry] = [opened(schedule)]
    state = replay(entries, RULES)

    def note(entry: Entry) -> None:
        entries.append(entry)
        state.add(entry)

    for number in range(1, done + 2):
        for board in schedule.boards:
            start = schedule.next_for(board, state, None, 0.0)
            if start is None:
                continue
            run = f"runs/{board}"
            note(
                Begun(
                    at=after(10.0 * number - 10),
                    cell=start.cell,
                    attempt=start.attempt,
                    purpose=start.purpose,
                    run=run,
                    number=number,
                )
            )
            if number <= done:
                end = finished(start, run, number, Verdict.PASS)
                cycle = end.cycle.model_copy(update={"wall_s": 10.0, "why": why})
                note(end.model_copy(update={"at": after(10.0 * number), "cycle": cycle}))
    return entries


def write_entries(folder: Path, entries: Sequence[Entry]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(entry.model_dump_json() + "\n" for entry in entries)
    (folder / JOURNAL_NAME).write_text(text, encoding="utf-8")


def write_account(
    folder: Path,
    schedule: Schedule,
    entries: Sequence[Entry],
    *,
    aside: str = "",
    holes: tuple[NightHole, ...] = (),
    plan: str = "every board",
) -> None:
    state = replay(entries, RULES)
    night = account(
        state,
        plan=plan,
        kernels=(),
        boards=[
            NightBoard(name=name, lg_env=f"{name}.yaml", virtual=True, set_aside=aside)
            for name in schedule.boards
        ],
        runs={},
        holes=[*holes, *schedule.holes(state, over=NOT_REACHED)],
        now=after(60),
    )
    write_night(folder, night)


def beat(
    folder: Path,
    schedule: Schedule,
    *,
    where: str = "panicking",
    stage: str = "panic: sysrq-c",
    budget_s: float | None = None,
    **changes: object,
) -> None:
    """What a controller writes; ``changes`` make it another process or host."""
    moment = wall_clock(time.monotonic())
    PulseWriter(folder).beat(
        [
            SeatPulse(
                seat=name,
                where=where,
                doing="k0 sysrq-c #1 pstorefs",
                stage=stage,
                since=moment,
                stage_since=moment,
                deadline_s=15.0,
            )
            for name in schedule.boards
        ],
        len(schedule.cells),
        budget_s,
    )
    path = folder / PULSE_NAME
    pulse = Pulse.model_validate_json(path.read_text())
    assert pulse.pid == os.getpid()
    path.write_text(pulse.model_copy(update=changes).model_dump_json())


def stored(folder: Path) -> Path:
    """A running night of this process: one of three cells is done on each of two boards."""
    night = folder / "nights" / NIGHT_ID
    entries = begun_night(plan(), 1)
    write_entries(night, entries)
    write_account(night, plan(), entries)
    beat(night, plan())
    return night


def hostile_night(folder: Path) -> NightNow:
    """A night in which every name and word that comes from elsewhere is hostile."""
    name = HOSTILE[0] + LONG
    made = plan()
    entries = begun_night(made, 2, why=HOSTILE[1])
    write_entries(folder, entries)
    write_account(
        folder,
        made,
        entries,
        aside=name,
        plan=HOSTILE[2],
        holes=(hole("b0", HOSTILE[0], name),),
    )
    beat(folder, made, where=HOSTILE[1], stage=name)
    now = NightWatch(folder).look()
    boards = tuple(one.model_copy(update={"name": name, "late": True}) for one in now.boards)
    places = tuple(
        PlaceNow(name=name, holder=holder, by_this_night=False, lacks=name, tags={name: name})
        for holder in ("", *HOSTILE)
    )
    return now.model_copy(update={"boards": boards, "places": places, "coordinator": HOSTILE[0]})
