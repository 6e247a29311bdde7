"""The tables. A change here needs a migration beside it; a test holds the two against each other.

What queries select by stands in the cycle itself, so that none of them joins more than two tables.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0001"
"""The newest migration: what a database of this farm is at."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only for a column that is INTEGER and nothing else.
_Id = BigInteger().with_variant(Integer, "sqlite")

night = Table(
    "night",
    metadata,
    Column("night_id", String(64), primary_key=True),
    Column("plan", Text, nullable=False),
    Column("plan_sha256", String(64), nullable=False),
    Column("farm_version", String(32), nullable=False),
    Column("started", String(40), nullable=False),
    Column("finished", String(40)),
    Column("wall_s", Float, nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("totals", Text, nullable=False),
    Column("holes", Integer, nullable=False),
    Column("ended_early", Text, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Index(None, "plan", "started"),
    Index(None, "started"),
)

run = Table(
    "run",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("night_id", ForeignKey("night.night_id", ondelete="CASCADE")),
    Column("path", Text, nullable=False),
    Column("farm_version", String(32), nullable=False),
    Column("started", String(40), nullable=False),
    Column("finished", String(40)),
    Column("board", Text, nullable=False),
    Column("virtual", Boolean, nullable=False),
    Column("lg_env", Text, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("release", Text),
    Column("build_id", Text),
    Column("wall_s", Float, nullable=False),
    Column("board_s", Float, nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("ended_early", Text, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Index(None, "night_id"),
)

cycle = Table(
    "cycle",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("night_id", ForeignKey("night.night_id", ondelete="CASCADE")),
    Column("run_id", ForeignKey("run.run_id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started", String(40), nullable=False),
    Column("kernel", Text, nullable=False),
    Column("release", Text),
    Column("build_id", Text),
    Column("board", Text, nullable=False),
    Column("virtual", Boolean, nullable=False),
    Column("scenario", Text, nullable=False),
    Column("channels", Text, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("counts", Boolean, nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("blame", String(16)),
    Column("why", Text, nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("board_s", Float, nullable=False),
    Column("stages_s", Text, nullable=False),
    Column("used_bytes", BigInteger, nullable=False),
    Column("capacity_bytes", BigInteger, nullable=False),
    Column("finding_kind", String(32)),
    Column("finding_driver", Text),
    Column("finding_device", Text),
    Column("finding_offset", BigInteger),
    Index(None, "night_id"),
    Index(None, "run_id"),
    Index(None, "started"),
    Index(None, "board", "scenario", "started"),
    Index(None, "build_id", "started"),
)

device = Table(
    "device",
    metadata,
    Column("cycle_id", ForeignKey("cycle.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("driver", Text, nullable=False),
    Column("record_bytes", BigInteger, nullable=False),
    Column("data_bytes", BigInteger, nullable=False),
    Column("budget_bytes", BigInteger),
    Column("verdict", String(8), nullable=False),
    Column("why", Text, nullable=False),
    # Rows of a cycle lie together then, and there is no index beside the table.
    sqlite_with_rowid=False,
)

# Counted once when a night is added: a trend over 30 nights must not read their every device row.
size = Table(
    "size",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("night_id", ForeignKey("night.night_id", ondelete="CASCADE"), nullable=False),
    Column("kernel", Text, nullable=False),
    Column("board", Text, nullable=False),
    Column("driver", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("min_bytes", BigInteger, nullable=False),
    Column("max_bytes", BigInteger, nullable=False),
    Column("budget_bytes", BigInteger),
    Index(None, "night_id"),
    Index(None, "board", "night_id"),
)

board = Table(
    "board",
    metadata,
    Column("board", Text, primary_key=True),
    Column("set_aside", Text, nullable=False),
    Column("bench_failures", Integer, nullable=False),
    Column("clean_trainings", Integer, nullable=False),
    Column("changed", String(40), nullable=False),
    Column("last", Text, nullable=False),
)
