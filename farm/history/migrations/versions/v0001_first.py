"""Runs, nights, cycles, their devices and sizes, and what is known of each board."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "board",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("set_aside", sa.Text(), nullable=False),
        sa.Column("bench_failures", sa.Integer(), nullable=False),
        sa.Column("clean_trainings", sa.Integer(), nullable=False),
        sa.Column("changed", sa.String(length=40), nullable=False),
        sa.Column("last", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("board", name=op.f("pk_board")),
    )
    op.create_table(
        "night",
        sa.Column("night_id", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("plan_sha256", sa.String(length=64), nullable=False),
        sa.Column("farm_version", sa.String(length=32), nullable=False),
        sa.Column("started", sa.String(length=40), nullable=False),
        sa.Column("finished", sa.String(length=40), nullable=True),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("totals", sa.Text(), nullable=False),
        sa.Column("holes", sa.Integer(), nullable=False),
        sa.Column("ended_early", sa.Text(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("night_id", name=op.f("pk_night")),
    )
    op.create_index(op.f("ix_night_plan_started"), "night", ["plan", "started"], unique=False)
    op.create_index(op.f("ix_night_started"), "night", ["started"], unique=False)
    op.create_table(
        "run",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("night_id", sa.String(length=64), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("farm_version", sa.String(length=32), nullable=False),
        sa.Column("started", sa.String(length=40), nullable=False),
        sa.Column("finished", sa.String(length=40), nullable=True),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("virtual", sa.Boolean(), nullable=False),
        sa.Column("lg_env", sa.Text(), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=True),
        sa.Column("build_id", sa.Text(), nullable=True),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("board_s", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("ended_early", sa.Text(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["night_id"], ["night.night_id"], name=op.f("fk_run_night_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_night_id"), "run", ["night_id"], unique=False)
    op.create_table(
        "size",
        sa.Column("id", _ID, nullable=False),
        sa.Column("night_id", sa.String(length=64), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("min_bytes", sa.BigInteger(), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=False),
        sa.Column("budget_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["night_id"], ["night.night_id"], name=op.f("fk_size_night_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_size")),
    )
    op.create_index(op.f("ix_size_board_night_id"), "size", ["board", "night_id"], unique=False)
    op.create_index(op.f("ix_size_night_id"), "size", ["night_id"], unique=False)
    op.create_table(
        "cycle",
        sa.Column("id", _ID, nullable=False),
        sa.Column("night_id", sa.String(length=64), nullable=True),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started", sa.String(length=40), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=True),
        sa.Column("build_id", sa.Text(), nullable=True),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("virtual", sa.Boolean(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("channels", sa.Text(), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("blame", sa.String(length=16), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("board_s", sa.Float(), nullable=False),
        sa.Column("stages_s", sa.Text(), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("capacity_bytes", sa.BigInteger(), nullable=False),
        sa.Column("finding_kind", sa.String(length=32), nullable=True),
        sa.Column("finding_driver", sa.Text(), nullable=True),
        sa.Column("finding_device", sa.Text(), nullable=True),
        sa.Column("finding_offset", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["night_id"], ["night.night_id"], name=op.f("fk_cycle_night_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.run_id"], name=op.f("fk_cycle_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cycle")),
    )
    op.create_index(
        op.f("ix_cycle_board_scenario_started"),
        "cycle",
        ["board", "scenario", "started"],
        unique=False,
    )
    op.create_index(
        op.f("ix_cycle_build_id_started"), "cycle", ["build_id", "started"], unique=False
    )
    op.create_index(op.f("ix_cycle_night_id"), "cycle", ["night_id"], unique=False)
    op.create_index(op.f("ix_cycle_run_id"), "cycle", ["run_id"], unique=False)
    op.create_index(op.f("ix_cycle_started"), "cycle", ["started"], unique=False)
    op.create_table(
        "device",
        sa.Column("cycle_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.Column("record_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data_bytes", sa.BigInteger(), nullable=False),
        sa.Column("budget_bytes", sa.BigInteger(), nullable=True),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cycle_id"], ["cycle.id"], name=op.f("fk_device_cycle_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("cycle_id", "position", name=op.f("pk_device")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Remove the tables."""
    for name in ("device", "cycle", "run", "size", "night", "board"):
        op.drop_table(name)
