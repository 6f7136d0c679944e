"""The documents of a partition: which the store holds, with which hashes, seen when, failed how often."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Update

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.ledger import document_statements as statements
from vecsync_dagster.ledger.base import Confirmed, Failed, LedgerRow
from vecsync_dagster.ledger.part import LedgerPart, chunks, clean
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import GLOBAL

__all__ = ["Documents"]

T = TypeVar("T", Confirmed, Failed)


class Documents(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def rows(self, entity: str, collection: str, ids: Sequence[str], started_at: datetime) -> dict[str, LedgerRow]:
        values = {**_collection(entity, collection), "started_at": started_at}
        statement = statements.rows(self.database.dialect)
        found: dict[str, LedgerRow] = {}
        with self.database.read() as connection:
            for some in chunks(ids):
                for row in connection.execute(statement, {**values, "ids": some}).all():
                    found[row[0]] = LedgerRow(*row)
        return found

    def field_hashes(self, entity: str, collection: str, ids: Sequence[str]) -> dict[str, str]:
        statement = statements.field_hashes(self.database.dialect)
        found: dict[str, str] = {}
        with self.database.read() as connection:
            for some in chunks(ids):
                values = {**_collection(entity, collection), "ids": some}
                found.update((row[0], row[1]) for row in connection.execute(statement, values))
        return found

    def confirm(
        self, entity: str, collection: str, tenant: str, space: Space, writes: Sequence[Confirmed], seen_at: datetime
    ) -> None:
        """Raises LedgerRejected where another entity has rows of these ids in the collection."""
        now = self._now()
        common = {
            **_columns(entity, collection, tenant, space),
            **statements.NO_ERROR,
            **_times(now, seen_at),
            "last_synced_at": now,
        }
        statement = statements.confirm(self.database.dialect)
        with self.database.write() as connection:
            for some in chunks(_in_order(writes)):
                rows = [common | _confirmed(write) for write in some]
                if connection.execute(statement, rows).rowcount < len(rows):
                    raise _of_another_entity(entity, collection)

    def announce(
        self, entity: str, collection: str, tenant: str, space: Space, writes: Sequence[Confirmed], seen_at: datetime
    ) -> None:
        common = {
            **_columns(entity, collection, tenant, space),
            **_times(self._now(), seen_at),
            "status": "pending",
            "retry_count": 0,
        }
        nothing = {"content_hash": None, "payload_hash": None, "vector_version": 0, "field_hashes": None}
        statement = statements.announce(self.database.dialect)
        with self.database.write() as connection:
            for some in chunks(_in_order(writes)):
                connection.execute(statement, [common | _confirmed(write) | nothing for write in some])

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
        with self.database.write() as connection:
            for some in chunks(_in_order(failures)):
                connection.execute(statement, [common | _failed(failure) for failure in some])

    def touch(self, entity: str, collection: str, tenant: str, ids: Sequence[str], seen_at: datetime) -> None:
        values = {**_partition(entity, collection, tenant), "seen_at": seen_at, "now": self._now()}
        with self.database.write() as connection:
            _write(connection, statements.touch(self.database.dialect), ids, values)
            if connection.execute(statements.ANY_STALE, values).first():
                _write(connection, statements.freshen(self.database.dialect), ids, values)

    def mark_stale(
        self, entity: str, collection: str, tenant: str, ids: Sequence[str], code: str, error: str, seen_at: datetime
    ) -> int:
        values = {
            **_partition(entity, collection, tenant),
            "code": code,
            "error": clean(error),
            "seen_at": seen_at,
            "now": self._now(),
        }
        unique = list(dict.fromkeys(ids))
        with self.database.write() as connection:
            return _write(connection, statements.mark_stale(self.database.dialect), unique, values)

    def forget(self, entity: str, collection: str, tenant: str, ids: Sequence[str]) -> None:
        values = _partition(entity, collection, tenant)
        with self.database.write() as connection:
            _write(connection, statements.forget(self.database.dialect), ids, values)


def _write(connection: Connection, statement: Update | Delete, ids: Sequence[str], values: Mapping[str, Any]) -> int:
    """The statement for those ids, in chunks; returns how many rows it met."""
    return sum(connection.execute(statement, {**values, "ids": some}).rowcount for some in chunks(ids))


def _in_order(writes: Sequence[T]) -> list[T]:
    """By key: two writers of the same rows then wait for each other instead of deadlocking."""
    return sorted(writes, key=lambda write: write.document_id)


def _of_another_entity(entity: str, collection: str) -> LedgerRejected:
    return LedgerRejected(
        f"collection {collection}: documents of entity {entity} are in the ledger as another entity's; "
        "give the collection another name",
        entity=entity,
        collection=collection,
    )


def _collection(entity: str, collection: str) -> dict[str, Any]:
    return {"of_entity": entity, "of_collection": collection}


def _partition(entity: str, collection: str, tenant: str) -> dict[str, Any]:
    return {**_collection(entity, collection), "of_tenant": tenant}


def _columns(entity: str, collection: str, tenant: str, space: Space) -> dict[str, Any]:
    scope = "global" if tenant == GLOBAL else "tenant"
    return {"entity": entity, "collection": collection, "scope": scope, "tenant_id": tenant, "space": str(space)}


def _times(now: datetime, seen_at: datetime) -> dict[str, datetime]:
    return {"last_seen_at": seen_at, "last_attempt_at": now, "created_at": now, "updated_at": now}


def _confirmed(write: Confirmed) -> dict[str, Any]:
    return {
        "document_id": write.document_id,
        "db_id": write.db_id,
        "point_id": write.point_id,
        "content_hash": write.content_hash,
        "payload_hash": write.payload_hash,
        "vector_version": int(write.vector_written),  # on a conflict it is added to what is there
        "field_hashes": write.field_hashes,
        "modified_fields": _names(write.modified_fields),
    }


def _failed(failure: Failed) -> dict[str, Any]:
    return {
        "document_id": failure.document_id,
        "db_id": failure.db_id,
        "point_id": failure.point_id,
        "attempt_hash": failure.attempt_hash,
        "error_code": failure.error_code,
        "last_error": clean(failure.error),
        "retry_count": failure.retry_count,
        "next_attempt_at": failure.next_attempt_at,
        "modified_fields": _names(failure.modified_fields),
    }


def _names(fields: Sequence[str] | None) -> str | None:
    return None if fields is None else json.dumps(list(fields), ensure_ascii=False)
