"""Tables that stay readable at 100 columns: empty columns left out, long tenant ids shortened in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

__all__ = ["Column", "print_table", "shorten"]

Cell = str | int | float | datetime | None
_SHORTEST = 13
_UNBOUNDED = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """`rare`: left out where every value is empty or zero. `optional`: the same, but only if the table is too
    wide otherwise. `shrink`: shortened if it is too wide even then."""

    header: str
    number: bool = False
    optional: bool = False
    rare: bool = False
    shrink: bool = False


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    total: Sequence[Cell] | None = None,
    title: str | None = None,
) -> None:
    """Print rows, each with one value a column, and a last row of totals under a line."""
    filled = {i for i in range(len(columns)) if any(row[i] for row in rows)}
    usual = [i for i, column in enumerate(columns) if i in filled or not column.rare]
    least = [i for i in usual if i in filled or not columns[i].optional]
    for kept in (usual, least):
        chosen = [columns[i] for i in kept]
        texts = [[_text(row[i]) for i in kept] for row in rows]
        last = None if total is None else [_text(total[i]) for i in kept]
        excess = _excess(console, _table(chosen, texts, last, title))
        table = _table(chosen, _shrunk(chosen, texts, excess), last, title)
        if _excess(console, table) <= 0:
            break
    console.print(table)


def _excess(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table).maximum - console.width


def shorten(text: str, width: int) -> str:
    """The text with its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def _table(columns: Sequence[Column], rows: list[list[str]], total: list[str] | None, title: str | None) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=total is not None, title=title, title_justify="left"
    )
    table.show_edge = False
    table.pad_edge = False
    for i, column in enumerate(columns):
        footer = total[i] if total is not None else ""
        # Numbers are never cut; a long text is broken at the column's edge.
        table.add_column(
            column.header, footer, justify="right" if column.number else "left", no_wrap=column.number, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    return table


def _shrunk(columns: Sequence[Column], rows: list[list[str]], excess: int) -> list[list[str]]:
    for i, column in enumerate(columns):
        if column.shrink and rows and excess > 0:
            longest = max(len(row[i]) for row in rows)
            width = max(_SHORTEST, longest - excess)
            rows = [[shorten(text, width) if j == i else text for j, text in enumerate(row)] for row in rows]
            excess -= longest - width
    return rows


def _text(value: Cell) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}Z"
        case float():
            return f"{value:,.2f}"
        case int():
            return f"{value:,}"
        case _:
            return value
