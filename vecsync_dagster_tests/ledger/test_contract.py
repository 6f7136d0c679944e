"""The contract, over an SQLite file and a real PostgreSQL; in memory the parts where that differs from a file."""

from __future__ import annotations

import pytest

from vecsync_dagster_tests.ledger.contract_partitions import PartitionsContract
from vecsync_dagster_tests.ledger.contract_sharing import SharingContract
from vecsync_dagster_tests.ledger.ledger_contract import LedgerContract


@pytest.mark.parametrize("url", ["contract_sqlite"], indirect=True)
class TestSqliteFile(LedgerContract):
    pass


@pytest.mark.parametrize("url", ["contract_postgresql"], indirect=True)
class TestPostgresql(LedgerContract):
    pass


@pytest.mark.parametrize("url", ["memory"], indirect=True)
class TestSqliteMemory(PartitionsContract, SharingContract):
    pass
