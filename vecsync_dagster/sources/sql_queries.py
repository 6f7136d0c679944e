"""The statements of one entity: built here, run by sql.py. Every one of records is bounded by its tenant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    FromClause,
    Label,
    Select,
    and_,
    case,
    column,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)

from vecsync_dagster.config.entities import Tenancy
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.sources.base import Cursor, Read
from vecsync_dagster.sources.sql_dialect import Dialect
from vecsync_dagster.sources.sql_keys import found_by, has_own_text
from vecsync_dagster.sources.sql_reflection import Reflected
from vecsync_dagster.sources.sql_types import DAY, Clock, Kind, moment_of

__all__ = ["GLOBAL", "Queries"]

GLOBAL = "global"
_PRIME = 2_147_483_647


def _moment_of(name: str) -> str:
    return f"vecsync_moment_of_{name}"


@dataclass(frozen=True)
class Queries:
    """The rows of a statement for records: the record's columns; where the key's text is none of these, the key's
    columns; then the row's moment, then whether it is deleted."""

    dialect: Dialect
    entity: EntityConfig
    reflected: Reflected

    def records(self, what: Read, ids: Sequence[str] | None = None) -> Select[Any]:
        """The rows that `what` asks for, in its order. `ids`: only these, a part of `what.ids`."""
        statement = select(*self._columns).where(self._tenant(what.tenant))
        if ids is not None:
            known = found_by(self.dialect, self.reflected.key_columns, ids)
            return statement.where(known, true() if what.dead else self._live()).order_by(*self._order)
        statement = statement.limit(what.limit).offset(what.offset or None)
        if what.since is None or self.entity.updated_at is None:
            return statement.where(not_(self._live()) if what.dead else self._live()).order_by(*self._order)
        modified = self.dialect.order(self.reflected[self.entity.updated_at]).nulls_last()
        return statement.where(self._modified(what.since, self.entity.updated_at)).order_by(modified, *self._key)

    @property
    def _key(self) -> list[ColumnElement[Any]]:
        return [self.reflected[name] for name in self.reflected.key]

    @cached_property
    def _order(self) -> Sequence[ColumnElement[Any]]:
        """By id; where several rows may have one, these by the table's own key, or else by all that they hold."""
        key = self._key
        if self.reflected.enforced:
            return key
        own: list[ColumnElement[Any]] = [
            column(name) for name in self.reflected.primary if name not in self.reflected.key
        ]
        others = (c.name for c in self.reflected.columns if c.name not in self.reflected.key)
        return [*key, *(own or (self.dialect.sortable(self.reflected[name]) for name in others))]

    def tenants(self) -> Select[str] | None:
        """Keys of tenants, or None where the entity has none."""
        if self.entity.tenancy is None:
            return None
        key = self.reflected[self.entity.tenancy.column]
        return select(self.dialect.text(key)).distinct().where(*self.of_tenants(self.entity.tenancy))

    def of_tenants(self, tenancy: Tenancy) -> tuple[ColumnElement[bool], ...]:
        """Live rows that are one tenant's."""
        key = self.reflected[tenancy.column]
        return key.is_not(None), self.dialect.askable(key), not_(self._flagged()), self._live()

    def count(self, tenant: str) -> Select[int]:
        return self._counted(self._tenant(tenant), self._live())

    @property
    def dated(self) -> dict[str, Kind]:
        """The columns that hold the times of a row."""
        names = (self.entity.updated_at, self.entity.deleted_at)
        return {name: self.reflected.kinds[name] for name in names if name is not None}

    def fingerprints(self, tenant: str | None, clock: Clock, *, ahead: bool = False) -> Select[Any]:
        """Rows of: whether everybody's, the tenant's key, all rows, live ones, checksum of these; and, over all rows,
        of each of `dated` the newest moment; with `ahead` the newest up to the clock, how many lie after it, and a sum
        of these; and, unless there is a checksum, a sum of those from each of `floors` on, up to the next or the
        clock."""
        shared, key = self._owner()
        hashed = [column.name for column in self.reflected.columns] if self.entity.checksum else []
        moments = [
            self.dialect.moment(self.reflected[name], kind).label(_moment_of(name)) for name, kind in self.dated.items()
        ]
        columns = [self.reflected[name] for name in dict.fromkeys([*hashed, *self.dated])]
        rows = self.dialect.worked_out(
            select(shared, key, self._live().label("vecsync_live"), *moments, *columns)
            .select_from(self.reflected.table)
            .where(true() if tenant is None else self._tenant(tenant))
        )
        live = rows.c.vecsync_live
        checksum = self.dialect.checksum([rows.c[name] for name in hashed], live) if hashed else null()
        times = [one for name, kind in self.dated.items() for one in self._times(rows, name, kind, clock, ahead)]
        owner = rows.c[shared.name], rows.c[key.name]
        return select(*owner, func.count(), func.count().filter(live), checksum, *times).group_by(*owner)

    def floors(self, clock: Clock) -> list[int]:
        """The moments from which on recent ones are summed up: two, so that looks have one in common that are no
        further apart than the two are. By day, as dates are; they do not move with the clock, so that a sum does not
        either. Empty where nothing is dated, or a checksum sees more."""
        if self.entity.checksum or not self.dated:
            return []
        step = max(DAY, self.entity.overlap // timedelta(microseconds=1))
        last = clock.of(next(iter(self.dated.values()))) // step
        return [(last - 2) * step, (last - 1) * step]

    def _times(
        self, rows: FromClause, name: str, kind: Kind, clock: Clock, ahead: bool
    ) -> Iterator[ColumnElement[Any]]:
        column, moment, now = rows.c[name], rows.c[_moment_of(name)], clock.of(kind)
        at = literal(now, BigInteger)
        # The remainders add up to no number that is too large, and tell one moment from another all the same.
        total = func.sum(moment % literal(_PRIME, BigInteger))
        if ahead:
            yield func.max(moment).filter(moment <= at)
            yield func.count(moment).filter(moment > at)
            yield total.filter(moment > at)
        else:
            yield self.dialect.newest(column, moment, kind)
        floors = self.floors(clock)
        for first, last in pairwise([*floors, now + 1] if floors else ()):
            yield total.filter(self.dialect.between(column, moment, kind, first, last - 1))

    def _owner(self) -> tuple[Label[bool], Label[Any]]:
        """Whose a row is: whether everybody's, and the tenant's key if not."""
        if self.entity.tenancy is None:
            return literal_column("1 = 1", Boolean()).label("vecsync_shared"), null().label("vecsync_owner")
        column = self.reflected[self.entity.tenancy.column]
        nobody = or_(self._flagged(), not_(self.dialect.askable(column)))
        key = case((nobody, null()), else_=self.dialect.text(column))
        return self._flagged().label("vecsync_shared"), key.label("vecsync_owner")

    def unassigned(self) -> Select[int]:
        if self.entity.tenancy is None:
            return self._counted(false())
        key = self.reflected[self.entity.tenancy.column]
        nobody = or_(key.is_(None), not_(self.dialect.askable(key)))
        return self._counted(nobody, not_(self._flagged()), self._live())

    def there(self, ids: Sequence[str]) -> Select[Any]:
        """The columns of those of these keys that live rows have, whoever's they are."""
        keys = self.reflected.key_columns
        parts = (self.dialect.selected(column, kind, identity=True) for column, kind in keys)
        return select(*parts).where(found_by(self.dialect, keys, ids), self._live())

    def by_rest(self, tenant: str, column: str, rests: Sequence[str]) -> Select[Any]:
        """The column, and those of the key, of live rows of the tenant whose key says one of these without the
        column."""
        reflected, keys = self.reflected, self.reflected.key_columns
        others = [one for name, one in zip(reflected.key, keys, strict=True) if name != column]
        wanted = [(reflected[column], reflected.kinds[column]), *keys]
        parts = (self.dialect.selected(one, kind, identity=True) for one, kind in wanted)
        return select(*parts).where(self._tenant(tenant), found_by(self.dialect, others, rests), self._live())

    def repeated(self, limit: int) -> Select[Any]:
        """The columns of keys that more than one live row has, whoever's they are."""
        keys = self.reflected.key_columns
        there = or_(*(column.is_not(None) for column, _ in keys))
        # What equals another value and has another text is another id.
        groups = [column if has_own_text(kind) else self.dialect.text(column) for column, kind in keys]
        parts = [
            self.dialect.selected(column, kind, identity=True) if has_own_text(kind) else group
            for (column, kind), group in zip(keys, groups, strict=True)
        ]
        found = select(*parts).where(there, self._live()).group_by(*groups).having(func.count() > 1)
        return found.order_by(*groups).limit(limit)

    def sample(self) -> Select[Any]:
        """One row, of anybody: tells whether the columns may be read."""
        return select(*self._selected()).limit(1)

    def _counted(self, *where: ColumnElement[bool]) -> Select[int]:
        return select(func.count()).select_from(self.reflected.table).where(*where)

    def _selected(self) -> list[ColumnElement[Any]]:
        r = self.reflected
        types = [r.declared.get(c.name, "") for c in r.columns]
        return [
            self.dialect.selected(r[c.name], c.kind, declared, identity=c.identity)
            for c, declared in zip(r.columns, types, strict=True)
        ]

    @cached_property
    def _columns(self) -> tuple[ColumnElement[Any], ...]:
        """Built once: to build the moment's expression takes longer than to read a small tenant."""
        keys = () if self.reflected.plain_key else self.reflected.key_columns
        parts = (self.dialect.selected(column, kind, identity=True) for column, kind in keys)
        return (*self._selected(), *parts, self._moment(), self._deleted())

    def _moment(self) -> ColumnElement[Any]:
        name = self.entity.updated_at
        return null() if name is None else self.dialect.moment(self.reflected[name], self.reflected.kinds[name])

    def _deleted(self) -> ColumnElement[Any]:
        plain = self.entity.deleted_at is None and not self.entity.filter
        return literal(0) if plain else not_(self._live())

    def kept_out(self, tenant: str | None) -> Select[int]:
        """One row where the filter keeps a record out that is live otherwise, of the tenant or of anybody."""
        theirs = true() if tenant is None else self._tenant(tenant)
        return select(literal(1)).select_from(self.reflected.table).where(theirs, self._undeleted()).limit(1)

    def _undeleted(self) -> ColumnElement[bool]:
        deleted_at = self.entity.deleted_at
        return true() if deleted_at is None else self.dialect.undeleted(self.reflected[deleted_at])

    def _live(self) -> ColumnElement[bool]:
        """Neither marked as deleted nor kept out by the filter: true or false, never null."""
        return and_(self._undeleted(), *(self._allowed(name, values) for name, values in self.entity.filter.items()))

    def _allowed(self, name: str, values: Sequence[str | None]) -> ColumnElement[bool]:
        """One of the values, each read as the column's type; None is null."""
        column, kind, declared = self.reflected[name], self.reflected.kinds[name], self.reflected.declared.get(name, "")
        texts = [value for value in values if value is not None]
        wanted = and_(column.is_not(None), self.dialect.allowed(column, declared, kind, texts)) if texts else false()
        return wanted if len(texts) == len(values) else or_(column.is_(None), wanted)

    def _flagged(self) -> ColumnElement[bool]:
        flag = self.entity.tenancy.global_flag if self.entity.tenancy is not None else None
        return false() if flag is None else self.dialect.flagged(self.reflected[flag], self.reflected.kinds[flag])

    def _tenant(self, tenant: str) -> ColumnElement[bool]:
        """Whose rows are read: the flag wins over the tenant's column; without tenancy all rows are global."""
        if self.entity.tenancy is None:
            return true() if tenant == GLOBAL else false()
        if tenant == GLOBAL:
            return self._flagged()
        return and_(self.among_tenants(self.entity.tenancy, [tenant]), not_(self._flagged()))

    def among_tenants(self, tenancy: Tenancy, tenants: Sequence[str]) -> ColumnElement[bool]:
        column = tenancy.column
        return self.dialect.among(self.reflected[column], self.reflected.kinds[column], tenants)

    def _modified(self, cursor: Cursor, updated_at: str) -> ColumnElement[bool]:
        """Modified or deleted since the cursor less the overlap, or nobody knows when.

        The deletion's time counts by itself: not every application dates the modification too.
        """
        kinds, deleted_at = self.reflected.kinds, self.entity.deleted_at
        moment = moment_of(cursor.value)

        def since(name: str) -> ColumnElement[bool]:
            column = self.reflected[name]
            return self.dialect.since(column, kinds[name], moment, self.entity.overlap, kinds[updated_at])

        if deleted_at is None:
            return since(updated_at)
        return or_(since(updated_at), and_(self.reflected[deleted_at].is_not(None), since(deleted_at)))
