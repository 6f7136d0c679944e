"""A batch of records, column by column: cleaned values, and for each refused record the first reason why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
from pyarrow import types

from vecsync_dagster.arrays import arrow_array
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents.record_bytes import record_bytes
from vecsync_dagster.documents.render import is_empty
from vecsync_dagster.documents.validation import CONVERTERS, BadValue, clean, clean_any, identity, no_key
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.identity import KEY_NATIVE, KEY_TEXT, OF_MANY, key_text
from vecsync_dagster.numbers import exact_fraction, exact_whole
from vecsync_dagster.unreadable import pylist, reason_in

__all__ = ["CleanBatch", "Cleaner", "Problem", "Records"]

Convert = Callable[[Any], Any]
Refused = Callable[[int, BadValue], object]
"""Told the row of a value that cannot be converted, and why."""


class Problem(NamedTuple):
    """Why a record is refused: the field, and a sentence that names it but not its value."""

    field: str
    reason: str


@dataclass(slots=True)
class Records:
    """A batch of records as the source gave them, column by column: the fields that the entity's configuration
    speaks of. `in_json`: those whose values are text that holds JSON. `keys`, `natives`: the columns
    `identity.KEY_TEXT` and `KEY_NATIVE`, if they are there; they are no fields of the record. `tenants`: the tenant's
    field, where it holds JSON. `parts`: the columns of the key, where some record has no key's text."""

    columns: dict[str, pa.Array]
    in_json: set[str]
    keys: pa.Array | None = None
    natives: pa.Array | None = None
    tenants: pa.Array | None = None
    parts: dict[str, pa.Array] = field(default_factory=dict)
    _values: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def values(self, name: str) -> list[Any]:
        """A column as Python values, made when they are first asked for: most records of most runs never are."""
        if name not in self._values:
            self._values[name] = pylist(self.columns[name])
        return self._values[name]

    def some(self, rows: Sequence[int]) -> Records:
        if len(rows) == len(self):
            return self
        chosen = arrow_array(rows).cast(pa.int64())
        beside = (self.keys, self.natives, self.tenants)
        keys, natives, tenants = (None if one is None else one.take(chosen) for one in beside)
        columns = {name: values.take(chosen) for name, values in self.columns.items()}
        parts = {name: values.take(chosen) for name, values in self.parts.items()}
        return Records(columns, self.in_json, keys, natives, tenants, parts)

    def raw(self) -> list[bytes]:
        """Each record as bytes that change whenever any of its values does, or the type of its key."""
        natives = [] if self.natives is None else [(self.natives, False)]
        return record_bytes([*((values, name in self.in_json) for name, values in self.columns.items()), *natives])

    def ids(self, key: Sequence[str], refused: Refused = lambda _, __: None) -> list[str | None]:
        """The id of each record as a document would have it; None where it has no usable one."""
        if self.keys is not None:
            return _converted(self.keys.to_pylist(), identity, lambda row, why: refused(row, self._no_key(row) or why))
        if len(key) > 1:
            return _converted([self._joined(key, row) for row in range(len(self))], identity, refused)
        [name] = key
        if types.is_signed_integer(self.columns[name].type) and not self.columns[name].null_count:
            return list(map(str, self.values(name)))
        return self.converted(name, identity, refused)

    def _no_key(self, row: int) -> BadValue | None:
        """Why a record without a key's text has none although it has values for it."""
        if self.keys is None or self.keys[row].is_valid:
            return None
        given = False
        for name, column in self.parts.items():
            [value] = pylist(column.slice(row, 1))
            if value is None:
                continue
            try:
                no_key(_parsed(value) if name in self.in_json else value)
            except BadValue as error:
                return error
            given = True
        return BadValue("is no value that a key may have") if given else None

    def of_many(self) -> set[int]:
        """Rows whose tenant is a list or an object: they belong to nobody."""
        texts = [] if self.tenants is None else self.tenants.to_pylist()
        return {row for row, text in enumerate(texts) if text is not None and text[:1] in ("[", "{")}

    def own_keys(self) -> list[str | None]:
        """The key of each record as its source writes it; None where the text says it all."""
        return [None] * len(self) if self.natives is None else self.natives.to_pylist()

    def _joined(self, key: Sequence[str], row: int) -> str | None:
        """The text of a key of several columns, where the source does not give it. None: it has no usable one."""
        try:
            parts = [None if (value := self.values(name)[row]) is None else identity(value) for name in key]
        except BadValue:
            return None
        return None if all(part is None for part in parts) else key_text(parts)

    def converted(self, name: str, convert: Convert, refused: Refused) -> list[Any]:
        return _converted(self.values(name), _from_json(convert) if name in self.in_json else convert, refused)


@dataclass(slots=True)
class CleanBatch:
    """`ids[row]` is None for a record without a usable id; `values[field][row]` is None where the field is
    empty or refused; `problems[row]` is the first thing wrong with the record."""

    ids: list[str | None]
    values: dict[str, list[Any]]
    problems: dict[int, Problem]
    own_keys: list[str | None]
    of_many: set[int]
    _given: Records
    _records: dict[int, dict[str, Any]] = field(default_factory=dict)

    def rows(self, fields: Sequence[str]) -> Iterable[tuple[Any, ...]]:
        """Of each record the values of these fields."""
        return zip(*[self.values[name] for name in fields], strict=True) if fields else repeat((), len(self.ids))

    def record(self, row: int) -> dict[str, Any]:
        """What the source gave; always the same object for one row."""
        if row not in self._records:
            given = self._given
            values = {name: given.values(name)[row] for name in given.columns}
            self._records[row] = {n: _shown(value) if n in given.in_json else value for n, value in values.items()}
        return self._records[row]


class Cleaner:
    """Cleans the fields that an entity's configuration speaks of."""

    def __init__(self, entity_name: str, entity: EntityConfig, *, owned: bool = True) -> None:
        """`owned`: the records are a tenant's, not everybody's."""
        self._entity_name = entity_name
        self._key = entity.key
        self._tenant = entity.tenancy.column if owned and entity.tenancy is not None else None
        self._required = entity.required
        self._converters = {
            name: _of_field(CONVERTERS[entity.types[name]] if name in entity.types else clean_any)
            for name in entity.fields
        }
        # Whole numbers are clean as they are.
        self._may_be_numbers = {name for name in entity.fields if entity.types.get(name) in (None, "number", "integer")}

    def read(self, records: pa.RecordBatch) -> Records:
        """Raises ConfigError if the configuration names a field that the records do not have."""
        if not records.num_columns:  # tombstones alone need no columns
            return Records({name: pa.nulls(0) for name in self._converters}, set())
        self._check(records.schema.names)
        in_json = {f.name for f in records.schema if (f.metadata or {}).get(b"vecsync") == b"json"}
        keys, natives = (
            records.column(name) if name in records.schema.names else None for name in (KEY_TEXT, KEY_NATIVE)
        )
        lost = self._key if keys is not None and keys.null_count else ()
        parts = {name: records.column(name) for name in lost if name in records.schema.names}
        columns = {name: records.column(name) for name in self._converters}
        return Records(columns, in_json, keys, natives, self._tenants(records), parts)

    def _tenants(self, records: pa.RecordBatch) -> pa.Array | None:
        names = records.schema.names
        if self._tenant not in names or records.schema.field(self._tenant).metadata != {b"vecsync": b"json"}:
            return None
        return records.column(self._tenant)

    def clean(self, records: Records) -> CleanBatch:
        problems: dict[int, Problem] = {}

        def refused(name: str, label: str) -> Refused:
            return lambda row, error: problems.setdefault(row, Problem(name, f"{label} {error}"))

        of_many = records.of_many()
        for row in of_many:
            problems[row] = Problem(self._tenant or "", f"{self._tenant} {OF_MANY}")
        ids = records.ids(self._key, refused(", ".join(self._key), "the id"))
        values = {
            name: records.values(name)
            if name in self._may_be_numbers and types.is_signed_integer(records.columns[name].type)
            else records.converted(name, convert, refused(name, name))
            for name, convert in self._converters.items()
        }
        for name in self._required:
            for row, value in enumerate(values[name]):
                if is_empty(value):
                    problems.setdefault(row, Problem(name, f"{name} is required and is empty"))
        return CleanBatch(ids, values, problems, records.own_keys(), of_many, records)

    def _check(self, names: Sequence[str]) -> None:
        missing = [name for name in self._converters if name not in names]
        if missing:
            raise ConfigError(
                f"entities.{self._entity_name}: the records have no field {', '.join(missing)}; "
                f"they have: {', '.join(names)}",
                entity=self._entity_name,
                missing=missing,
            )


def _of_field(convert: Convert) -> Convert:
    """Any value of a field -> what a document holds; empty text is no value."""
    typed = convert is not clean_any

    def converted(value: Any) -> Any:
        if value.__class__ is str:
            value = clean(value)
            return (convert(value) if typed else value) if value else None
        return None if value is None else convert(value)

    return converted


def _converted(values: list[Any], convert: Convert, refused: Refused) -> list[Any]:
    """The whole column at once; where it has bad values, one by one."""
    try:
        return list(map(convert, values))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (found again below, value by value)
        return [_one(row, value, convert, refused) for row, value in enumerate(values)]


def _one(row: int, value: Any, convert: Convert, refused: Refused) -> Any:
    try:
        return convert(value)
    except BadValue as error:
        refused(row, error)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this record's)
        refused(row, BadValue(f"cannot be used ({type(error).__name__})"))
    return None


def _from_json(convert: Convert) -> Convert:
    return lambda text: convert(None if text is None else _parsed(text))


_LONG = re.compile(r"\d[\d.]{14,}\d|\d[eE][+-]?\d{3}")
"""What may be a number that a float does not hold."""


def _parsed(text: str) -> Any:
    if not _LONG.search(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            if (reason := reason_in(text)) is not None:
                raise BadValue(reason) from None
    try:
        # Takes NaN and lone surrogates too, which databases let pass: NaN is refused later by its own name.
        return json.loads(text, parse_int=exact_whole, parse_float=exact_fraction)
    except (ValueError, RecursionError):
        raise BadValue("is not valid JSON") from None


def _shown(text: str | None) -> Any:
    """JSON as what it means; as it stands where it is none that could be written again."""
    try:
        value = None if text is None else _parsed(text)
        clean_any(value)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (what is shown of a bad record must not be another fault)
        return text
    return value
