"""What SqlSource needs to know of a database product; one implementation for each (sql_postgres.py, sql_sqlite.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnClause, ColumnElement, Connection, Engine, FromClause, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.sources.sql_types import Clock, Kind

__all__ = ["AnyColumn", "Dialect"]

AnyColumn = ColumnClause[Any]


class Dialect(Protocol):
    """Columns are untyped: values arrive as the driver gives them, and no converter can fail on one of them."""

    product: str

    @property
    def place(self) -> str:
        """Where the database is, for messages: host, port and name, or a path; no user, no password."""
        ...

    def engine(self) -> Engine:
        """A new engine whose connections only read. Raises ConfigError where the URL is not one."""
        ...

    def begin(self, connection: Connection) -> Clock:
        """Settings of the transaction that has just begun; its clock."""
        ...

    def bulk(self, connection: Connection) -> None:
        """Records will be read: their texts may come as bytearray, in UTF-8 if they are what they should be."""
        ...

    def version(self, connection: Connection) -> str: ...

    def kind(self, reflected: TypeEngine[Any], declared: str) -> Kind:
        """What a column of this type holds: as SQLAlchemy has it, and by its name in `declared`."""
        ...

    def selected(self, column: AnyColumn, kind: Kind, declared: str = "", *, identity: bool) -> ColumnElement[Any]:
        """The expression whose values `record_batch` understands; of an id, a number or its text."""
        ...

    def text(self, column: AnyColumn) -> ColumnElement[str]:
        """The value's text, compared byte by byte; the very text that the value has as an id, but for those that have
        their own (`sql_keys.has_own_text`)."""
        ...

    def sortable(self, column: AnyColumn) -> ColumnElement[Any]:
        """What sorts any two values that differ, of whatever type the column is."""
        ...

    def among(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        """Whether the value's text is exactly one of `keys`; in a way that an index can serve."""
        ...

    def identified(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        """Whether the value is one that `sql_keys.part_text` makes one of `keys` of; in a way that an index can
        serve. A value of each type that has such a text is found."""
        ...

    def askable(self, column: AnyColumn) -> ColumnElement[bool]:
        """Whether `among` finds the value, which is not null, by its text."""
        ...

    def flagged(self, column: AnyColumn, kind: Kind) -> ColumnElement[bool]:
        """Whether a flag is set: true or false, never null."""
        ...

    def declared(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        """The columns' types as the database names them, a domain's base type; so of an array's items where these name
        objects of the database. Empty where they decide nothing."""
        ...

    def folding(self, connection: Connection, table: str, schema: str | None) -> frozenset[str]:
        """Columns of text whose collation takes different texts for equal; empty where `among` needs not know."""
        ...

    def constrained(self, connection: Connection, table: str, schema: str | None) -> bool:
        """Whether the table's constraints hold for all rows that are read of it."""
        ...

    def limited(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        """The types of columns whose types have a length: varchar(3). Empty where it decides nothing."""
        ...

    def readable(self, connection: Connection, declared: str, limited: str, kind: Kind, text: str) -> bool:
        """Whether a column of this type can hold what the text of a filter means."""
        ...

    def comparable(self, connection: Connection, declared: str, kind: Kind, texts: Sequence[str]) -> bool:
        """Whether `allowed` can be asked of a column of this type."""
        ...

    def orderable(self, connection: Connection, declared: str, kind: Kind) -> bool:
        """Whether values of this type have an order."""
        ...

    def steady(self, connection: Connection, declared: str, kind: Kind) -> bool:
        """Whether a value of this type has the same text in every session."""
        ...

    def allowed(self, column: AnyColumn, declared: str, kind: Kind, texts: Sequence[str]) -> ColumnElement[bool]:
        """Whether the value, which is not null, is one that these texts of a filter mean in such a column."""
        ...

    def can_date(self, kind: Kind) -> bool:
        """Whether a column of this kind can hold modification times."""
        ...

    def undeleted(self, column: AnyColumn) -> ColumnElement[bool]:
        """Whether the column holds no deletion: null, or what an application writes for no time. Never null itself."""
        ...

    def moment(self, column: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """The modification time as a moment (sql_types.py); null if there is none or it cannot be understood;
        `BEYOND` or later where Python cannot count to it."""
        ...

    def worked_out(self, rows: Select[Any]) -> FromClause:
        """These rows, so that a statement over them works out each column once a row where that saves time."""
        ...

    def newest(self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """An aggregate: the last of the column's moments."""
        ...

    def between(
        self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind, first: int, last: int
    ) -> ColumnElement[bool]:
        """Whether the column's moment is one of these, neither before the first nor after the last; by whichever of
        the two costs little."""
        ...

    def order(self, column: AnyColumn) -> ColumnElement[Any]:
        """What sorts rows by their modification time."""
        ...

    def since(
        self, column: AnyColumn, kind: Kind, moment: int, overlap: timedelta, cursor: Kind
    ) -> ColumnElement[bool]:
        """Whether the time is at or after `moment - overlap`, or unknown; -infinity tells nothing either.
        `cursor` is the kind of the column that the moment was taken from: it tells by which clock it goes."""
        ...

    def checksum(self, columns: Sequence[ColumnElement[Any]], live: ColumnElement[bool]) -> ColumnElement[Any]:
        """An aggregate: text that differs where any value of the live rows does, whatever their order."""
        ...

    def translated(self, error: DBAPIError, doing: str) -> VecsyncError:
        """Our error for the driver's: names and codes, nothing of what the driver says."""
        ...
