"""What Alembic runs: the migrations, on the connection and in the transaction of `ledger/migrate.py`."""

from __future__ import annotations

from alembic import context

from vecsync_dagster.ledger.tables import metadata
from vecsync_dagster.ledger.version import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can roll DDL back too, once BEGIN is ours: half a migration never stays.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
