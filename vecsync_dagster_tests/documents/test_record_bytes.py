"""Records as bytes: as different as the records are."""

from __future__ import annotations

import itertools
import marshal
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.record_bytes import record_bytes
from vecsync_dagster_tests.properties import a_property

COLUMNS = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 1)),
        (pa.float64(), st.floats() | st.sampled_from([0.0, -0.0, 1.0, 0.1, 0.1 + 2**-56, 1e300])),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=3) | st.sampled_from(["0", "1", "true", "nan", "[]", "\x00"])),
        (pa.list_(pa.string()), st.lists(st.text(max_size=2), max_size=2)),
        (pa.timestamp("us", "UTC"), st.integers(-(2**62), 2**62) | st.integers(-1, 1)),
    ]
)


@st.composite
def columns(draw: st.DrawFn) -> list[pa.Array]:
    """Columns of as many rows, two at least, some of them slices of longer ones."""
    size = draw(st.integers(2, 5))
    found = []
    for kind, values in draw(st.lists(COLUMNS, min_size=1, max_size=4)):
        longer = pa.array(draw(st.lists(st.none() | values, min_size=size + 1, max_size=size + 1)), kind)
        found.append(longer.slice(draw(st.integers(0, 1)), size))
    return found


def exactly(column: pa.Array, row: int) -> bytes:
    """The value and its type; every NaN is one."""
    time = pa.types.is_timestamp(column.type)
    value: Any = (column.cast(pa.int64()) if time else column)[row].as_py()
    name = "" if value is None else str(column.type)
    return marshal.dumps((name, "nan" if value != value else value), 2)


@given(st.lists(columns(), min_size=1, max_size=3))
@a_property
def test_equal_just_where_the_values_are(batches: list[list[pa.Array]]) -> None:
    """Two records of any batches have equal bytes just where they have as many values, equal and of equal types."""
    records = [
        ([exactly(column, row) for column in batch], found)
        for batch in batches
        for row, found in enumerate(record_bytes([(column, False) for column in batch]))
    ]
    for (one, its), (other, others) in itertools.combinations(records, 2):
        assert (one == other) == (its == others)


def test_json_is_another_value_than_text() -> None:
    """What was text and is now text that holds JSON means something else."""
    column = pa.array(["[1]", "5", None])
    plain, parsed = record_bytes([(column, False)]), record_bytes([(column, True)])
    assert [one == other for one, other in zip(plain, parsed, strict=True)] == [False, False, True]


def test_nothing_is_the_same_in_every_column() -> None:
    """A page in which a column holds nothing at all, and so has no type, changes no record of it."""
    assert record_bytes([(pa.nulls(1), False)]) == record_bytes([(pa.nulls(1, pa.int64()), False)])
