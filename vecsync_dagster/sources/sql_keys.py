"""Keys of rows: their text, and the condition that finds rows by it.

The text of an integer, text or UUID is what the database writes. A number with decimals, a date and a time have one
text however the database writes them: 7.00 is "7", a time is ISO 8601.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, and_, false, or_

from vecsync_dagster.identity import key_parts, key_text, number_text
from vecsync_dagster.sources.sql_dialect import Dialect
from vecsync_dagster.sources.sql_records import id_text
from vecsync_dagster.sources.sql_types import Kind

__all__ = ["certain", "found_by", "has_own_text", "key_texts", "part_text"]

KeyColumns = Sequence[tuple[ColumnClause[Any], Kind]]


def has_own_text(kind: Kind) -> bool:
    """Whether a key's text is not simply the column's value as a record has it."""
    return kind is Kind.NUMERIC or kind.temporal


def part_text(kind: Kind, value: Any) -> str | None:
    """The text of one column of a key; None where there is no value, or one that cannot be a key (NaN, infinity)."""
    if value is None:
        return None
    text = id_text(value)
    try:
        if kind is Kind.NUMERIC:
            return number_text(Decimal(text))
        if kind is Kind.DATE:
            return date.fromisoformat(text).isoformat()
        if kind is Kind.TIMESTAMP:
            return datetime.fromisoformat(text).isoformat()
        if kind is Kind.TIMESTAMPTZ:
            return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, InvalidOperation):
        return None
    return text


def key_texts(kinds: Sequence[Kind], rows: Iterable[Sequence[Any]]) -> list[str | None]:
    """The text of each row's key, of the values of its columns; None where it has none."""
    [first, *more] = kinds
    if not more:
        return [part_text(first, value) for (value,) in rows]
    return [_joined(kinds, values) for values in rows]


def _joined(kinds: Sequence[Kind], values: Sequence[Any]) -> str | None:
    """A column without a value is a part of the key; one with a value that cannot be a key makes it none."""
    parts = [part_text(kind, value) for kind, value in zip(kinds, values, strict=True)]
    lost = any(part is None and value is not None for part, value in zip(parts, values, strict=True))
    return None if lost or all(part is None for part in parts) else key_text(parts)


def found_by(dialect: Dialect, columns: KeyColumns, keys: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row's key has one of these texts: of several columns, the last one by a list for each value of the
    ones before it, as an index on them serves it."""
    column, kind = columns[-1]
    if len(columns) == 1:
        return dialect.identified(column, kind, keys)
    groups: dict[tuple[str | None, ...], list[str | None]] = {}
    for key in keys:
        parts = key_parts(key, len(columns))
        if parts is not None:
            groups.setdefault(tuple(parts[:-1]), []).append(parts[-1])
    if not groups:
        return false()
    return or_(
        *(
            and_(
                *(_is(dialect, *one, [part]) for one, part in zip(columns, first, strict=False)),
                _is(dialect, column, kind, last),
            )
            for first, last in groups.items()
        )
    )


def _is(dialect: Dialect, column: ColumnClause[Any], kind: Kind, parts: Sequence[str | None]) -> ColumnElement[bool]:
    texts = [part for part in parts if part is not None]
    some = [dialect.identified(column, kind, texts)] if texts else []
    return or_(*some, *([column.is_(None)] if len(texts) < len(parts) else []))


def certain(key: str) -> bool:
    """Whether a look-up by this text finds the row if it is there: not where the text stands for bytes that are no
    UTF-8."""
    return "\ufffd" not in key
