"""The history: what was added is found again, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text

from farm.errors import BenchError, UsageError
from farm.history import BoardState, History, database, open_history, schema
from farm.model import Purpose, Verdict
from tests.history.nights import Shape, fill, make_night
from tests.judge.cycles import Scene

HOSTILE = "<script>alert(1)</script>\0../../x\ud800" + "ä" * 150


def test_nights_come_newest_first(history: History) -> None:
    nights = fill(history, 5 * Shape().cycles, Shape())
    ids = [night.night_id for night in nights]
    assert [row.night_id for row in history.nights()] == ids[::-1]
    assert [row.night_id for row in history.nights(limit=2)] == [ids[4], ids[3]]
    assert [row.night_id for row in history.nights(before=ids[2])] == [ids[1], ids[0]]
    assert [row.night_id for row in history.nights(before=nights[2].started)] == [ids[1], ids[0]]
    assert history.nights(plan="another") == []
    first = history.nights()[0]
    assert first.totals == nights[-1].totals
    assert first.verdict == Verdict.PASS


def test_the_last_good_night_is_not_the_last(history: History) -> None:
    shape = Shape(fail=frozenset({2}), error=frozenset({3}))
    nights = fill(history, 4 * shape.cycles, shape)
    plan = nights[0].plan
    last, good = history.last_night(plan), history.last_good_night(plan)
    assert last is not None
    assert good is not None
    assert (last.night_id, last.verdict) == (nights[3].night_id, "ERROR")
    assert good.night_id == nights[1].night_id
    assert history.last_good_night(plan, nights[0].night_id) is None


def test_a_night_not_yet_added_is_before_itself(history: History) -> None:
    """What a report of tonight asks, whose night the history does not know yet."""
    nights = fill(history, 2 * Shape().cycles, Shape())
    tonight, _ = make_night(2, Shape())
    found = history.last_night(tonight.plan, tonight.night_id)
    assert found is not None
    assert found.night_id == nights[-1].night_id


def test_an_interrupted_night_is_no_good_one(history: History) -> None:
    night, runs = make_night(0, Shape())
    history.add_night(night.model_copy(update={"interrupted": True}), runs)
    assert history.last_good_night(night.plan) is None


def test_a_cycle_carries_what_its_night_knew(history: History) -> None:
    shape = Shape(kernels=2, fail=frozenset({0}))
    night, runs = make_night(0, shape)
    history.add_night(night, runs)
    rows = history.cycles(night_id=night.night_id)
    assert len(rows) == shape.cycles
    bad = next(row for row in rows if row.verdict == Verdict.FAIL)
    assert (bad.kernel, bad.board, bad.channels) == ("kernel-0", "board-0", "pstorefs")
    assert (bad.finding_kind, bad.finding_driver, bad.finding_offset) == (
        "truncated",
        "driver-1",
        0x3FC,
    )
    assert bad.path == f"nights/{night.night_id}/{night.cycles[0].run}"
    assert bad.virtual is True
    assert all(row.finding_kind is None for row in rows if row.verdict == Verdict.PASS)


def test_cycles_are_selected(history: History) -> None:
    nights = fill(history, 3 * Shape().cycles, Shape())
    build = nights[1].kernels[0].build_id
    assert build is not None
    assert {row.night_id for row in history.cycles(build_ids=[build])} == {nights[1].night_id}
    assert len(history.cycles(boards=["board-1"])) == 12
    assert len(history.cycles(boards=["board-1"], scenarios=["sysrq-c"])) == 6
    assert history.cycles(channels=["sahara"]) == []
    since = history.cycles(since=nights[1].started, until=nights[2].started)
    assert {row.night_id for row in since} == {nights[1].night_id}
    assert history.cycles(build_ids=[]) == []


def test_retried_and_training_cycles_do_not_count(history: History) -> None:
    night, runs = make_night(0, Shape())
    first, second, *rest = night.cycles
    changed = (
        first.model_copy(update={"counts": False}),
        second.model_copy(update={"counts": False, "purpose": Purpose.TRAINING}),
        *rest,
    )
    history.add_night(night.model_copy(update={"cycles": changed}), runs)
    assert len(history.cycles()) == len(rest)
    assert len(history.cycles(counting_only=False)) == len(night.cycles)


def test_devices_of_chosen_cycles(history: History) -> None:
    shape = Shape(fail=frozenset({0}))
    fill(history, 2 * shape.cycles, shape)
    rows = history.cycles()
    ids = [rows[0].id, rows[1].id, rows[5].id]
    found = history.devices(ids)
    assert [one.cycle_id for one in found] == sorted(ids * shape.devices)
    assert [one.device for one in found[:3]] == ["driver-0.0", "driver-1.1", "driver-2.2"]
    bad = history.devices([row.id for row in rows], verdicts=["FAIL"])
    assert [(one.driver, one.verdict) for one in bad] == [("driver-1", "FAIL")]
    assert history.devices([]) == []
    assert history.stages_s(ids)[ids[0]]["reset"] == 1.5


def test_sizes_follow_the_nights(history: History) -> None:
    nights = fill(history, 5 * Shape().cycles, Shape())
    points = history.sizes(board="board-0", driver="driver-0", nights=3)
    assert [point.night_id for point in points] == [night.night_id for night in nights[2:]]
    assert points[0].min_bytes < points[-1].max_bytes
    assert all(point.min_bytes <= point.max_bytes for point in points)
    assert points[0].budget_bytes == 8192
    rows = history.cycles(night_id=points[0].night_id, boards=["board-0"])
    sizes = [
        one.record_bytes
        for one in history.devices([r.id for r in rows])
        if one.driver == "driver-0"
    ]
    assert (points[0].min_bytes, points[0].max_bytes) == (min(sizes), max(sizes))
    earlier = history.sizes(board="board-0", before=nights[1].night_id)
    assert {point.night_id for point in earlier} == {nights[0].night_id}
    assert history.sizes(board="board-9") == []


def test_sizes_of_one_kernel(history: History) -> None:
    night, runs = make_night(0, Shape(kernels=2))
    history.add_night(night, runs)
    both = history.sizes(board="board-0", driver="driver-0")
    each = [
        history.sizes(board="board-0", driver="driver-0", kernel=f"kernel-{number}")
        for number in range(2)
    ]
    assert both[0].min_bytes == min(one[0].min_bytes for one in each)
    assert both[0].max_bytes == max(one[0].max_bytes for one in each)


def test_adding_twice_changes_nothing(history: History) -> None:
    night, runs = make_night(0, Shape())
    history.add_night(night, runs)
    before = [row._replace(id=0) for row in history.cycles()]
    history.add_night(night, runs)
    assert [row._replace(id=0) for row in history.cycles()] == before
    assert len(history.nights()) == 1
    assert len(history.devices(row.id for row in history.cycles())) == len(before) * 3
    assert len(history.sizes(board="board-0")) == 3


def test_a_run_by_itself(history: History) -> None:
    scene = Scene(form="elf")
    _, runs = make_night(0, Shape(devices=1))
    run = next(iter(runs.values()))
    judged = run.cycles[0].model_copy(update={"result": scene.judge()})
    run = run.model_copy(update={"cycles": (judged, *run.cycles[1:])})
    history.add_run(run, path=run.run_id)
    history.add_run(run, path=run.run_id)
    rows = history.cycles(run_id=run.run_id)
    assert [row.number for row in rows] == [cycle.number for cycle in run.cycles]
    assert rows[0].night_id is None
    assert rows[0].path == run.run_id
    assert [one.device for one in history.devices([rows[0].id])] == [
        one.device for one in judged.result.devices
    ]


def test_a_run_added_again_does_not_leave_its_night(history: History) -> None:
    night, runs = make_night(0, Shape())
    history.add_night(night, runs)
    run = next(iter(runs.values()))
    history.add_run(run, path="elsewhere")
    assert all(row.night_id == night.night_id for row in history.cycles(run_id=run.run_id))


def test_a_night_grows_run_by_run(history: History) -> None:
    night, runs = make_night(0, Shape())
    for name, run in runs.items():
        history.add_run(run, path=f"nights/{night.night_id}/{name}", night=night)
    assert len(history.cycles(night_id=night.night_id)) == len(night.cycles)
    history.add_night(night, runs)
    assert len(history.cycles(night_id=night.night_id)) == len(night.cycles)


def test_a_run_that_cannot_be_read_keeps_its_verdicts(history: History) -> None:
    night, runs = make_night(0, Shape())
    lost = night.runs[0]
    history.add_night(night, {name: run for name, run in runs.items() if name != lost})
    rows = history.cycles(night_id=night.night_id)
    assert len(rows) == len(night.cycles)
    assert {row.verdict for row in rows} == {"PASS"}
    without = [row.id for row in rows if row.path.endswith(lost)]
    assert without
    assert history.devices(without) == []


def test_hostile_names_are_text(history: History) -> None:
    night, runs = make_night(0, Shape())
    name, run = next(iter(runs.items()))
    cycle = run.cycles[0]
    row = cycle.result.devices[0].model_copy(
        update={"driver": HOSTILE, "device": HOSTILE, "record_bytes": 1 << 70}
    )
    result = cycle.result.model_copy(update={"devices": (row,), "why": HOSTILE})
    changed = run.model_copy(
        update={"cycles": (cycle.model_copy(update={"result": result}), *run.cycles[1:])}
    )
    history.add_night(night, {**runs, name: changed})
    first = history.cycles(night_id=night.night_id)[0]
    found = history.devices([first.id])
    assert found[0].driver.startswith("<script>alert(1)</script>\\x00../../x")
    assert found[0].record_bytes == (1 << 63) - 1


def test_what_is_known_of_a_board_outlives_the_night(url: str) -> None:
    with open_history(url) as history:
        assert history.board_states() == {}
        history.set_board_state(BoardState("rb5", bench_failures=2))
        history.set_board_state(BoardState("rb5", "serial silent 3 times", 3, 1, "now", "n/1"))
    with open_history(url) as history:
        assert history.board_states() == {
            "rb5": BoardState("rb5", "serial silent 3 times", 3, 1, "now", "n/1")
        }


def test_a_failed_addition_leaves_the_night_before(history: History) -> None:
    night, runs = make_night(0, Shape())
    history.add_night(night, runs)
    rows = history.cycles()
    broken = night.cycles[0].model_copy(update={"wall_s": "no number"})
    with pytest.raises((BenchError, ValueError)):
        history.add_night(night.model_copy(update={"cycles": (broken,), "started": None}), runs)
    assert history.cycles() == rows


def test_migrations_make_the_tables_of_the_schema(url: str) -> None:
    open_history(url).close()
    engine = create_engine(database.url_of(url, Path()))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()


def test_the_newest_migration_is_the_schemas() -> None:
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_a_newer_farms_history_is_refused(url: str) -> None:
    open_history(url).close()
    engine = create_engine(database.url_of(url, Path()))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UsageError, match="another version of the farm"):
        open_history(url)


def test_two_that_open_a_new_history_at_once(url: str) -> None:
    code = f"from farm.history import open_history; open_history({url!r}).close()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [one.wait(60) for one in both] == [0, 0, 0]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is not SQLite" * 1000)
    with pytest.raises(UsageError, match=r"history\.sqlite is no SQLite database"):
        open_history(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["nonsense", "mysql://u@h/d"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError):
        open_history(url)


def test_a_server_that_does_not_answer_is_the_benchs_fault() -> None:
    with pytest.raises(BenchError) as caught:
        open_history("postgresql://farm:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_the_default_lies_beside_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(database.URL_VARIABLE, raising=False)
    open_history(out=tmp_path / "reports").close()
    with sqlite3.connect(tmp_path / "reports" / "history.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM cycle").fetchone() == (0,)


def test_a_quick_history_uses_its_indices(tmp_path: Path) -> None:
    """No query of a report or a sign-off reads a whole table of cycles or devices."""
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        fill(history, 3 * Shape().cycles, Shape())
        seen: list[str] = []

        def explain(connection, cursor, statement, parameters, context, many):  # type: ignore[no-untyped-def]
            own = connection.connection.cursor()
            plan = own.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            seen.extend(str(row[3]) for row in plan)

        event.listen(history._engine, "after_cursor_execute", explain)
        night = history.nights()[0]
        row = history.cycles(night_id=night.night_id)[0]
        history.cycles(boards=[row.board], scenarios=[row.scenario])
        history.cycles(build_ids=[row.build_id or ""])
        history.cycles(run_id=row.run_id)
        history.cycles(since=night.started)
        history.devices([row.id])
        history.sizes(board=row.board)
    assert len(seen) > 10
    assert [one for one in seen if one.startswith("SCAN cycle") or "SCAN device" in one] == []
