"""The documents of a partition: which the store holds, with which hashes, seen when, failed how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Delete, Row, Update

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.identity import Key, key_without
from vecsync_dagster.ledger import document_statements as statements
from vecsync_dagster.ledger.base import Confirmed, Failed, LedgerRow, Owned, Recognised
from vecsync_dagster.ledger.part import LedgerPart, chunks, clean
from vecsync_dagster.ledger.partition_statements import FORMERS, place
from vecsync_dagster.ledger.record_states import FORMER
from vecsync_dagster.ledger.retention import forget_unneeded
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import GLOBAL

__all__ = ["Documents"]

T = TypeVar("T", Confirmed, Failed)

_RESTS_AT_ONCE = 10
"""Every tenant may have a document for each."""


class Documents(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def rows(self, entity: str, collection: str, ids: Sequence[str], started_at: datetime) -> dict[str, LedgerRow]:
        values = {**_collection(entity, collection), "started_at": started_at}
        statement = statements.rows(self.database.dialect)
        found: dict[str, LedgerRow] = {}
        with self.database.read() as connection:
            for some in chunks(ids):
                for row in connection.execute(statement, {**values, "ids": some}).all():
                    known = found[row[1]] = LedgerRow(*row[:-2])
                    known.key = Key(*row[-2:])
        return found

    def namesakes(
        self, entity: str, collection: str, tenant: str, keys: Iterable[str], *, most: int | None = None
    ) -> Iterator[dict[str, Owned]]:
        rests = list(dict.fromkeys(rest for key in keys if (rest := _rest(key, tenant)) is not None))
        values = place(entity, collection, tenant)
        if most is not None and rests:
            with self.database.read() as connection:
                few = {**values, "ids": rests, "most": most}
                rests = list(connection.scalars(statements.rare_rests(self.database.dialect), few))
        statement = statements.namesakes(self.database.dialect)
        for some in chunks(rests, _RESTS_AT_ONCE):
            with self.database.read() as connection:
                found = _owned(connection.execute(statement, {**values, "ids": some}).all())
            if found:
                yield found

    def formers_of(self, entity: str, collection: str, tenant: str, keys: Iterable[str]) -> dict[str, Owned]:
        values = place(entity, collection, tenant)
        statement = statements.formers_of(self.database.dialect)
        found: dict[str, Owned] = {}
        with self.database.read() as connection:
            for some in chunks(list(dict.fromkeys(map(str, keys)))):
                found |= _owned(connection.execute(statement, {**values, "ids": some}).all())
        return found

    @contextmanager
    def _writing(self, entity: str, tenant: str) -> Iterator[Connection]:
        """A transaction about the tenant's documents. See `_require_held`."""
        self._require_held(entity, tenant)
        with self.database.write() as connection:
            yield connection

    def confirm(
        self,
        entity: str,
        collection: str,
        tenant: str,
        space: Space,
        writes: Sequence[Confirmed],
        seen_at: datetime,
        *,
        moved: bool = False,
    ) -> list[str]:
        """Raises LedgerRejected where another entity has rows of these ids in the collection."""
        common = {**_columns(entity, collection, tenant, space), "seen_at": seen_at, "now": self._now()}
        statement = statements.confirm(self.database.dialect, moved)
        refused: list[str] = []
        with self._writing(entity, tenant) as connection:
            for some in chunks(_in_order(writes)):
                rows = [_written(write, tenant) for write in some]
                if connection.execute(statement, {**common, "writes": rows}).rowcount < len(rows):
                    refused += self._of_others(connection, entity, collection, tenant, some)
        return refused

    def _of_others(
        self, connection: Connection, entity: str, collection: str, tenant: str, writes: Sequence[Confirmed]
    ) -> list[str]:
        """Which of these documents are another tenant's. Raises LedgerRejected where they are another entity's."""
        values = {"of_collection": collection, "ids": [write.document_id for write in writes]}
        found = connection.execute(statements.owners(self.database.dialect), values).all()
        for _, owner, _ in found:
            if owner != entity:
                raise _of_another_entity(entity, collection, owner)
        return [document_id for document_id, _, whose in found if whose != tenant]

    def fail(
        self, entity: str, collection: str, tenant: str, space: Space, failures: Sequence[Failed], seen_at: datetime
    ) -> None:
        """A row of another tenant whose point the store holds is left alone: that is still where the point
        is, and that tenant's next full run removes both."""
        common = {
            **_columns(entity, collection, tenant, space),
            **_times(self._now(), seen_at),
            "status": "failed",
            "vector_version": 0,
        }
        statement = statements.fail(self.database.dialect)
        with self._writing(entity, tenant) as connection:
            for some in chunks(_in_order(failures)):
                connection.execute(statement, [common | _failed(failure) for failure in some])

    def recognise(
        self,
        entity: str,
        collection: str,
        tenant: str,
        space: Space,
        record_hashes: Mapping[str, str],
        started_at: datetime,
    ) -> Recognised:
        values = {**place(entity, collection, tenant), "of_space": str(space), "started_at": started_at}
        statement = statements.recognise(self.database.dialect)
        found = Recognised([], set())
        with self.database.read() as connection:
            for some in chunks(list(record_hashes.items())):
                numbers, others = connection.execute(statement, {**values, "hashes": dict(some)}).one()
                found.numbers.extend(numbers or ())
                found.others.update(others or ())
        return found

    def touch(
        self, entity: str, collection: str, tenant: str, record_hashes: Mapping[str, str | None], seen_at: datetime
    ) -> None:
        values = {**place(entity, collection, tenant), "seen_at": seen_at, "now": self._now()}
        statement = statements.touch(self.database.dialect)
        with self._writing(entity, tenant) as connection:
            for some in chunks(list(record_hashes.items())):
                connection.execute(statement, {**values, "hashes": dict(some)})
            if connection.execute(statements.ANY_STALE, values).first():
                _write(connection, statements.freshen(self.database.dialect), list(record_hashes), values)

    def keep_texts(
        self, entity: str, collection: str, tenant: str, space: Space, texts: Mapping[str, tuple[str, bool]]
    ) -> None:
        values = {**place(entity, collection, tenant), "of_space": str(space)}
        statement = statements.keep_texts(self.database.dialect)
        with self._writing(entity, tenant) as connection:
            for cut in (False, True):
                hashes = [(identity, text) for identity, (text, truncated) in texts.items() if truncated is cut]
                for some in chunks(hashes):
                    connection.execute(statement, {**values, "cut": int(cut), "hashes": dict(some)})

    def mark_stale(
        self, entity: str, collection: str, tenant: str, ids: Sequence[str], code: str, error: str, seen_at: datetime
    ) -> int:
        values = {
            **place(entity, collection, tenant),
            "code": code,
            "error": clean(error),
            "seen_at": seen_at,
            "now": self._now(),
        }
        unique = list(dict.fromkeys(ids))
        with self._writing(entity, tenant) as connection:
            return _write(connection, statements.mark_stale(self.database.dialect), unique, values)

    def keep_former(
        self, entity: str, collection: str, tenant: str, keys: Mapping[str, Key], error: str, seen_at: datetime
    ) -> None:
        if not keys:
            return
        told = {"code": FORMER, "error": clean(error), "seen_at": seen_at, "now": self._now()}
        values = {**place(entity, collection, tenant), **told}
        with self._writing(entity, tenant) as connection:
            for some in chunks(sorted(keys.items())):
                rows = [
                    {**values, "of_document": i, "key": str(key), "native": key.native, "rest": _rest(key, tenant)}
                    for i, key in some
                ]
                connection.execute(statements.keep_former(), rows)

    def formers(self, entity: str, collection: str, tenant: str) -> list[str]:
        with self.database.read() as connection:
            return sorted(connection.scalars(FORMERS, place(entity, collection, tenant)))

    def forget(
        self, entity: str, collection: str, tenant: str, ids: Sequence[str], *, with_vectors: bool = False
    ) -> None:
        values = place(entity, collection, tenant)
        dialect = self.database.dialect
        with self._writing(entity, tenant) as connection:
            for some in chunks(ids):
                given = {**values, "ids": some}
                if with_vectors:
                    texts = connection.execute(statements.texts(dialect), given).all()
                else:
                    texts = []
                    connection.execute(statements.leave_vectors(dialect), given)
                connection.execute(statements.forget(dialect), given)
                forget_unneeded(connection, (entity, collection, tenant), [(space, text) for space, text in texts])


def _write(connection: Connection, statement: Update | Delete, ids: Sequence[str], values: Mapping[str, Any]) -> int:
    """The statement for those ids, in chunks; returns how many rows it met."""
    return sum(connection.execute(statement, {**values, "ids": some}).rowcount for some in chunks(ids))


def _in_order(writes: Sequence[T]) -> list[T]:
    """By key: two writers of the same rows then wait for each other instead of deadlocking."""
    return sorted(writes, key=lambda write: write.document_id)


def _of_another_entity(entity: str, collection: str, owner: str) -> LedgerRejected:
    return LedgerRejected(
        f"collection {collection}: documents of entity {entity} are in the ledger as those of {owner}; give the "
        f"collection another name, or if {owner} was renamed, `vecsync drop {collection} --entity {owner} --force` "
        "and sync again",
        entity=entity,
        collection=collection,
        owner=owner,
    )


def _collection(entity: str, collection: str) -> dict[str, Any]:
    return {"of_entity": entity, "of_collection": collection}


def _columns(entity: str, collection: str, tenant: str, space: Space) -> dict[str, Any]:
    scope = "global" if tenant == GLOBAL else "tenant"
    return {"entity": entity, "collection": collection, "scope": scope, "tenant_id": tenant, "space": str(space)}


def _times(now: datetime, seen_at: datetime) -> dict[str, datetime]:
    return {"last_seen_at": seen_at, "last_attempt_at": now, "created_at": now, "updated_at": now}


def _written(write: Confirmed, tenant: str) -> list[Any]:
    """In the order of `statements.WRITTEN`."""
    values = [getattr(write, name) for name in statements.WRITTEN]
    cut = None if write.text_hash is None else int(write.truncated)
    return [*values, _names(write.modified_fields), int(write.vector_written), cut, _rest(write.db_id, tenant)]


def _owned(rows: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, Owned]:
    return {identity: Owned(tenant, Key(*key)) for identity, tenant, *key in rows}


def _rest(db_id: str, tenant: str) -> str | None:
    """Everybody's records mostly have no tenant."""
    return key_without(db_id, None if tenant == GLOBAL else tenant)


def _failed(failure: Failed) -> dict[str, Any]:
    return {
        "document_id": failure.document_id,
        "db_id": failure.db_id,
        "db_key": failure.db_key,
        "point_id": failure.point_id,
        "attempt_hash": failure.attempt_hash,
        "error_code": failure.error_code,
        "last_error": clean(failure.error),
        "retry_count": failure.retry_count,
        "next_attempt_at": failure.next_attempt_at,
        "modified_fields": _names(failure.modified_fields),
    }


def _names(fields: Sequence[str] | None) -> str | None:
    return None if fields is None else orjson.dumps(fields).decode()
