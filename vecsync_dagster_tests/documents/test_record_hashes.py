"""The hash of a whole record: equal only where nothing at all changed."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster_tests.properties import a_property

ENTITY: dict[str, Any] = {
    "source": "db",
    "table": "t",
    "collections": {"c": {"text": "{text}", "payload": ["value"]}, "d": {"text": "{value}"}},
}
VALUES = st.none() | st.text(max_size=4) | st.sampled_from(["", " ", "a", "A", "á", "a\u0301"])
ROWS = st.fixed_dictionaries({"id": st.integers(1, 3), "text": VALUES, "value": VALUES})


def hashed(batch: pa.RecordBatch, entity: Mapping[str, Any] = ENTITY, collection: str = "c") -> list[str]:
    config = EntityConfig.model_validate(entity)
    builder = DocumentBuilder("things", config, "global", list(config.collections))
    return builder.record_hashes(builder.read(batch))[collection]


def hash_of(value: pa.Array) -> str:
    columns = [pa.array([1]), pa.array(["a"]), value]
    return hashed(pa.RecordBatch.from_arrays(columns, ["id", "text", "value"]))[0]


DIFFERENT = [
    pa.array([None], pa.string()),
    pa.array([""]),
    pa.array(["1"]),
    pa.array([1]),
    pa.array([1.0]),
    pa.array([True]),
    pa.array([math.nan]),
    pa.array([0.0]),
    pa.array([-0.0]),
    pa.array([["a", "b"]]),
    pa.array([["ab"]]),
    pa.array([["b", "a"]]),
    pa.array(["['a', 'b']"]),
    pa.array([Decimal("1.0")]),
    pa.array([Decimal("1.00")]),
    pa.array([dt.date(2026, 3, 1)]),
    pa.array([dt.datetime(2026, 3, 1)]),  # noqa: DTZ001 (a column without a zone)
    pa.array([dt.datetime(2026, 3, 1, tzinfo=dt.UTC)]),
    pa.array([b"1"]),
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(len(DIFFERENT)), 2)))
def test_values_that_differ(one: int, other: int) -> None:
    """No two values of different type or content have one hash."""
    assert hash_of(DIFFERENT[one]) != hash_of(DIFFERENT[other])


@given(st.lists(ROWS, min_size=2, max_size=6))
@a_property
def test_equal_records_alone_have_equal_hashes(rows: list[dict[str, Any]]) -> None:
    """Two records have one hash just where all their values are equal, whatever else is in the batch."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("value", pa.string())])
    found = hashed(pa.RecordBatch.from_pylist(rows, schema))
    alone = [hashed(pa.RecordBatch.from_pylist([row], schema))[0] for row in rows]
    assert found == alone
    for (a, x), (b, y) in itertools.combinations(zip(rows, found, strict=True), 2):
        assert (a == b) == (x == y)


@pytest.mark.parametrize(
    "changes",
    [
        {"required": ["value"]},
        {"types": {"value": "string"}},
        {"type": "thing"},
        {"collections": {**ENTITY["collections"], "c": {"text": "{text}.", "payload": ["value"]}}},
        {"collections": {**ENTITY["collections"], "c": {"text": "{text}", "payload": ["text", "value"]}}},
    ],
)
def test_settings_that_make_documents_are_part_of_it(changes: dict[str, Any]) -> None:
    """Another template, payload or rule of validation makes every record one that needs a look."""
    batch = pa.RecordBatch.from_pylist([{"id": 1, "text": "a", "value": "b"}])
    assert hashed(batch) != hashed(batch, {**ENTITY, **changes})
    assert hashed(batch) == hashed(batch, {**ENTITY, "overlap": 3600})
    assert hashed(batch) != hashed(batch, collection="d")


def test_it_is_the_same_in_every_process() -> None:
    """A hash of another process, with another seed of Python's own hashes, is the same."""
    code = (
        "import pyarrow as pa;"
        "from vecsync_dagster_tests.documents.test_record_hashes import hashed;"
        "print(hashed(pa.RecordBatch.from_pylist([{'id': 1, 'text': 'á', 'value': 'b'}]))[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashed(pa.RecordBatch.from_pylist([{"id": 1, "text": "á", "value": "b"}]))[0]
