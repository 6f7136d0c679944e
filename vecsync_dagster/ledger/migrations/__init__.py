"""Alembic environment of the ledger: `env.py` and one file a version. `ledger/migrate.py` runs it."""
