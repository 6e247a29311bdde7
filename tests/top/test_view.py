"""What the live view says of nights that run, were taken up again, killed, left, and finished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from farm.errors import UsageError
from farm.nightly.journal import JOURNAL_NAME, Begun, Closed, Died
from farm.nightly.pulse import PULSE_NAME, PulseWriter, SeatPulse
from farm.top.terminal import PlainView, table_of
from farm.top.view import Aside, NightWatch, State, newest
from farm.top.words import board_text, progress_text
from tests.nightly.imaginary import opened
from tests.report.nights import hole

from .nights import NIGHT_ID, after, beat, begun_night, plan, write_account, write_entries

HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202e[bold]"


def made(folder: Path, done: int = 1) -> Path:
    night = folder / "nights" / NIGHT_ID
    schedule = plan()
    entries = begun_night(schedule, done)
    write_entries(night, entries)
    write_account(night, schedule, entries)
    beat(night, schedule)
    return night


def test_a_running_night_says_where_boards_are_what_they_do_and_when_it_ends(
    tmp_path: Path,
) -> None:
    night = made(tmp_path)
    now = NightWatch(night).look()
    assert now.state is State.RUNNING
    assert (now.cells, now.done, now.left) == (6, 2, 4)
    assert now.totals == {"PASS": 2, "FAIL": 0, "ERROR": 0, "SKIP": 0}
    assert [(one.name, one.where, one.stage) for one in now.boards] == [
        ("b0", "panicking", "panic: sysrq-c"),
        ("b1", "panicking", "panic: sysrq-c"),
    ]
    # Two cells of ten seconds are left on each board.
    assert now.left_s == 20.0
    assert now.boards[0].cell is not None
    assert board_text(now.boards[0]) == "lkdtm-bug, kernel k0, pstorefs, no. 1"
    assert now.boards[0].counts == {"PASS": 1}
    assert "about 20.0 s more, until" in progress_text(now)
    assert {one.cell.board for one in now.last} == {"b0", "b1"}


def test_a_budget_ends_the_night_before_its_cells_are_done(tmp_path: Path) -> None:
    night = made(tmp_path)
    beat(night, plan(), budget_s=12.0)
    now = NightWatch(night).look(datetime.fromisoformat(after(5)))
    assert now.spent_s == 5.0
    assert now.left_s == 7.0


def test_a_stage_past_its_deadline_is_late(tmp_path: Path) -> None:
    night = made(tmp_path)
    assert not NightWatch(night).look().boards[0].late
    later = NightWatch(night).look(datetime.now(UTC) + timedelta(seconds=16))
    assert later.boards[0].late
    assert later.boards[0].deadline_s == 15.0


def test_a_killed_controller_is_said_to_be_gone_since_its_last_word(tmp_path: Path) -> None:
    night = made(tmp_path)
    beat(night, plan(), pid_started=1, at="2026-11-24T22:00:40+00:00")
    now = NightWatch(night).look()
    assert now.state is State.GONE
    assert "controller gone since 2026-11-24 22:00:40 UTC" in now.told
    assert "goes on with it" in now.told
    # Where the boards are now nobody knows; what they did last is known.
    assert [one.where for one in now.boards] == ["", ""]
    assert now.boards[0].stage == "panic: sysrq-c"
    assert now.left_s is None


def test_a_controller_of_another_host_is_silent_when_it_says_nothing(tmp_path: Path) -> None:
    night = made(tmp_path)
    beat(night, plan(), kernel="another", host="far")
    assert NightWatch(night).look().state is State.RUNNING
    late = NightWatch(night).look(datetime.now(UTC) + timedelta(seconds=60))
    assert late.state is State.SILENT
    assert "no word from the controller on far since" in late.told


def test_a_resumed_night_goes_on_where_it_was_and_is_read_on_from_there(tmp_path: Path) -> None:
    night = made(tmp_path)
    schedule = plan()
    entries = begun_night(schedule, 1)
    watch = NightWatch(night)
    assert watch.look().done == 2
    begun = entries[-1]
    assert isinstance(begun, Begun)
    entries += [
        Died(at=after(30), cell=begun.cell, why="killed"),
        Closed(at=after(31), complete=False, interrupted=True, ended_early="interrupted"),
    ]
    write_entries(night, entries)
    left = watch.look()
    assert left.state is State.INTERRUPTED
    assert left.done == 2
    write_entries(night, [*entries, opened(schedule)])
    beat(night, schedule)
    assert watch.look().state is State.RUNNING
    # A line that is cut is not yet there; a journal that is shorter is another one.
    with (night / JOURNAL_NAME).open("a") as file:
        file.write('{"entry":"clo')
    assert watch.look().state is State.RUNNING
    write_entries(night, entries[:1])
    assert watch.look().done == 0


def test_the_end_of_a_night_and_one_that_has_not_begun(tmp_path: Path) -> None:
    night = made(tmp_path)
    write_entries(night, [*begun_night(plan(), 3), Closed(at=after(40), complete=True)])
    now = NightWatch(night).look()
    assert now.state is State.FINISHED
    assert now.done == 6
    empty = tmp_path / "nights" / "20261125-220000-0000"
    write_entries(empty, [])
    assert newest(tmp_path) == newest(tmp_path / "nights") == empty
    assert NightWatch(empty).look().state is State.NOT_BEGUN
    with pytest.raises(UsageError, match="there is no night in"):
        newest(tmp_path / "nowhere")


def test_who_is_set_aside_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    night = made(tmp_path)
    schedule = plan()
    write_account(
        night,
        schedule,
        begun_night(schedule, 1),
        aside="3 bench failures in a row",
        holes=(hole("b0", "hw-watchdog", "the board has no watchdog"),),
    )
    now = NightWatch(night).look()
    assert now.set_aside[0] == Aside(name="b0", why="3 bench failures in a row")
    assert [(one.cells, one.reason) for one in now.holes] == [(1, "the board has no watchdog")]
    assert now.left == 4


def test_a_damaged_state_file_hides_nothing_else(tmp_path: Path) -> None:
    night = made(tmp_path)
    (night / PULSE_NAME).write_text('{"at": 1')
    (night / "night.json").write_text("{")
    now = NightWatch(night).look()
    assert now.done == 2
    assert now.state is State.GONE


def test_what_boards_say_does_not_reach_the_terminal(tmp_path: Path) -> None:
    night = tmp_path / "nights" / NIGHT_ID
    schedule = plan()
    entries = begun_night(schedule, 1, why=HOSTILE)
    write_entries(night, entries)
    write_account(night, schedule, entries, aside=HOSTILE, plan=HOSTILE)
    beat(night, schedule, stage=HOSTILE, where=HOSTILE)
    now = NightWatch(night).look()
    console = Console(width=200, record=True)
    with console.capture() as said:
        console.print(table_of(now))
        PlainView(console).show(now)
    text = said.get()
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert r"\x1b[2J" in text
    assert "[bold]" in text


def test_lines_tell_only_what_is_new(tmp_path: Path) -> None:
    night = made(tmp_path)
    console = Console(width=200)
    view = PlainView(console)
    watch = NightWatch(night)
    with console.capture() as first:
        view.show(watch.look())
    with console.capture() as again:
        view.show(watch.look())
    beat(night, plan(), where="shell", stage="collect")
    with console.capture() as changed:
        view.show(watch.look())
    assert "b0: panicking, lkdtm-bug" in first.get()
    assert again.get() == ""
    assert [line[9:40] for line in changed.get().splitlines()] == [
        "b0: shell, lkdtm-bug, kernel k0",
        "b1: shell, lkdtm-panic, kernel ",
    ]


def test_a_pulse_is_written_for_news_and_for_time_and_a_full_disk_is_no_matter(
    tmp_path: Path,
) -> None:
    seat = SeatPulse(seat="b", where="", doing="", stage="", since="", stage_since="")
    writer = PulseWriter(tmp_path)
    assert writer.is_due()
    writer.beat([seat], 1, None)
    first = (tmp_path / PULSE_NAME).stat().st_ino
    assert not writer.is_due()
    writer.beat([seat], 1, None)
    assert (tmp_path / PULSE_NAME).stat().st_ino == first
    writer.beat([seat.model_copy(update={"stage": "arm"})], 1, None)
    assert "arm" in (tmp_path / PULSE_NAME).read_text()
    PulseWriter(tmp_path / "gone").beat([seat], 1, None)
