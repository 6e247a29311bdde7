"""What alembic runs: the migrations, over the connection that the farm has opened."""

from __future__ import annotations

from alembic import context

from farm.history.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite cannot change a column; alembic then makes the table anew.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
