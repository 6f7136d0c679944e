"""Tables that stay readable at 100 columns: empty columns left out. Nothing is cut: somebody may have to type it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from vecsync_dagster.cli.output import with_config

__all__ = ["Column", "print_table", "shorten"]

Cell = str | int | float | datetime | None
_LONGEST_WORD = 24


@dataclass(frozen=True, slots=True)
class Column:
    """`rare`: left out where every value is empty or zero. `optional`: the same, but only if the table is too
    wide otherwise. `repeats`: its values stand in another column too, so that it goes then as well."""

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
    usual = [i for i, column in enumerate(columns) if i in filled or not column.rare]
    least = [i for i in usual if not columns[i].repeats and (i in filled or not columns[i].optional)]
    for kept, gap, whole in ((usual, 2, True), (least, 2, True), (least, 2, False), (least, 1, False)):
        chosen = [columns[i] for i in kept]
        texts = [[_text(row[i]) for i in kept] for row in rows]
        last = None if total is None else [_text(total[i]) for i in kept]
        room = console.width - gap * (len(chosen) - 1)
        widths = _widths(chosen, texts, last)
        if not whole:
            widths = _widths(chosen, texts, last, room)
        if sum(widths) <= room:
            console.print(_table(chosen, texts, last, title, widths, gap))
            return
    _print_lists(console, chosen, texts, last, title)


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
    widths = [max(map(cell_len, texts)) for texts in cells]
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
        case _:
            return with_config(value)
