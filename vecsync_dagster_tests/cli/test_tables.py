"""Tables at any width: nothing is cut, words are whole, and what cannot be a table is a list."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from vecsync_dagster.cli.tables import Column, Tenant, print_table

COLUMNS = (
    Column("collection"),
    Column("tenant"),
    Column("documents", number=True),
    Column("stale", number=True, optional=True),
    Column("last sync"),
    Column("failed checks", rare=True),
)
TENANT = "11111111-1111-4111-8111-111111111111"
ROWS = [("materials", TENANT, 1234, 0, datetime(2026, 11, 27, 9, 23, tzinfo=UTC), "counts, identity")]


def printed(width: int) -> list[str]:
    file = io.StringIO()
    print_table(Console(file=file, width=width), COLUMNS, ROWS, total=("total", "1 partition", 1234, 0, None, ""))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [140, 100, 80, 70])
def test_a_table_fits_and_breaks_between_words(width: int) -> None:
    """No line is longer than the terminal is wide, and every word and number is whole."""
    lines = printed(width)
    words = " ".join(lines).split()
    assert max(map(len, lines)) <= width
    assert {"collection", "materials", "documents", "1,234", "2026-11-27", "09:23Z", "counts,", "identity"} <= {*words}


def test_a_tenant_is_whole_where_there_is_room_for_it() -> None:
    """Columns without a value go before an id is broken, and no id is cut: what people type has to be there."""
    assert {TENANT[:24], TENANT[24:]} <= {*" ".join(printed(80)).split()}
    assert f"tenant        {TENANT}" in printed(50)
    lines = printed(100)
    assert any(TENANT in line for line in lines)
    assert "stale" not in lines[0]


def test_a_narrow_terminal_shows_each_row_as_a_list() -> None:
    """Fifty columns: a line for each value, with its name."""
    lines = printed(40)
    assert max(map(len, lines)) <= 40
    assert lines[:2] == ["collection    materials", f"tenant        {TENANT[:26]}"]
    assert [line for line in lines if line.startswith("failed checks")] == ["failed checks counts, identity"]


def test_ids_that_would_look_alike_are_whole() -> None:
    """Where a table is narrow a tenant's name does and its id is short; not where two would read the same."""
    one, two, three = (f"1111aaaa-{letter}-1111" for letter in "xyz")
    rows = [
        (Tenant(one, "Acme"), "text " * 8),
        (Tenant(two, "Acme"), ""),
        (Tenant(three, "Brick"), ""),
        (Tenant(""), ""),
    ]
    file = io.StringIO()
    print_table(Console(file=file, width=44), [Column("tenant"), Column("what")], rows)
    told = file.getvalue()
    assert (one in told, two in told, three in told) == (True, True, False)
    assert "Brick (1111…1111)" in told
    assert "''" in told
