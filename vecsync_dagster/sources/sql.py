"""A table or view of PostgreSQL or SQLite as a source: runs the statements of sql_queries.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import compress, islice
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from vecsync_dagster.config.entities import NameTable
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.errors import SourceRejected, VecsyncError
from vecsync_dagster.identity import KEY_TEXT, Key, as_storable, key_parts
from vecsync_dagster.sources.base import REPEATED_LIMIT, Cursor, Fingerprint, Page, Read, Repeated, Rest
from vecsync_dagster.sources.sql_dialect import Dialect
from vecsync_dagster.sources.sql_keys import certain, found_by, key_texts, part_text
from vecsync_dagster.sources.sql_looks import look_at
from vecsync_dagster.sources.sql_queries import GLOBAL, Queries
from vecsync_dagster.sources.sql_records import Values, id_text, record_batch
from vecsync_dagster.sources.sql_reflection import Reflected, reflect
from vecsync_dagster.sources.sql_tenant_names import names_statement
from vecsync_dagster.sources.sql_types import BEYOND, Clock, Kind, ahead_of_clock, moment_of, text_of
from vecsync_dagster.sources.tenant_names import greatest

__all__ = ["SqlSource"]

_log = logging.getLogger(__name__)

IDS_PER_STATEMENT = 500
NAMES_AT_ONCE = 1000
_CLOCK_S = 60.0
KEYS_PER_STATEMENT = 100  # of several columns: SQLite takes no more than 1,000 conditions

_DENIED = "42501"  # the SQLSTATE of insufficient privileges


class SqlSource:
    """One entity of a database, as the protocol `Source` has it; nothing is opened before it is used.

    A record has the columns that the configuration names, not the table's others: `fields()`.
    A read holds one read-only transaction until its iterator ends or is closed.
    """

    def __init__(self, dialect: Dialect, entity: EntityConfig, *, name: str, entity_name: str) -> None:
        self.id_field = entity.id if isinstance(entity.id, str) else KEY_TEXT
        self.incremental = entity.updated_at is not None
        self._dialect = dialect
        self._entity = entity
        self._synced: Callable[[], Sequence[tuple[str, str]]] | None = None
        self._name = name
        self._entity_name = entity_name
        self._clock: tuple[float, Clock] | None = None

    def fields(self) -> tuple[str, ...]:
        names = tuple(column.name for column in self._reflected.columns)
        return names if self._reflected.plain_key else (*names, KEY_TEXT)

    @property
    def place(self) -> tuple[str | None, str]:
        """Schema and name of the table, as the database has them. Raises Source* errors."""
        table = self._reflected.table
        return table.schema, table.name

    def tenants(self) -> list[str]:
        statement = self._queries.tenants()
        if statement is None:
            return []
        with self._transaction("listing the tenants") as (connection, _):
            return sorted(map(str, connection.execute(statement).scalars()))

    def tenant_names(self, tenants: Iterable[str]) -> dict[str, str]:
        tenancy = self._entity.tenancy
        if tenancy is None or tenancy.name is None:
            return {}
        queries, key = self._queries, f"entities.{self._entity_name}.tenancy.name"
        table = tenancy.name.table if isinstance(tenancy.name, NameTable) else self._entity.table
        wanted = frozenset(tenants)
        with self._transaction("reading the names of tenants", table) as (connection, _):
            statement = names_statement(connection, queries, tenancy, tenancy.name, wanted, key)
            with connection.execute(statement, execution_options={"yield_per": NAMES_AT_ONCE}) as rows:
                return greatest(((str(tenant), str(name)) for tenant, name in rows), wanted)

    def count(self, tenant: str) -> int:
        statement = self._queries.count(tenant)
        with self._transaction("counting") as (connection, _):
            return connection.execute(statement).scalar_one()

    def unassigned(self) -> int:
        statement = self._queries.unassigned()
        with self._transaction("counting") as (connection, _):
            return connection.execute(statement).scalar_one()

    def kept_out(self, tenant: str | None) -> bool:
        if not self._entity.filter:
            return False
        with self._transaction("looking behind the filter") as (connection, _):
            return connection.execute(self._queries.kept_out(tenant)).first() is not None

    def fingerprints(self, tenant: str | None = None) -> dict[str, Fingerprint]:
        with self._transaction("looking for changes") as (connection, clock):
            return look_at(connection, self._queries, tenant, clock)

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        """Pages of at most `page` rows, tombstones counted in. A read by `ids`, or a part of a full read,
        has no cursor. Raises ValueError where limit, offset or page make no sense."""
        if page < 1 or what.offset < 0 or (what.limit is not None and what.limit < 0):
            raise ValueError("page is at least 1, limit and offset are not negative")
        return self._pages(what, page)

    def lost(self, what: Read, known: Callable[[Sequence[Key]], bool] = lambda _: False) -> str | None:
        if what.since is None or self._entity.updated_at is None:
            return None
        try:
            clock = self._now().of(self._reflected.kinds[self._entity.updated_at])
            return ahead_of_clock(what.since.value, clock, self._entity.overlap)
        except VecsyncError:
            return None  # `read` will meet the same error, and say it

    def _now(self) -> Clock:
        """The database's clock, asked for once in a while."""
        if self._clock is None or time.monotonic() - self._clock[0] > _CLOCK_S:
            with self._transaction("asking for the time"):
                pass
        asked, clock = self._clock or (0.0, Clock(0, 0))
        passed = int((time.monotonic() - asked) * 1_000_000)
        return Clock(clock.absolute + passed, clock.local + passed)

    def widen(self, synced: Callable[[], Sequence[tuple[str, str]]]) -> None:
        """To be said before anything is read, if the configuration names no key: the tenant's column and the id are the
        key where they are the table's own primary key. `synced` is asked when the table is looked up: tenants and keys
        of some of what is synced already. That stays known as it is, whatever becomes of the primary key."""
        self._synced = synced

    def key(self) -> Sequence[str]:
        return self._reflected.key

    def repeated(self) -> Repeated:
        reflected = self._reflected
        primary = reflected.primary if set(reflected.primary) != set(reflected.key) else ()
        if reflected.enforced:
            return Repeated(enforced=True)
        with self._transaction("looking for ids that are not unique") as (connection, _):
            rows = connection.execute(self._queries.repeated(REPEATED_LIMIT)).all()
        texts = [text for text in key_texts([kind for _, kind in reflected.key_columns], rows) if text is not None]
        return Repeated(len(texts), texts[0] if texts else "", primary)

    def there(self, keys: Sequence[str]) -> set[str]:
        kinds, step = [kind for _, kind in self._reflected.key_columns], self._ids_per_statement
        found: set[str] = set()
        with self._transaction("looking for records") as (connection, _):
            for start in range(0, len(keys), step):
                rows = connection.execute(self._queries.there(keys[start : start + step])).all()
                found.update(text for text in key_texts(kinds, rows) if text is not None)
        return found

    def by_rest(self, tenant: str, column: str, rests: Sequence[str]) -> list[Rest]:
        reflected = self._reflected
        own, kinds = reflected.kinds[column], [kind for _, kind in reflected.key_columns]
        places = [place for place, name in enumerate(reflected.key) if name != column]
        step = IDS_PER_STATEMENT if len(places) == 1 else KEYS_PER_STATEMENT
        found: list[Rest] = []
        with self._transaction("looking for records by a part of the key") as (connection, _):
            for start in range(0, len(rests), step):
                some = rests[start : start + step]
                wanted = set(some)
                rows = connection.execute(self._queries.by_rest(tenant, column, some)).all()
                texts = key_texts(kinds, [row[1:] for row in rows])
                others = key_texts([kinds[place] for place in places], [[row[1 + at] for at in places] for row in rows])
                found += [
                    Rest(rest, part_text(own, row[0]), Key(text))
                    for row, rest, text in zip(rows, others, texts, strict=True)
                    if rest in wanted and text is not None
                ]
        return found

    def unique(self, without: str | None = None) -> bool:
        if without is None:
            return self._reflected.enforced
        primary = self._reflected.primary  # a unique index may have nulls
        return bool(primary) and {*primary} <= {*self._reflected.key} - {without}

    def certain(self, key: str) -> bool:
        return certain(key)

    def check(self) -> str:
        reflected = self._reflected
        with self._transaction("reading one row") as (connection, _):
            connection.execute(self._queries.sample()).all()
            version = self._dialect.version(connection)
        return (
            f"{self._dialect.product} {version}, table {self._entity.table}: "
            f"{reflected.width} columns, {reflected.declared_id}"
        )

    def close(self) -> None:
        engine = self.__dict__.pop("_engine", None)
        if engine is not None:
            engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        return self._dialect.engine()

    @cached_property
    def _reflected(self) -> Reflected:
        found = self._reflect()
        tenancy = self._entity.tenancy
        if self._synced is None or tenancy is None or tenancy.column in found.key:
            return found
        declared = set(found.primary) == {tenancy.column, *found.key} and not found.enforced
        synced = self._synced()  # others are asked: no transaction is open meanwhile
        key = self._key_of(synced, found, tenancy.column) if synced else found.primary if declared else None
        if key is None:
            return found
        self._entity = self._entity.model_copy(update={"id": key})
        self.id_field = KEY_TEXT
        if not declared:
            _log.warning(
                "entities.%s: what is synced is known by (%s), which is not the primary key of table %s any more. It "
                "stays known by that: write id: [%s]",
                *(self._entity_name, ", ".join(key), self._entity.table, ", ".join(key)),
            )
        return self._reflect()

    def _key_of(
        self, synced: Sequence[tuple[str, str]], found: Reflected, tenant_column: str
    ) -> tuple[str, ...] | None:
        """The tenant's column and the id, in the order in which these keys have them; None where the keys are those of
        the id alone. They may look like both: then it is what finds more rows."""
        [own] = found.key
        keys = [(tenant, key_parts(key, 2)) for tenant, key in synced]
        orders = [
            order
            for place, order in enumerate([(tenant_column, own), (own, tenant_column)])
            if all(parts and (tenant == GLOBAL or parts[place] == tenant) for tenant, parts in keys)
        ]
        if not orders:
            return None
        wide = found.primary if found.primary in orders else orders[0]
        texts = [key for _, key in synced]
        with self._transaction("looking for what is synced") as (connection, _):
            narrow_rows, wide_rows = (self._rows_of(connection, found, one, texts) for one in ((own,), wide))
        return None if narrow_rows > wide_rows else wide

    def _rows_of(self, connection: Connection, found: Reflected, key: Sequence[str], texts: Sequence[str]) -> int:
        columns = [(found[name], found.kinds[name]) for name in key]
        rows = select(func.count()).select_from(found.table).where(found_by(self._dialect, columns, texts))
        return connection.execute(rows).scalar_one()

    def _reflect(self) -> Reflected:
        with self._transaction("looking the table up") as (connection, _):
            return reflect(connection, self._dialect, self._entity, self._entity_name)

    @cached_property
    def _queries(self) -> Queries:
        return Queries(self._dialect, self._entity, self._reflected)

    @contextmanager
    def _transaction(self, doing: str, table: str | None = None) -> Iterator[tuple[Connection, Clock]]:
        """One read-only snapshot, of the entity's table if not of another `table`. The one place where a driver's error
        becomes ours."""
        try:
            with self._engine.connect() as connection, connection.begin():
                clock = self._dialect.begin(connection)
                self._clock = (time.monotonic(), clock)
                yield connection, clock
        except DBAPIError as error:
            where = f"entity {self._entity_name}, source {self._name}: {doing}"
            if getattr(error.orig, "sqlstate", None) == _DENIED:
                where = f"{where}, table {table or self._entity.table}"
            # The driver's text may quote a row's value: it is not chained.
            raise self._dialect.translated(error, where) from None
        except UnicodeDecodeError:
            raise SourceRejected(f"entity {self._entity_name}, source {self._name}: text that is no UTF-8") from None

    def _pages(self, what: Read, page: int) -> Iterator[Page]:
        kind = self._reflected.kinds[self._entity.updated_at] if self._entity.updated_at is not None else None
        with self._transaction(f"reading table {self._entity.table}") as (connection, clock):
            self._dialect.bulk(connection)
            progress = _Progress(what, clock, kind)
            chunks = self._all(connection, what, page) if what.ids is None else self._by_ids(connection, what, page)
            # Closed before the connection is, also when the reader stops in the middle.
            with closing(chunks):
                for rows in chunks:
                    yield self._page(rows, progress)

    def _all(self, connection: Connection, what: Read, page: int) -> Generator[Sequence[Sequence[Any]], None, None]:
        # yield_per makes PostgreSQL keep the rows behind a cursor of its own.
        with connection.execute(self._queries.records(what), execution_options={"yield_per": page}) as result:
            yield from result.partitions()

    def _by_ids(self, connection: Connection, what: Read, page: int) -> Generator[Sequence[Sequence[Any]], None, None]:
        """In chunks of ids as they were given, each chunk in the order of ids."""
        ids = list(dict.fromkeys(what.ids or ()))
        step = min(page, self._ids_per_statement)
        rows = (
            row
            for start in range(0, len(ids), step)
            for row in connection.execute(self._queries.records(what, ids[start : start + step]))
        )
        wanted = islice(rows, what.offset, None if what.limit is None else what.offset + what.limit)
        while chunk := list(islice(wanted, page)):
            yield chunk

    @property
    def _ids_per_statement(self) -> int:
        return IDS_PER_STATEMENT if len(self._reflected.key) == 1 else KEYS_PER_STATEMENT

    def _page(self, rows: Sequence[Sequence[Any]], progress: _Progress) -> Page:
        *values, moments, deleted = zip(*rows, strict=True)
        keys: Values = values[0]
        if not (plain := self._reflected.plain_key):
            width, kinds = len(self._reflected.columns), [kind for _, kind in self._reflected.key_columns]
            values, parts = values[:width], values[width:]
            keys = key_texts(kinds, zip(*parts, strict=True))
        cursor = progress.after(keys, moments)
        gone: tuple[str, ...] = ()
        if any(deleted):
            last = {id_text(key): dead for key, dead in zip(keys, deleted, strict=True) if key is not None}
            gone = tuple(text for text, dead in last.items() if dead)
            live = [not dead for dead in deleted]
            keys = tuple(compress(keys, live))
            values = [tuple(compress(column, live)) for column in values]
        records = record_batch(self._reflected.columns, values)
        return Page(records if plain else records.append_column(KEY_TEXT, pa.array(keys, pa.string())), gone, cursor)


class _Progress:
    """The cursor as the pages go by: the latest moment so far that is not after the clock at the start; where all are,
    the clock. Rows dated after it move no cursor, or what is dated between the others and the clock would not be read;
    they are read each time."""

    def __init__(self, what: Read, clock: Clock, kind: Kind | None) -> None:
        self._kind = kind
        self._counts = what.goes_on
        self._clock = clock.of(kind) if kind is not None else 0
        self._latest: int | None = None
        self._id = ""
        self._ahead = False
        if kind is not None and what.since is not None:
            self._latest, self._id = moment_of(what.since.value), what.since.id

    def after(self, ids: Values, moments: Values) -> Cursor | None:
        """The cursor once the rows of these ids and moments are applied too; None if this read has none."""
        if self._kind is None or not self._counts:
            return None
        dated = [moment for moment in moments if moment is not None and moment < BEYOND]
        latest = max(dated, default=None)
        if latest is not None and latest > self._clock:
            self._ahead = True
            latest = max((moment for moment in dated if moment <= self._clock), default=None)
        if latest is not None and (self._latest is None or latest >= self._latest):
            self._latest = latest
            self._id = as_storable(id_text(ids[-1 - moments[::-1].index(latest)]))
        if self._latest is None and not self._ahead:
            return None
        zone = self._kind not in (Kind.TIMESTAMP, Kind.DATE)
        reached = self._clock if self._latest is None else min(self._latest, self._clock)
        return Cursor(text_of(reached, zone=zone), self._id)
