"""Tables that stay readable at 100 columns: empty columns left out. Nothing is cut that somebody may have to type: only
the id of a tenant that has a name of its own, which does as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from vecsync_dagster.cli.output import with_config
from vecsync_dagster.words import named

__all__ = ["Column", "Tenant", "print_table", "shorten"]

_LONGEST_WORD = 24
_SHORT_ID = 9


@dataclass(frozen=True, slots=True)
class Tenant:
    """A cell: what people call the tenant, and its id."""

    tenant: str
    name: str = ""

    def __str__(self) -> str:
        return named(self.tenant, self.name)

    @property
    def lines(self) -> str:
        """The id on a line of its own, to be copied."""
        return f"{self.name}\n{named(self.tenant)}" if self.name else str(self)

    @property
    def short(self) -> str:
        return named(shorten(self.tenant, _SHORT_ID), self.name) if self.name else str(self)


Cell = str | int | float | datetime | Tenant | None


@dataclass(frozen=True, slots=True)
class Column:
    """`rare`: left out where every value is empty or zero. `optional`: the same, but only if the table is too
    wide otherwise. `repeats`: left out, as its values stand in another column too."""

    header: str
    number: bool = False
    optional: bool = False
    rare: bool = False
    repeats: bool = False


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    total: Sequence[Cell] | None = None,
    title: str | None = None,
) -> None:
    """Print rows, each with one value a column, and a last row of totals under a line. Text wraps between words; where
    the terminal is too narrow for that each row becomes a list of its values."""
    filled = {i for i in range(len(columns)) if any(row[i] for row in rows)}
    usual = [i for i, column in enumerate(columns) if not column.repeats and (i in filled or not column.rare)]
    least = [i for i in usual if i in filled or not columns[i].optional]
    fits = ((usual, 2, True, rows), (least, 2, True, rows))
    short = _shortened(rows)
    for kept, gap, whole, some in (*fits, (least, 2, True, short), (least, 2, False, short), (least, 1, False, short)):
        chosen = [columns[i] for i in kept]
        texts = [[_text(row[i]) for i in kept] for row in some]
        last = None if total is None else [_text(total[i]) for i in kept]
        room = console.width - gap * (len(chosen) - 1)
        widths = _widths(chosen, texts, last)
        if not whole:
            widths = _widths(chosen, texts, last, room)
        if sum(widths) <= room:
            console.print(_table(chosen, texts, last, title, widths, gap))
            return
    texts = [[cell.lines if isinstance(cell := row[i], Tenant) else _text(cell) for i in least] for row in rows]
    _print_lists(console, chosen, texts, last, title)


def _shortened(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """The rows with short ids of tenants, but of those that would look alike then."""
    tenants = {cell for row in rows for cell in row if isinstance(cell, Tenant)}
    used = Counter(one.short for one in tenants)

    def of(cell: Cell) -> Cell:
        if not isinstance(cell, Tenant):
            return cell
        return cell.short if used[cell.short] == 1 else cell.lines

    return [[of(cell) for cell in row] for row in rows]


def _print_lists(
    console: Console, columns: Sequence[Column], rows: list[list[str]], last: list[str] | None, title: str | None
) -> None:
    if title:
        console.print(title, style="italic")
    for row in [*rows, *([] if last is None else [last])]:
        block = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
        block.add_column(style="dim", no_wrap=True)
        block.add_column(overflow="fold")
        for column, text in zip(columns, row, strict=True):
            if text not in ("", "0", "-"):
                block.add_row(column.header, text)
        console.print(block)
        console.print()


def _widths(
    columns: Sequence[Column], rows: list[list[str]], last: list[str] | None, room: int | None = None
) -> list[int]:
    """Of each column; with `room` the widest are made narrower until all fit. Numbers are never broken, and of words
    only such as are longer than most lines."""
    cells = [
        [column.header, *(row[i] for row in [*rows, *([last] if last else [])])] for i, column in enumerate(columns)
    ]
    widths = [max(cell_len(line) for text in texts for line in text.split("\n")) for texts in cells]
    if room is None:
        return widths
    words = [[word for text in texts for word in text.split()] for texts in cells]
    least = [
        max([*map(cell_len, (texts[1:] if column.number else ())), min(max(map(cell_len, some)), _LONGEST_WORD)])
        for column, texts, some in zip(columns, cells, words, strict=True)
    ]
    while sum(widths) > room:
        wide = [i for i, width in enumerate(widths) if width > least[i]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def shorten(text: str, width: int) -> str:
    """The text with its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def _table(
    columns: Sequence[Column],
    rows: list[list[str]],
    total: list[str] | None,
    title: str | None,
    widths: Sequence[int],
    gap: int,
) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        show_footer=total is not None,
        title=title,
        title_justify="left",
    )
    table.show_edge = False
    table.pad_edge = False
    for i, column in enumerate(columns):
        footer = total[i] if total is not None else ""
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(column.header, footer, justify=justify, overflow="fold", width=widths[i])
    for row in rows:
        table.add_row(*row)
    return table


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
        case Tenant():
            return str(value)
        case _:
            return with_config(value)
