"""CSV that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest

from vecsync_dagster.cli.formats import csv_cell, writer_of

FULL_WIDTH = [f"{sign}1+1" for sign in "\uff1d\uff0b\uff0d\uff20"]


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", *FULL_WIDTH]
)
def test_a_formula_is_text(formula: str) -> None:
    """A value that a spreadsheet would run is written with an apostrophe in front, in every column."""
    file = io.BytesIO()
    document = {"id": f"global-work-{formula}", "text": formula, "metadata": {"name": formula, "dbId": formula}}
    with writer_of("csv", file, ["name"]) as write:
        write([document])
    [row] = csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
    assert (row["text"], row["name"], row["dbId"]) == (f"'{formula}",) * 3


@pytest.mark.parametrize("value", ["-5", "+1.5", "-1e3", "a=b", "", None, -5, "plain"])
def test_other_values_stay_as_they_are(value: object) -> None:
    """Numbers, also as text, are no formulas."""
    assert csv_cell(value) == value
