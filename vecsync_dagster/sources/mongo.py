"""A collection of MongoDB as a source: runs the queries of mongo_queries.py, and follows change streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, groupby, islice
from typing import Any

import pyarrow as pa
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from vecsync_dagster.config.models import EntityConfig, MongoSource
from vecsync_dagster.errors import SourceRejected, VecsyncError
from vecsync_dagster.identity import KEY_NATIVE, KEY_TEXT, Key, native_of
from vecsync_dagster.sources.base import REPEATED_LIMIT, Page, Read, Repeated, Rest
from vecsync_dagster.sources.mongo_connection import Connection
from vecsync_dagster.sources.mongo_dotted import Named, dotted, flat_names, refuse_flat, refuse_inner, takes_names
from vecsync_dagster.sources.mongo_keys import among, field_of, is_own, is_unique, key_of, with_keys, written
from vecsync_dagster.sources.mongo_progress import Progress, Shared
from vecsync_dagster.sources.mongo_queries import Queries, Query, both, moment
from vecsync_dagster.sources.mongo_reading import Documents, aggregated
from vecsync_dagster.sources.mongo_stream import Events, Token, drain, has_streams, key_not_told, token_now, token_of
from vecsync_dagster.sources.mongo_tenant_names import names_of_documents, names_of_table
from vecsync_dagster.sources.mongo_values import owner_text, record_batch, value_at
from vecsync_dagster.sources.mongo_writeback import (
    ensure_indexes,
    withdraw,
    withdraw_from,
    without_metadata,
    write_metadata,
)
from vecsync_dagster.sources.sql_types import ahead_of_clock
from vecsync_dagster.sources.tenant_names import greatest

__all__ = ["MongoDbSource"]

IDS_PER_QUERY = 100  # few enough for an index to be used by every server
SAMPLED = 1000
SAME_KEY = 1000  # so many documents of one key are sorted; memory stays bounded
Document = dict[str, Any]
Item = Document | Key
"""A document, or the key of one that is gone."""

_log = logging.getLogger(__name__)


class MongoDbSource:
    """One entity of a database, as the protocol `Source` has it; nothing is opened before it is used.

    A full read is in the order of an id that does not change: every document that is there all the while comes
    once, however long it takes. With change streams an incremental read follows the events since the last one,
    and its last page alone has a cursor; without them it goes by `updated_at`.
    """

    def __init__(self, config: MongoSource, entity: EntityConfig, *, name: str, entity_name: str) -> None:
        self.id_field = field_of(entity.key)
        self._streaming = config.change_stream != "never"
        self.incremental = entity.updated_at is not None or self._streaming
        self._required = config.change_stream == "always"
        self._entity = entity
        self._name = name
        self._entity_name = entity_name
        self._connection = Connection(config, name=name)
        self._tokens: Shared[Token | None] = Shared()
        self._events: Shared[Events] = Shared()
        self._indexed = False

    def fields(self) -> tuple[str, ...]:
        with self._reading("looking the collection up"):
            return (*self._queries.fields, KEY_TEXT, KEY_NATIVE)

    def repeated(self) -> Repeated:
        with self._reading("looking for ids that are not unique") as collection:
            groups = list(aggregated(collection, self._queries.repeated(REPEATED_LIMIT), allowDiskUse=True))
        some = self._queries.named.restored(group["first"] for group in groups)
        keys = [key for document in some if (key := self._queries.key(document)) is not None]
        return Repeated(len(keys), keys[0] if keys else "")

    def there(self, keys: Sequence[str]) -> set[str]:
        with (
            self._reading("looking for documents") as collection,
            self._connection.client.start_session(causal_consistency=True) as session,
            _Reader(collection, session, self._queries) as reader,
        ):
            return reader.there(keys)

    def by_rest(self, tenant: str, column: str, rests: Sequence[str]) -> list[Rest]:
        with (
            self._reading("looking for documents by a part of the key") as collection,
            self._connection.client.start_session(causal_consistency=True) as session,
            _Reader(collection, session, self._queries) as reader,
        ):
            return list(reader.by_rest(tenant, column, rests))

    def unique(self, without: str | None = None) -> bool:
        if without is not None:
            return False  # of a view even `_id` may not be
        with self._reading("looking for a unique index"):
            return self._queries.unique

    def certain(self, key: str) -> bool:
        return native_of(key) is not None

    def tenants(self) -> list[str]:
        return sorted({tenant for tenant, _ in self._owners("listing the tenants") if tenant is not None})

    def tenant_names(self, tenants: Iterable[str]) -> dict[str, str]:
        tenancy = self._entity.tenancy
        if tenancy is None or tenancy.name is None:
            return {}
        wanted = frozenset(tenants)
        with self._reading("reading the names of tenants") as collection:
            if isinstance(tenancy.name, str):
                found = names_of_documents(collection, self._queries, tenancy.column, tenancy.name, wanted)
            else:
                key = f"entities.{self._entity_name}.tenancy.name.table"
                found = names_of_table(self._connection.collection(tenancy.name.table, key), tenancy.name)
            return greatest(found, wanted)

    def count(self, tenant: str) -> int:
        return self._counted(self._queries.tenant(tenant))

    def kept_out(self, tenant: str | None) -> bool:
        if not self._entity.filter:
            return False
        theirs = {} if tenant is None else self._queries.tenant(tenant)
        with self._reading("looking behind the filter") as collection:
            query = both(theirs, self._queries.undeleted())
            return any(True for _ in self._queries.named.found(collection, query, {"_id": 1}, limit=1))

    def unassigned(self) -> int:
        return sum(count for tenant, count in self._owners("counting") if tenant is None)

    def _owners(self, doing: str) -> Iterator[tuple[str | None, int]]:
        """Of each value that the tenant's field has: whose it is, None for nobody's, and how many records have it."""
        tenancy = self._entity.tenancy
        if tenancy is None:
            return
        with self._reading(doing) as collection:
            for group in aggregated(collection, self._queries.owners(tenancy.column), allowDiskUse=True):
                yield owner_text(group["_id"]), group["count"]

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        """Pages of at most `page` documents, tombstones counted in. A read by `ids`, or a part of a full read, has
        no cursor. Raises ValueError where limit, offset or page make no sense."""
        if page < 1 or what.offset < 0 or (what.limit is not None and what.limit < 0):
            raise ValueError("page is at least 1, limit and offset are not negative")
        return self._pages(what, page)

    def lost(self, what: Read, known: Callable[[Sequence[Key]], bool] = lambda _: False) -> str | None:
        token = token_of(what.since)
        if token is None or not self._streaming:
            return self._ahead(what)
        try:
            with self._reading("following the change stream") as collection:
                events = self._events.look(what.tenant, str(token), lambda: drain(collection, token, self._entity.key))
        except VecsyncError:
            return None  # `read` will meet the same error, and say it
        keys = [key for key in events.replaced.values() if key is not None]
        # Where each of them is known, no other one is gone: ids are not handed round but to those that had one.
        if events.lost is None and (len(keys) < len(events.replaced) or (keys and not known(keys))):
            events.lost = key_not_told("replaced", self._entity.key)  # of whichever tenant it was
        return events.lost

    def _ahead(self, what: Read) -> str | None:
        if what.since is None or self._entity.updated_at is None:
            return None
        try:
            with self._reading("asking for the time"):
                now = self._connection.database.command("hello")["localTime"]
            return ahead_of_clock(what.since.value, moment(now) or 0, self._entity.overlap)
        except VecsyncError:
            return None  # `read` will meet the same error, and say it

    # -- writing back ------------------------------------------------------------------------------
    def write_metadata(
        self,
        tenant: str,
        metadata: Mapping[str, Mapping[str, Any]],
        meant: Callable[[pa.RecordBatch], int | None] = lambda _: 0,
    ) -> int:
        with self._reading("writing syncMetadata") as collection:
            if not self._indexed:
                ensure_indexes(collection, list(self._entity.collections))
                self._indexed = True
            return write_metadata(collection, self._queries, tenant, metadata, meant)

    def withdraw_metadata(self, tenant: str) -> int:
        with self._reading("withdrawing syncMetadata") as collection:
            return withdraw(collection, self._queries, tenant)

    def withdraw_from(self, keys: Iterable[str] | None) -> int:
        with self._reading("withdrawing syncMetadata") as collection:
            return withdraw_from(collection, self._queries, keys)

    def without_metadata(self, tenant: str, chunk: int = 500) -> Iterator[list[str]]:
        with self._reading("looking for documents without syncMetadata") as collection:
            yield from without_metadata(collection, self._queries, tenant, chunk)

    def check(self) -> str:
        with self._reading("reading some documents") as collection:
            named = self._queries.named
            some = list(named.restored(named.found(collection, {}, self._queries.projection, limit=SAMPLED)))
            version = self._connection.client.server_info()["version"]
            size = collection.estimated_document_count()
            live = named.count(collection, self._queries.live()) if self._queries.live() else size
            with self._connection.client.start_session() as session:
                streams = self._streaming and self._token(session) is not None
        never = [name for name in self._queries.fields if some and not any(_has(document, name) for document in some)]
        lacking = [name for name in self._entity.key if name in never]
        if lacking:
            raise SourceRejected(
                f"entities.{self._entity_name}.id: no document of {self._entity.table} has the field "
                f"{lacking[0]!r}; for MongoDB's own key write id: _id",
                entity=self._entity_name,
            )
        absent = f"; none of {len(some)} looked at has: {', '.join(never)}" if never else ""
        way = "change stream" if streams else "no change stream"
        wanted = "" if live == size else f", {live} of them live"
        return f"MongoDB {version}, collection {self._entity.table}: {size} documents{wanted}, {way}{absent}"

    def close(self) -> None:
        self.__dict__.pop("_collection", None)
        self.__dict__.pop("_queries", None)
        self._connection.close()

    # -- the server --------------------------------------------------------------------------------
    @cached_property
    def _collection(self) -> Collection[Document]:
        return self._connection.collection(self._entity.table, f"entities.{self._entity_name}.table")

    @cached_property
    def _queries(self) -> Queries:
        """Names with a dot are looked up once: whether a document has one as a field."""
        with self._reading("looking the collection up") as collection:
            plain = Queries(self._entity, unique=is_unique(collection, self._entity.key))
        names = dotted(plain.fields)
        named = Named()
        with self._reading("looking fields with a dot up") as collection:
            if names and takes_names(collection):
                named = Named(names, flat_names(collection, dotted(plain.asked)))
            elif names:
                refuse_flat(collection, names, self._entity_name)
            refuse_inner(collection, plain.asked, named, self._entity_name)
        return Queries(self._entity, named, plain.unique)

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Collection[Document]]:
        with self._connection.translating(f"entity {self._entity_name}: {doing}"):
            yield self._collection

    def _counted(self, whose: Query) -> int:
        with self._reading("counting") as collection:
            return self._queries.named.count(collection, both(whose, self._queries.live()))

    def _token(self, session: ClientSession) -> Token | None:
        """Where the change stream stands; None, from then on, on a server that has none."""
        try:
            return token_now(self._collection, session)
        except OperationFailure as error:
            if self._required or has_streams(error):
                raise
        _log.info("source %s: no change streams; deleted documents are found by full runs", self._name)
        self._streaming = False
        return None

    # -- reading -----------------------------------------------------------------------------------
    def _pages(self, what: Read, page: int) -> Iterator[Page]:
        with (
            self._reading(f"reading collection {self._entity.table}") as collection,
            # Reads of one session see at least what the one before saw, also on a secondary.
            self._connection.client.start_session(causal_consistency=True) as session,
            _Reader(collection, session, self._queries) as reader,
        ):
            token = token_of(what.since) if self._streaming and what.ids is None else None
            events = None if token is None else self._drained(collection, what.tenant, token)
            progress = self._progress(what, session, events)
            items = self._items(reader, what, events)
            while some := list(islice(items, page)):
                yield self._page(some, progress)
            if events is not None and progress.counts:
                yield Page(with_keys(record_batch(self._queries.fields, []), []), cursor=progress.end())

    def _progress(self, what: Read, session: ClientSession, events: Events | None) -> Progress:
        """The clock and the token are taken before anything is read: what is written meanwhile comes after them."""
        progress = Progress(what, self._entity.updated_at)
        if not progress.counts:
            return progress
        now = self._connection.database.command("hello", session=session)["localTime"]
        progress.begin(now, by_events=events is not None)
        if events is not None:
            progress.token = events.token
        elif self._streaming:
            progress.token = self._tokens.take(what.tenant, "dead" if what.dead else "", lambda: self._token(session))
        return progress

    def _drained(self, collection: Collection[Document], tenant: str, token: Token) -> Events:
        events = self._events.take(tenant, str(token), lambda: drain(collection, token, self._entity.key))
        if events.lost is not None:
            raise SourceRejected(f"source {self._name}: {events.lost}; run a full sync")
        return events

    def _items(self, reader: _Reader, what: Read, events: Events | None) -> Iterator[Item]:
        if what.ids is not None:
            found: Iterator[Item] = reader.by_ids(what.tenant, list(dict.fromkeys(what.ids)), dead=what.dead)
        elif events is not None:
            found = reader.by_events(what.tenant, events)
        elif what.since is not None and self._entity.updated_at is not None:
            found = reader.modified(what.tenant, what.since.value, self._entity.updated_at)
        else:
            return reader.all(what.tenant, what.limit, what.offset, dead=what.dead)
        return islice(found, what.offset, None if what.limit is None else what.offset + what.limit)

    def _page(self, items: Sequence[Item], progress: Progress) -> Page:
        documents = [item for item in items if not isinstance(item, Key)]
        live: list[Document] = []
        keys: list[Key | None] = []
        gone: dict[tuple[str, str | None], Key] = {}  # a document that is written meanwhile may come twice
        for item in items:
            key = item if isinstance(item, Key) else self._queries.key(item)
            if not isinstance(item, Key) and self._queries.is_live(item):
                live.append(item)
                keys.append(key)
                if gone and key is not None:
                    gone.pop((key, key.native), None)
            elif key is not None:
                gone[key, key.native] = key
        records = with_keys(record_batch(self._queries.fields, live), keys)
        latest = documents if self._entity.updated_at is not None else ()
        return Page(
            records,
            tuple(gone.values()),
            progress.after((document, self._queries.key(document)) for document in latest),
        )


class _Reader:
    """Documents of one read, in its order; a cursor of the server stands behind them until it ends or is left."""

    def __init__(self, collection: Collection[Document], session: ClientSession, queries: Queries) -> None:
        self._collection = collection
        self._session = session
        self._queries = queries
        self._key = queries.entity.key
        self._open: list[Documents] = []

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for cursor in self._open:
            cursor.close()

    def all(self, tenant: str, limit: int | None, offset: int, *, dead: bool) -> Iterator[Item]:
        live = self._queries.live()
        if limit == 0 or (dead and not live):  # no limit at all, to the server
            return
        whose = both(self._queries.tenant(tenant), {"$nor": [live]} if dead else live)
        yield from self._in_order(self._found(whose, self._key, limit or 0, offset))

    def modified(self, tenant: str, since: str, updated_at: str) -> Iterator[Item]:
        """The server sorts documents without a time first: they are asked for on their own, and come last."""
        start = self._queries.start(since)
        whose = self._queries.tenant(tenant)
        dated = self._found(both(whose, self._queries.dated(updated_at, start)), [updated_at, *self._key])
        undated = self._found(both(whose, self._queries.undated(updated_at, start)), self._key)
        return chain((item for item in dated if self._queries.is_due(item, start)), undated)

    def by_ids(self, tenant: str, ids: Sequence[str], *, dead: bool) -> Iterator[Item]:
        """In chunks of ids as they were given. What is not found by the key itself is looked for by its text."""
        whose = both(self._queries.tenant(tenant), {} if dead else self._queries.live())
        for start in range(0, len(ids), IDS_PER_QUERY):
            some = ids[start : start + IDS_PER_QUERY]
            met = set()
            for key, document in self._with_keys([key for key in some if native_of(key) is not None], whose):
                met.add(key)
                yield document
            for _, document in self._with_keys([str(key) for key in some if key not in met], whose):
                yield document

    def there(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys that live documents have, whoever's they are."""
        found: set[str] = set()
        for start in range(0, len(keys), IDS_PER_QUERY):
            some = keys[start : start + IDS_PER_QUERY]
            found.update(key for key, _ in self._with_keys([*some, *map(str, some)], self._queries.live()))
        return found

    def by_rest(self, tenant: str, column: str, rests: Sequence[str]) -> Iterator[Rest]:
        others = [name for name in self._key if name != column]
        whose = both(self._queries.tenant(tenant), self._queries.live())
        for start in range(0, len(rests), IDS_PER_QUERY):
            wanted = set(some := rests[start : start + IDS_PER_QUERY])
            for document in self._found(both(among(others, some, self._queries.where), whose), self._key):
                key, rest = self._queries.key(document), key_of(document, others)
                part = key_of(document, (column,))
                if key is not None and rest is not None and rest in wanted:
                    yield Rest(str(rest), None if part is None else str(part), key)

    def _with_keys(self, keys: Sequence[str], whose: Query) -> Iterator[tuple[str, Document]]:
        wanted = set(keys)
        found = self._found(both(self._queries.among(keys), whose), self._key) if keys else iter(())
        for document in self._in_order(found):
            key = self._queries.key(document)
            if key is not None and key in wanted:
                yield key, document

    def by_events(self, tenant: str, events: Events) -> Iterator[Item]:
        """What the documents of these events are now; of those that the tenant does not have, the text of the id."""
        found = {} if is_own(self._key) else self._keys_of(list(events.keys.values()))
        keys = [*events.gone.values(), *(key for native, key in found.items() if native not in events.gone)]
        for start in range(0, len(keys), IDS_PER_QUERY):
            missing = {key.native: key for key in keys[start : start + IDS_PER_QUERY]}
            theirs = both(self._queries.among(missing.values()), self._queries.tenant(tenant))
            for document in self._in_order(self._found(theirs, self._key)):
                key = self._queries.key(document)
                if key is not None:
                    missing.pop(key.native, None)
                yield document
            yield from missing.values()

    def _keys_of(self, ids: Sequence[Any]) -> dict[str | None, Key]:
        """The keys of documents by their `_id`. One that is deleted by now will be an event of the next read."""
        found: dict[str | None, Key] = {}
        for start in range(0, len(ids), IDS_PER_QUERY):
            some = {"_id": {"$in": ids[start : start + IDS_PER_QUERY]}}
            for document in self._found(some, (), projection=self._queries.key_projection):
                key = self._queries.key(document)
                if key is not None:
                    found[key.native] = key
        return found

    def _in_order(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Documents sorted by their keys; where several have one, by `_id`: the server's order of them is any."""
        if self._queries.unique:
            yield from documents
            return
        for _, same in groupby(documents, lambda document: self._queries.key(document) or object()):
            while some := list(islice(same, SAME_KEY)):
                yield from sorted(some, key=lambda document: written(document["_id"]))

    def _found(
        self, query: Query, order: Sequence[str], limit: int = 0, offset: int = 0, projection: Document | None = None
    ) -> Iterator[Document]:
        named = self._queries.named
        wanted = self._queries.projection if projection is None else projection
        cursor = named.found(
            self._collection, query, wanted, order=order, limit=limit, offset=offset, session=self._session
        )
        self._open.append(cursor)
        yield from named.restored(cursor) if named.aliases else cursor
        self._open.remove(cursor)


def _has(document: Document, name: str) -> bool:
    return value_at(document, name) is not None
