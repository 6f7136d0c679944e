"""The ledger, on SQLite and on a real PostgreSQL."""

import pytest

# Contracts are no test modules: pytest explains their asserts only if it is told to.
pytest.register_assert_rewrite(
    *(f"{__name__}.contract_{part}" for part in ("documents", "partitions", "runs", "sharing", "states", "vectors"))
)
