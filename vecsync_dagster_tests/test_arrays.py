"""Lists as Arrow arrays: as PyArrow makes them, without pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from vecsync_dagster.arrays import arrow_array

LISTS: list[list[Any]] = [
    [],
    [None, None],
    ["a", "", "ы", "👍"],
    ["a", None, "", None, "b", None, None, "c", "d", None],
    [1, -(2**63), 2**63 - 1],
    [None, 7],
    [1.5, float("inf"), None],
    [1, 2.5, None],
    [True, None, False],
    [False, True],
    [b"x", None, b"", b"\xff"],
    [bytearray(b"x"), b"y", None],
    [["a"], None],
]
REFUSED: list[list[Any]] = [[2**70], ["\ud800"], [1, "a"], [2**60 + 1, 0.5]]


@pytest.mark.parametrize("values", LISTS, ids=repr)
def test_an_array_is_what_pyarrow_makes_of_the_list(values: list[Any]) -> None:
    """Type, nulls and values are those of pa.array, and the array is sound."""
    array = arrow_array(values)
    array.validate(full=True)
    assert array.equals(pa.array(values))
    assert array.type == pa.array(values).type


@pytest.mark.parametrize("values", REFUSED, ids=ascii)
def test_what_pyarrow_refuses_is_refused_alike(values: list[Any]) -> None:
    """The error is of PyArrow's own type, which the caller knows."""
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (whatever it is, ours is the same)
        pa.array(values)
    with pytest.raises(theirs.type):
        arrow_array(values)


def test_plain_values_need_no_pandas() -> None:
    """A process that only syncs does not load pandas."""
    code = (
        "import sys; from vecsync_dagster.arrays import arrow_array;"
        "from vecsync_dagster.documents.record_bytes import record_bytes;"
        "lists = ['a', None], [1, None], [0.5], [None], [b'a'], [True];"
        "record_bytes([(arrow_array(values), values == ['a', None]) for values in lists[:2]]);"
        "[arrow_array(values) for values in lists];"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
