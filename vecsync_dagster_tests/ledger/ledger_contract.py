"""The contract of `ledger.base.Ledger`: one body of tests, run over every database (`test_contract.py`).

Each part of it is a class of its own in `contract_*.py`.
"""

from __future__ import annotations

from vecsync_dagster_tests.ledger.contract_alerts import AlertsContract
from vecsync_dagster_tests.ledger.contract_checks import ChecksContract
from vecsync_dagster_tests.ledger.contract_documents import DocumentsContract
from vecsync_dagster_tests.ledger.contract_partitions import PartitionsContract
from vecsync_dagster_tests.ledger.contract_places import PlacesContract
from vecsync_dagster_tests.ledger.contract_records import RecordsContract
from vecsync_dagster_tests.ledger.contract_retention import RetentionContract
from vecsync_dagster_tests.ledger.contract_retries import RetriesContract
from vecsync_dagster_tests.ledger.contract_runs import RunsContract
from vecsync_dagster_tests.ledger.contract_sharing import SharingContract
from vecsync_dagster_tests.ledger.contract_states import StatesContract
from vecsync_dagster_tests.ledger.contract_touched import TouchedContract
from vecsync_dagster_tests.ledger.contract_vectors import VectorsContract


class LedgerContract(
    DocumentsContract,
    PartitionsContract,
    PlacesContract,
    RecordsContract,
    RetriesContract,
    RetentionContract,
    TouchedContract,
    VectorsContract,
    RunsContract,
    StatesContract,
    ChecksContract,
    AlertsContract,
    SharingContract,
):
    """Needs the fixtures `ledger` (empty) and `clock` (the ledger's)."""
