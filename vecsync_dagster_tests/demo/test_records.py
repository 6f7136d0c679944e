"""The sample records: consistent, and with the cases in them that the demo is to show."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from vecsync_dagster.demo import TENANTS
from vecsync_dagster_tests.demo.conftest import Rows

LABELS = {tenant: label for label, tenant in TENANTS.items()}
NUMBER_COLUMNS = {"materials": "price", "works": "base_price"}
BOTH = pytest.mark.parametrize("table", NUMBER_COLUMNS)


@BOTH
def test_ids(tables: dict[str, Rows], table: str) -> None:
    """Ids are whole numbers, and so are the numbers people know a record by: no two are equal."""
    rows = tables[table]
    assert all(isinstance(row["id"], int) for row in rows)
    code = "sku" if table == "materials" else "code"
    assert len({row[code] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("materials", {"global": 90, "Северный дом": 28, "Morava Fasády": 24, "Harbour Fit-Out": 18}),
        ("works", {"global": 70, "Северный дом": 20, "Morava Fasády": 16, "Harbour Fit-Out": 14}),
    ],
)
def test_counts(tables: dict[str, Rows], table: str, expected: dict[str, int]) -> None:
    """Every tenant has records of its own; most records are global."""
    assert Counter("global" if row["is_global"] else LABELS[row["tenant_id"]] for row in tables[table]) == expected


@BOTH
def test_every_row_has_one_owner(tables: dict[str, Rows], table: str) -> None:
    """A row is either global, without a tenant, or belongs to one of the three tenants."""
    for row in tables[table]:
        assert row["is_global"] in (0, 1)
        assert (row["tenant_id"] is None) == (row["is_global"] == 1)
        assert row["tenant_id"] is None or row["tenant_id"] in LABELS


def test_tenant_ids_are_uuids() -> None:
    """Tenants' ids are UUIDs as text in the usual form, each its own."""
    assert [str(uuid.UUID(tenant)) for tenant in TENANTS.values()] == list(TENANTS.values())
    assert len(LABELS) == 3


@BOTH
def test_times(tables: dict[str, Rows], table: str) -> None:
    """Times lie within one year, are in UTC, and are ordered as text as they are in time."""
    for row in tables[table]:
        created, updated = datetime.fromisoformat(row["created_at"]), datetime.fromisoformat(row["updated_at"])
        assert created <= updated
        assert created.utcoffset() == updated.utcoffset() == timedelta(0)
    texts = sorted(row["updated_at"] for row in tables[table])
    times = [datetime.fromisoformat(text) for text in texts]
    assert times == sorted(times)
    assert timedelta(days=250) < times[-1] - times[0] < timedelta(days=366)


@BOTH
def test_deleted(tables: dict[str, Rows], table: str) -> None:
    """Two rows are deleted, which was their last modification."""
    deleted = [row for row in tables[table] if row["deleted_at"]]
    assert len(deleted) == 2
    assert all(row["deleted_at"] == row["updated_at"] for row in deleted)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("materials", [("global", "price"), ("Северный дом", "name"), ("Morava Fasády", "unit")]),
        ("works", [("Harbour Fit-Out", "base_price")]),
    ],
)
def test_wrong_records(tables: dict[str, Rows], table: str, expected: list[tuple[str, str]]) -> None:
    """Exactly these records are wrong, each in one field."""
    found = [
        ("global" if row["is_global"] else LABELS[row["tenant_id"]], field)
        for row in tables[table]
        for field in _wrong_fields(row, NUMBER_COLUMNS[table])
    ]
    assert found == expected


@BOTH
def test_numbers_as_text(tables: dict[str, Rows], table: str) -> None:
    """Some prices are numbers, and some are text with a decimal comma that is still to be parsed."""
    prices = [row[NUMBER_COLUMNS[table]] for row in tables[table]]
    texts = [price for price in prices if isinstance(price, str) and "," in price]
    assert len(texts) >= 5
    assert any(" " in text for text in texts)
    assert sum(isinstance(price, (int, float)) for price in prices) > len(prices) / 2


def test_prices_with_non_breaking_space(tables: dict[str, Rows]) -> None:
    """One price is grouped with the space that spreadsheets write."""
    assert [row["sku"] for row in tables["materials"] if "\u00a0" in str(row["price"])] == ["SD-ENG-101"]


def _wrong_fields(row: dict[str, Any], number: str) -> list[str]:
    empty = [field for field in ("name", "unit") if not row[field]]
    digits = str(row[number]).replace(",", "").replace(".", "").replace(" ", "").replace("\u00a0", "")
    return empty if digits.isdecimal() else [*empty, number]
