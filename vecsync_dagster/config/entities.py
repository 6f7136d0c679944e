"""What is synced: entities, their collections and the templates of their texts."""

from __future__ import annotations

import hashlib
import string
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from vecsync_dagster.config.values import CollectionName, Duration, Model, Name, Text
from vecsync_dagster.stores.base import RESERVED_KEYS

__all__ = ["DEFAULT_STORE", "CollectionConfig", "EntityConfig", "FieldType", "NameTable", "Tenancy"]

DEFAULT_STORE: Final = "main"

_NAMES: Final = {"tenancy": {"name"}}
_DECIDE_NOTHING: Final[dict[str, Any]] = {
    "collections": True,
    "overlap": True,
    "checksum": True,
    "writeback": True,
    **_NAMES,
}
_READ: Final = {"source", "table", "id", "tenancy", "updated_at", "deleted_at", "filter"}

FieldType = Literal["number", "integer", "boolean", "string", "datetime"]


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def _key(value: Any) -> Any:
    """One name in a list is that name."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


KeyColumns = Annotated[Text | tuple[Text, ...], BeforeValidator(_key)]


def _written(value: Any) -> Any:
    """A value that came from Python instead of a file, as the file would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, UUID)):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


_Value = Annotated[str, StringConstraints(strip_whitespace=False), BeforeValidator(_written)]
Allowed = Annotated[tuple[_Value | None, ...], BeforeValidator(_listed), Field(min_length=1)]


class NameTable(Model):
    """Another table of the same source (in MongoDB a collection) that has the tenants' names: `column` the name, `id`
    the tenant's id."""

    table: Text
    id: Text = "id"
    column: Text = "name"


def _name(value: Any) -> Any:
    """Told apart here, so that a mistake is said of the one or the other alone."""
    if isinstance(value, dict):
        return NameTable.model_validate(value)
    if value is None or isinstance(value, NameTable) or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError("a column belongs here, or a table of names, like {table: firms, id: id, column: name}")


class Tenancy(Model):
    """Whose a row is: `column` holds the tenant's id, `global_flag` says that everybody may see it.

    `name`: what people call the tenant, shown beside its id: a table of names
    (`{table: firms, id: id, column: name}`), or another column, which full runs alone read again. It decides nothing
    of what is synced.
    """

    column: Text
    global_flag: Text | None = None
    name: Annotated[Text | NameTable | None, BeforeValidator(_name)] = None


class CollectionConfig(Model):
    """`text`: a template or a list of parts ("Features: {functionality}."); a part all of whose fields
    are empty is left out. `payload`: fields copied as they are. `vendor.name` is a field inside another one."""

    text: str | tuple[str, ...]
    payload: tuple[str, ...] = ()
    store: Name = DEFAULT_STORE

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The fields the text is made of, each once, in order."""
        return tuple(dict.fromkeys(name for part in self.parts for name in _fields(part)))

    @field_validator("text", mode="before")
    @classmethod
    def _quoted(cls, text: Any) -> Any:
        parts = text if isinstance(text, (list, tuple)) else [text]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError('put templates in quotes, like "{name} {unit}"; or it is a list of such parts')
        return text

    @field_validator("text")
    @classmethod
    def _template(cls, text: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not [name for part in ((text,) if isinstance(text, str) else text) for name in _fields(part)]:
            raise ValueError("the template names no field; write one as {name}")
        return text

    @field_validator("payload")
    @classmethod
    def _payload(cls, payload: tuple[str, ...]) -> tuple[str, ...]:
        taken = RESERVED_KEYS.intersection(payload)
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))}: vecsync writes these payload keys itself")
        return payload


class EntityConfig(Model):
    """One kind of record: where it comes from, how it is checked, and the collections it feeds.

    `id`: the field that tells the records apart, or a list of those that do so together (`[firm, id]`).

    `filter`: field -> the value, or the list of values, that a record must have to be in the collections
    (`approvalStatus: approved`); one that has another value is gone like a deleted one. A value is its text in the
    file, read as the type of the column; None is no value at all.

    `checksum`: the change sensor lets the database make a checksum of each tenant's records. It sees what count and
    modification time cannot: a row deleted while another came, or dated back; a changed tenant is read in full.

    `writeback` (MongoDB): write the state of each record to its field `syncMetadata`.
    """

    source: Name
    table: Text
    id: KeyColumns = "id"
    type: Name | None = None
    tenancy: Tenancy | None = None
    updated_at: Text | None = None
    deleted_at: Text | None = None
    overlap: Duration = timedelta(minutes=10)
    filter: dict[Text, Allowed] = Field(default_factory=dict)
    checksum: bool = False
    required: tuple[str, ...] = ()
    types: dict[str, FieldType] = Field(default_factory=dict)
    writeback: bool = False
    collections: Annotated[dict[CollectionName, CollectionConfig], Field(min_length=1)]

    @field_validator("id")
    @classmethod
    def _distinct(cls, key: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(key, tuple) and (not key or len(set(key)) < len(key)):
            raise ValueError("a field, or a list of different ones, such as [firm, id]")
        return key

    @property
    def key(self) -> tuple[str, ...]:
        """The fields that tell the records apart."""
        return (self.id,) if isinstance(self.id, str) else self.id

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field of a record the configuration speaks of, each once."""
        names = [*self.key, *self.required, *self.types]
        for collection in self.collections.values():
            names += [*collection.text_fields, *collection.payload]
        return tuple(dict.fromkeys(names))

    def fingerprint(self, collection: str) -> str:
        """A hash of every setting that decides what the documents of a collection are: where it changes, rows
        that did not change need another look."""
        own = self.model_dump_json(exclude=_DECIDE_NOTHING)
        text = f"{own}\n{self.collections[collection].model_dump_json(exclude={'store'})}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def synced_as(self, collection: str) -> str:
        """The fingerprint, and the store: one that takes a collection over, or back, needs another look at all of it.
        The usual store goes without saying, as it always did."""
        store = self.collections[collection].store
        return self.fingerprint(collection) + ("" if store == DEFAULT_STORE else f"@{store}")

    def read_fingerprint(self) -> str:
        """A hash of every setting that decides which rows are a tenant's records."""
        own = self.model_dump_json(include=_READ, exclude=_NAMES)
        return hashlib.sha256(own.encode()).hexdigest()[:16]


def _fields(template: str) -> list[str]:
    """The fields a template names. Raises ValueError for what is no template."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"not a template: {error}; write a field as {{name}}, a brace as {{{{ }}}}") from error
    names = [name for _, name, _, _ in parsed if name is not None]
    # Digits alone are positions to str.format, whatever the record has.
    plain = all(step.replace("_", "a").isalnum() for name in names for step in name.split("."))
    numbered = any(name.isdigit() for name in names)
    if not plain or numbered or any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError("a template holds fields like {name} only, without formats, numbers or indexes")
    return names
