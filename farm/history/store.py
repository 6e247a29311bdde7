"""The history: adding runs and nights, and asking for them.

Adding is a transaction each: a run or a night is there whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, Select, case, delete, func, insert, select
from sqlalchemy.engine import URL

from farm.history import schema
from farm.history.database import failing_as, open_engine, url_of
from farm.history.entries import (
    cycle_values,
    device_values,
    night_cycle_values,
    night_values,
    run_values,
    size_values,
    text,
)
from farm.history.rows import (
    BoardState,
    CycleRow,
    DeviceRow,
    DeviceTotal,
    NightRow,
    SizePoint,
)
from farm.model import Cycle, CycleVerdict, Night, Run, Verdict

_NIGHT_ID = re.compile(r"(\d{8}-\d{6})-")
# Databases bound how many values a statement may have.
_AT_ONCE = 1000
# What decides whether and as what a cycle counts.
_ALIKE = ("build_id", "release", "board", "virtual", "scenario", "counts", "purpose", "verdict")


def open_history(url: str | None = None, *, out: Path = Path("reports")) -> History:
    """Open the history at ``url``, making or migrating its tables as needed.

    Without ``url`` it is what ``$PANIC_FARM_HISTORY`` names, else ``history.sqlite`` below ``out``,
    the folder that all runs lie under. Raises UsageError for a URL or a database that is none,
    BenchError (part ``history``) when it does not answer.
    """
    where = url_of(url, out)
    return History(open_engine(where), where)


class History:
    """All runs and nights that were added; a context manager."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with failing_as(self._url), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with failing_as(self._url), self._engine.connect() as connection:
            yield connection

    def add_run(self, run: Run, *, path: str, night: Night | None = None) -> None:
        """Add a run, whose folder is ``path`` below the folder that all runs lie under.

        A run that is there already is replaced. One of a night is added with it: with ``night``,
        the night's cycles of this run are, and the night itself if it is not there yet.
        """
        if night is not None:
            # One run of several: what is known of the others stays.
            with self._writing() as connection:
                if not _exists(connection, schema.night.c.night_id, night.night_id):
                    connection.execute(insert(schema.night), night_values(night))
                connection.execute(delete(schema.run).where(schema.run.c.run_id == run.run_id))
                kernel = _kernel_of(night, path)
                connection.execute(
                    insert(schema.run), run_values(run, path, night.night_id, kernel)
                )
                _add_cycles(connection, _of_night(night, {_name(night, path): run}, only=True))
            return
        with self._writing() as connection:
            known = connection.execute(
                select(schema.run.c.night_id).where(schema.run.c.run_id == run.run_id)
            ).first()
            if known is not None and known.night_id is not None:
                return  # its night tells more of it
            connection.execute(delete(schema.run).where(schema.run.c.run_id == run.run_id))
            connection.execute(insert(schema.run), run_values(run, path, None, ""))
            _add_cycles(
                connection, [(cycle_values(run, cycle), cycle.result) for cycle in run.cycles]
            )

    def add_night(self, night: Night, runs: Mapping[str, Run]) -> None:
        """Add a night with its runs, which are keyed as in ``night.runs``; replaces the night.

        A run that could not be read may be missing: its cycles are added without devices.
        """
        with self._writing() as connection:
            connection.execute(
                delete(schema.night).where(schema.night.c.night_id == night.night_id)
            )
            names = dict.fromkeys((*night.runs, *(one.run for one in night.cycles)))
            ids = [runs[name].run_id if name in runs else _folder(name) for name in names]
            connection.execute(delete(schema.run).where(schema.run.c.run_id.in_(ids)))
            connection.execute(insert(schema.night), night_values(night))
            rows = []
            for name, run_id in zip(names, ids, strict=True):
                path, kernel = _path(night, name), _kernel_of(night, name)
                if name in runs:
                    rows.append(run_values(runs[name], path, night.night_id, kernel))
                else:
                    rows.append(_unread_run(night, name, run_id, path, kernel))
            if rows:
                connection.execute(insert(schema.run), rows)
            cycles = _of_night(night, runs)
            _add_cycles(connection, cycles)
            sizes = size_values(
                night.night_id,
                [(values, result) for values, result in cycles if result and values["counts"]],
            )
            if sizes:
                connection.execute(insert(schema.size), sizes)

    def nights(
        self, *, plan: str | None = None, before: str | None = None, limit: int = 100
    ) -> list[NightRow]:
        """The nights, newest first; ``before`` is a night's id or a time, and not included."""
        table = schema.night
        query = select(table)
        if plan is not None:
            query = query.where(table.c.plan == text(plan))
        return self._nights(query, before, limit)

    def last_night(self, plan: str, before: str | None = None) -> NightRow | None:
        """The newest night of ``plan``, or the newest before a night's id or a time."""
        return next(iter(self.nights(plan=plan, before=before, limit=1)), None)

    def last_good_night(self, plan: str, before: str | None = None) -> NightRow | None:
        """As `last_night`, of those that are PASS and were not interrupted."""
        table = schema.night
        query = select(table).where(
            table.c.plan == text(plan),
            table.c.verdict == Verdict.PASS.value,
            table.c.interrupted.is_(False),
            table.c.finished.is_not(None),
        )
        return next(iter(self._nights(query, before, 1)), None)

    def _nights(self, query: Select[Any], before: str | None, limit: int) -> list[NightRow]:
        table = schema.night
        with self._reading() as connection:
            if before is not None:
                query = query.where(table.c.started < _moment(connection, before))
            newest = query.order_by(table.c.started.desc(), table.c.night_id.desc()).limit(limit)
            rows = connection.execute(newest).all()
        return [NightRow(**{**row._mapping, "totals": json.loads(row.totals)}) for row in rows]

    def cycles(
        self,
        *,
        night_id: str | None = None,
        run_id: str | None = None,
        build_ids: Iterable[str] | None = None,
        boards: Iterable[str] | None = None,
        scenarios: Iterable[str] | None = None,
        channels: Iterable[str] | None = None,
        since: str | None = None,
        until: str | None = None,
        counting_only: bool = True,
    ) -> list[CycleRow]:
        """Cycles in the order they were added.

        ``channels`` are sets of channels as `CycleRow.channels` holds them; ``since`` is included,
        ``until`` is not. With ``counting_only`` neither attempts that were retried nor training.
        """
        table, runs = schema.cycle, schema.run
        chosen = [runs.c.path if name == "path" else table.c[name] for name in CycleRow._fields]
        query = select(*chosen).join(runs, runs.c.run_id == table.c.run_id)
        if night_id is not None:
            query = query.where(table.c.night_id == night_id)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        for column, wanted in (
            (table.c.build_id, build_ids),
            (table.c.board, boards),
            (table.c.scenario, scenarios),
            (table.c.channels, channels),
        ):
            if wanted is not None:
                query = query.where(column.in_([text(one) for one in wanted]))
        if since is not None:
            query = query.where(table.c.started >= since)
        if until is not None:
            query = query.where(table.c.started < until)
        if counting_only:
            query = query.where(table.c.counts.is_(True))
        with self._reading() as connection:
            rows = connection.execute(query).all()
        # Sorted here: asked to sort by id, SQLite walks the whole table in that order.
        return sorted(map(CycleRow._make, rows), key=itemgetter(0))

    def devices(
        self, cycle_ids: Iterable[int], *, verdicts: Iterable[str] | None = None
    ) -> list[DeviceRow]:
        """The devices of these cycles, by cycle and then in the order they were judged."""
        table = schema.device
        chosen = [table.c[one.name] for one in fields(DeviceRow)]
        query = select(*chosen).order_by(table.c.cycle_id, table.c.position)
        if verdicts is not None:
            query = query.where(table.c.verdict.in_(list(verdicts)))
        found: list[DeviceRow] = []
        with self._reading() as connection:
            for first, last in _stretches(sorted(set(cycle_ids))):
                part = query.where(table.c.cycle_id.between(first, last))
                found.extend(DeviceRow(*row) for row in connection.execute(part))
        return found

    def device_totals(self, *, build_ids: Iterable[str] | None = None) -> list[DeviceTotal]:
        """The devices of these builds, or of all, counted where they are: a million rows are many.

        The cycles of a total are alike in all that may decide whether they count: build, release,
        board, virtual, scenario, counts, purpose, verdict.
        """
        cycle, device = schema.cycle, schema.device
        alike = [cycle.c[name] for name in _ALIKE]
        # Numbered first: a number and two texts group in half the time of ten columns.
        numbered = select(cycle.c.id, func.dense_rank().over(order_by=alike).label("cell"))
        if build_ids is not None:
            numbered = numbered.where(cycle.c.build_id.in_([text(one) for one in build_ids]))
        cells = numbered.cte("cells")
        bad = case((device.c.verdict == Verdict.PASS.value, 0), else_=1)
        query = (
            select(
                func.min(cells.c.id),
                device.c.driver,
                device.c.device,
                func.count(device.c.cycle_id.distinct()),
                func.sum(bad),
                func.max(device.c.record_bytes),
            )
            .join(cells, cells.c.id == device.c.cycle_id)
            .group_by(cells.c.cell, device.c.driver, device.c.device)
        )
        with self._reading() as connection:
            return [DeviceTotal(*row) for row in connection.execute(query)]

    def cycles_with(
        self, driver: str, device: str, record_bytes: int, *, build_ids: Iterable[str]
    ) -> list[int]:
        """The cycles of these builds in which the device's record is of just this size."""
        cycle, table = schema.cycle, schema.device
        query = (
            select(table.c.cycle_id)
            .join(cycle, cycle.c.id == table.c.cycle_id)
            .where(
                cycle.c.build_id.in_([text(one) for one in build_ids]),
                table.c.driver == text(driver),
                table.c.device == text(device),
                table.c.record_bytes == record_bytes,
            )
            .order_by(table.c.cycle_id)
        )
        with self._reading() as connection:
            return list(connection.scalars(query))

    def records_bytes(self, *, build_ids: Iterable[str]) -> Iterator[tuple[int, int]]:
        """Each cycle of these builds that has devices, and all their records' bytes; most first."""
        cycle, table = schema.cycle, schema.device
        total = func.sum(table.c.record_bytes)
        query = (
            select(table.c.cycle_id, total)
            .join(cycle, cycle.c.id == table.c.cycle_id)
            .where(cycle.c.build_id.in_([text(one) for one in build_ids]))
            .group_by(table.c.cycle_id)
            .order_by(total.desc(), table.c.cycle_id)
        )
        with self._reading() as connection:
            for row in connection.execute(query):
                yield int(row[0]), int(row[1])

    def stages_s(self, cycle_ids: Iterable[int]) -> dict[int, dict[str, float]]:
        """Seconds spent per stage, by cycle."""
        table = schema.cycle
        query = select(table.c.id, table.c.stages_s)
        found: dict[int, dict[str, float]] = {}
        with self._reading() as connection:
            for first, last in _stretches(sorted(set(cycle_ids))):
                for row in connection.execute(query.where(table.c.id.between(first, last))):
                    found[row.id] = json.loads(row.stages_s)
        return found

    def sizes(
        self,
        *,
        board: str,
        driver: str | None = None,
        nights: int = 30,
        kernel: str | None = None,
        before: str | None = None,
    ) -> list[SizePoint]:
        """Record sizes on ``board`` in its last ``nights`` nights, oldest first.

        Over all kernels of a night, or of the plan's ``kernel`` alone; ``before`` as in `nights`.
        """
        size, night = schema.size, schema.night
        with self._reading() as connection:
            last = (
                select(night.c.night_id)
                .where(
                    night.c.night_id.in_(select(size.c.night_id).where(size.c.board == text(board)))
                )
                .order_by(night.c.started.desc(), night.c.night_id.desc())
                .limit(nights)
            )
            if before is not None:
                last = last.where(night.c.started < _moment(connection, before))
            query = (
                select(
                    night.c.night_id,
                    night.c.started,
                    size.c.driver,
                    size.c.device,
                    func.min(size.c.min_bytes),
                    func.max(size.c.max_bytes),
                    func.max(size.c.budget_bytes),
                )
                .join(night, night.c.night_id == size.c.night_id)
                .where(size.c.board == text(board), size.c.night_id.in_(last))
                .group_by(night.c.night_id, night.c.started, size.c.driver, size.c.device)
                .order_by(night.c.started, night.c.night_id, size.c.driver, size.c.device)
            )
            if driver is not None:
                query = query.where(size.c.driver == text(driver))
            if kernel is not None:
                query = query.where(size.c.kernel == text(kernel))
            rows = connection.execute(query).all()
        return [SizePoint(*row) for row in rows]

    def board_states(self) -> dict[str, BoardState]:
        """What is known of each board as a bench, by its name."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.board)).all()
        return {row.board: BoardState(**row._mapping) for row in rows}

    def set_board_state(self, state: BoardState) -> None:
        """Keep what is known of a board, in place of what was."""
        with self._writing() as connection:
            connection.execute(
                delete(schema.board).where(schema.board.c.board == text(state.board))
            )
            values = {k: text(v) if isinstance(v, str) else v for k, v in asdict(state).items()}
            connection.execute(insert(schema.board), values)


_Judged = tuple[dict[str, Any], CycleVerdict | None]


def _of_night(night: Night, runs: Mapping[str, Run], *, only: bool = False) -> list[_Judged]:
    """The night's cycles as rows; with ``only``, those of the given runs."""
    by_number: dict[str, dict[int, Cycle]] = {
        name: {cycle.number: cycle for cycle in run.cycles} for name, run in runs.items()
    }
    found: list[_Judged] = []
    for one in night.cycles:
        if only and one.run not in runs:
            continue
        cycle = by_number.get(one.run, {}).get(one.number)
        values = night_cycle_values(night, one, runs.get(one.run), cycle)
        found.append((values, cycle.result if cycle else None))
    return found


def _add_cycles(connection: Connection, cycles: Sequence[_Judged]) -> None:
    table = schema.cycle
    for begin in range(0, len(cycles), _AT_ONCE):
        part = cycles[begin : begin + _AT_ONCE]
        ids = connection.scalars(
            insert(table).returning(table.c.id, sort_by_parameter_order=True),
            [values for values, _ in part],
        ).all()
        devices = [
            row
            for cycle_id, (_, result) in zip(ids, part, strict=True)
            if result is not None
            for row in device_values(cycle_id, result)
        ]
        if devices:
            connection.execute(insert(schema.device), devices)


def _unread_run(night: Night, name: str, run_id: str, path: str, kernel: str) -> dict[str, Any]:
    """The row of a run whose folder could not be read."""
    cell = next((one.cell for one in night.cycles if one.run == name), None)
    board = next((one for one in night.boards if cell and one.name == cell.board), None)
    return {
        "run_id": run_id,
        "night_id": night.night_id,
        "path": text(path),
        "farm_version": night.farm_version,
        "started": night.started,
        "finished": None,
        "board": text(cell.board) if cell else "",
        "virtual": board is None or board.virtual,
        "lg_env": text(board.lg_env) if board else "",
        "kernel": text(kernel),
        "release": None,
        "build_id": None,
        "wall_s": 0.0,
        "board_s": 0.0,
        "verdict": Verdict.ERROR.value,
        "ended_early": "its folder could not be read",
        "interrupted": False,
    }


def _folder(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _name(night: Night, path: str) -> str:
    """The run's name in ``night.runs`` whose folder is ``path``."""
    return next(
        (one for one in night.runs if _folder(one) == _folder(path)), f"runs/{_folder(path)}"
    )


def _path(night: Night, name: str) -> str:
    return f"nights/{night.night_id}/{name}"


def _kernel_of(night: Night, name: str) -> str:
    """The plan's name of the kernel that a run was of."""
    folder = _folder(name)
    return next((one.cell.kernel for one in night.cycles if _folder(one.run) == folder), "")


def _exists(connection: Connection, column: Any, value: str) -> bool:
    return connection.scalar(select(func.count()).where(column == value)) != 0


def _moment(connection: Connection, before: str) -> str:
    """The time that ``before``, a night's id or a time, stands for."""
    table = schema.night
    started = connection.scalar(select(table.c.started).where(table.c.night_id == before))
    if started is not None:
        return str(started)
    named = _NIGHT_ID.match(before)
    if named is None:
        return before
    moment = datetime.strptime(named[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds")


def _stretches(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of numbers without a gap: cycles that were added together are numbered so."""
    begin = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or ids[at] != ids[at - 1] + 1:
            yield ids[begin], ids[at - 1]
            begin = at
