"""Vector spaces: which one a collection is pinned to, and the vectors that were paid for already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    func,
    select,
    true,
    update,
)

from vecsync_dagster.errors import LedgerRejected, SpaceMismatch
from vecsync_dagster.ledger.part import CHUNK, Insert, LedgerPart, chunks, insert_into
from vecsync_dagster.ledger.tables import Moment, collection_space, embedding_cache, space_origin
from vecsync_dagster.space import Space

__all__ = ["Vectors"]

_C: Final = embedding_cache.c
_FLOAT32: Final = np.dtype("<f4")

# A cache that is read a thousand times a day is not written a thousand times.
_USED_AGAIN_AFTER: Final = timedelta(days=1)

_ORIGIN: Final = select(space_origin.c.origin).where(space_origin.c.space == bindparam("of_space"))
_OF_SPACE: Final = _C.space == bindparam("of_space")
_LISTED: Final = bindparam("hashes", type_=ARRAY(Text))  # on PostgreSQL


class Vectors(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def space_of(self, collection: str) -> Space | None:
        query = select(collection_space.c.space).where(collection_space.c.collection == collection)
        with self.database.read() as connection:
            text = connection.scalar(query)
        return None if text is None else Space.parse(text)

    def pin_space(self, entity: str, collection: str, space: Space) -> Space:
        values = {"entity": entity, "collection": collection, "space": str(space), "pinned_at": self._now()}
        query = select(collection_space.c.space).where(collection_space.c.collection == collection)
        with self.database.write(durable=True) as connection:
            connection.execute(_pin(self.database.dialect), values)
            return Space.parse(connection.execute(query).scalar_one())

    def origin_of(self, space: Space) -> str | None:
        with self.database.read() as connection:
            return connection.scalar(_ORIGIN, {"of_space": str(space)})

    def require_origin(self, space: Space, origin: str) -> None:
        with self.database.read() as connection:
            _require(connection, _ORIGIN, space, origin)

    def keep_origin(self, space: Space, origin: str, *, anew: bool = False) -> None:
        with self.database.write() as connection:
            connection.execute(_keep_origin(self.database.dialect), {"space": str(space), "origin": origin})
            if anew:
                connection.execute(delete(embedding_cache).where(_C.space == str(space)))

    def vectors(self, space: Space, text_hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Read-only float32 arrays of shape (dimensions,)."""
        values = {"of_space": str(space), "long_ago": self._now() - _USED_AGAIN_AFTER}
        found: dict[str, NDArray[np.float32]] = {}
        used_again: list[str] = []
        find = _find(self.database.dialect)
        with self.database.read() as connection:
            for some in chunks(text_hashes):
                for text_hash, data, long_ago in connection.execute(find, values | {"hashes": some}):
                    found[text_hash] = _vector(data)
                    if long_ago:
                        used_again.append(text_hash)
        self._use(space, used_again)
        return found

    def keep_vectors(self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None = None) -> None:
        """Raises LedgerRejected for a vector that is not one of this space, before any is kept."""
        if not vectors:
            return
        keys = sorted(vectors)
        matrix = _matrix(space, [vectors[key] for key in keys])
        values = {"space": str(space), "now": self._now(), "size": matrix.itemsize * space.dimensions}
        with self.database.write(durable=True) as connection:
            if origin is not None:  # until this is committed nobody changes it
                _require(connection, _ORIGIN.with_for_update(read=True), space, origin)
            for start in range(0, len(keys), CHUNK):
                some = slice(start, start + CHUNK)
                given = {"hashes": keys[some], "vectors": matrix[some].tobytes()}
                connection.execute(_keep(self.database.dialect), values | given)

    def _use(self, space: Space, text_hashes: Sequence[str]) -> None:
        if not text_hashes:
            return
        values = {"of_space": str(space), "now": self._now()}
        with self.database.write() as connection:
            for some in chunks(text_hashes):
                connection.execute(_use(self.database.dialect), values | {"hashes": some})


def _require(connection: Connection, query: Select[str], space: Space, origin: str) -> None:
    if connection.scalar(query, {"of_space": str(space)}) != origin:
        raise SpaceMismatch(
            f"another process has begun to write vectors of {space} that do not come from where this one's do, and "
            "vectors of two models are never mixed: what this one has not written is due again",
            space=str(space),
        )


def _matrix(space: Space, vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """All of them as one array, shape (vectors, dimensions), as the table keeps them."""
    wrong = next((vector.shape for vector in vectors if vector.shape != (space.dimensions,)), None)
    if wrong is not None:
        raise LedgerRejected(f"a vector of shape {wrong} is not one of the space {space}", space=str(space))
    matrix = np.concatenate(vectors).reshape(-1, space.dimensions).astype(_FLOAT32, copy=False)
    if not np.isfinite(matrix).all():
        raise LedgerRejected(f"a vector that is not finite is not one of the space {space}", space=str(space))
    return matrix


def _vector(data: bytes) -> NDArray[np.float32]:
    vector = np.frombuffer(data, dtype=_FLOAT32).astype(np.float32, copy=False)
    vector.flags.writeable = False
    return vector


@cache
def _pin(dialect: str) -> Insert:
    return insert_into(collection_space, dialect).on_conflict_do_nothing(index_elements=[collection_space.c.collection])


@cache
def _keep_origin(dialect: str) -> Insert:
    insert = insert_into(space_origin, dialect)
    values = {"origin": insert.excluded["origin"]}
    return insert.on_conflict_do_update(index_elements=[space_origin.c.space], set_=values)


@cache
def _find(dialect: str) -> Select[str, bytes, bool]:
    """`of_space`, `hashes` (a list), `long_ago`."""
    long_ago = (_C.last_used_at < bindparam("long_ago", type_=Moment)).label("long_ago")
    if dialect == "sqlite":
        return select(_C.text_hash, _C.vector, long_ago).where(_among(dialect))
    # One by one, whatever its planner thinks: of a table that is filling up it has no statistics yet, and would
    # rather read the whole space, at each call.
    given = func.unnest(_LISTED).table_valued("value", name="given").render_derived()
    one = select(_C.vector, long_ago).where(_OF_SPACE, _C.text_hash == given.c.value).limit(1).lateral("one")
    return select(given.c.value, one.c.vector, one.c.long_ago).select_from(given.join(one, true()))


@cache
def _use(dialect: str) -> Update:
    """`of_space`, `hashes` (a list), `now`. Of vectors that are a day old the planners know enough."""
    return update(embedding_cache).where(_among(dialect)).values(last_used_at=bindparam("now", type_=Moment))


def _among(dialect: str) -> ColumnElement[bool]:
    """One parameter for all hashes: the statement, and its place in each cache on the way, stays the same."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam("hashes", type_=JSON)).table_valued("value")
        return and_(_OF_SPACE, _C.text_hash.in_(select(listed.c.value)))
    return and_(_OF_SPACE, _C.text_hash == any_(_LISTED))


@cache
def _keep(dialect: str) -> Insert:
    """`space`, `hashes` (a list), `vectors` (the bytes of all of them, one after the other), `size` (of one), `now`.

    What is the same for all of them is bound once, and the database takes the vectors apart without Python.
    """
    size, now = bindparam("size", type_=Integer), bindparam("now", type_=Moment)
    text_hash, place = _numbered(dialect)
    vector = func.substr(bindparam("vectors", type_=LargeBinary), place * size + 1, size)
    same = bindparam("space", type_=_C.space.type)
    rows = select(same, text_hash, vector, now, now).where(true())  # SQLite must see a WHERE
    names = ["space", "text_hash", "vector", "created_at", "last_used_at"]
    insert = insert_into(embedding_cache, dialect).from_select(names, rows)
    return insert.on_conflict_do_nothing(index_elements=[_C.space, _C.text_hash])


def _numbered(dialect: str) -> tuple[ColumnElement[str], ColumnElement[int]]:
    """The one parameter `hashes` as a table: each hash, and its place counted from 0."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam("hashes", type_=JSON)).table_valued("key", "value")
        return listed.c.value, listed.c.key
    listed = func.unnest(_LISTED).table_valued("value", with_ordinality="place")
    listed = listed.render_derived()
    return listed.c.value, cast(listed.c.place, Integer) - 1
