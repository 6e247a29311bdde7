"""Opening the database: the URL, the connection, and the migrations that it lacks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, func, inspect, select
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from farm.errors import BenchError, UsageError
from farm.history.schema import HEAD

URL_VARIABLE = "PANIC_FARM_HISTORY"
FILE_NAME = "history.sqlite"
_BUSY_S = 30
_MIGRATION_LOCK = 0x50414E49
_MIGRATIONS = Path(__file__).with_name("migrations")


def url_of(url: str | None, out: Path) -> URL:
    """The database's URL: ``url``, else ``$PANIC_FARM_HISTORY``, else a file below ``out``."""
    given = url or os.environ.get(URL_VARIABLE)
    if not given:
        return URL.create("sqlite", database=str(out / FILE_NAME))
    try:
        found = make_url(given)
    except ArgumentError as error:
        raise UsageError(
            "the history's URL is none", "For example postgresql://USER@HOST/NAME."
        ) from error
    match found.get_backend_name():
        case "sqlite":
            return found
        case "postgresql":
            return found.set(drivername="postgresql+psycopg")
        case other:
            raise UsageError(
                f"the history cannot be kept in {other}", "It can in sqlite and postgresql."
            )


def shown(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def open_engine(url: URL) -> Engine:
    """Connect, and bring the tables to this farm's; raises UsageError, BenchError."""
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": _BUSY_S}
        if url.database and url.database != ":memory:":
            try:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BenchError(
                    f"{url.database} cannot be made: {error.strerror}", part="disk"
                ) from error
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        with failing_as(url):
            _migrate(engine, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    cursor = connection.cursor()
    # Readers do not wait for the night that writes; a power cut costs at most the last night,
    # which night.json still holds.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA cache_size=-65536")
    cursor.close()


@contextmanager
def failing_as(url: URL) -> Iterator[None]:
    """Turn what a database says into an error that names it."""
    try:
        yield
    except DBAPIError as error:
        said = str(error.orig).strip().replace("\n", " ")
        if isinstance(error.orig, sqlite3.DatabaseError) and "not a database" in said:
            raise UsageError(
                f"the history {url.database} is no SQLite database", "Name another by --history."
            ) from error
        raise BenchError(
            f"the history {shown(url)} cannot be used: {said}",
            part="history",
            next_step="What was run is kept in its folders; the history can be made of them again.",
        ) from error
    except SQLAlchemyError as error:
        raise BenchError(
            f"the history {shown(url)} cannot be used: {error}", part="history"
        ) from error


def _migrate(engine: Engine, url: URL) -> None:
    version = sql_table("alembic_version", sql_column("version_num"))
    with engine.connect() as connection:
        known = inspect(connection).has_table("alembic_version")
        found = connection.scalar(select(version.c.version_num)) if known else None
    if found == HEAD:
        return  # alembic takes longer to load than a query
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            # Of two that open a new database at once, the second finds it done.
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise UsageError(
            f"the history {shown(url)} is of another version of the farm ({found}; this one "
            f"knows {HEAD})",
            "Use the newer farm, or name another history by --history.",
        ) from error
