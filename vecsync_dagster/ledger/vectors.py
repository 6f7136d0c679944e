"""Vector spaces: which one a collection is pinned to, and the vectors that were paid for already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select, update

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.ledger.part import Insert, LedgerPart, chunks, insert_into
from vecsync_dagster.ledger.tables import Moment, collection_space, embedding_cache
from vecsync_dagster.space import Space

__all__ = ["Vectors"]

_C: Final = embedding_cache.c
_FLOAT32: Final = np.dtype("<f4")

# A cache that is read a thousand times a day is not written a thousand times.
_USED_AGAIN_AFTER: Final = timedelta(days=1)

_FIND: Final = select(_C.text_hash, _C.vector, _C.last_used_at < bindparam("long_ago", type_=Moment)).where(
    _C.space == bindparam("of_space"), _C.text_hash.in_(bindparam("hashes", expanding=True))
)
_USE: Final = (
    update(embedding_cache)
    .where(_C.space == bindparam("of_space"), _C.text_hash.in_(bindparam("hashes", expanding=True)))
    .values(last_used_at=bindparam("now", type_=Moment))
)


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

    def vectors(self, space: Space, text_hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Read-only float32 arrays of shape (dimensions,)."""
        values = {"of_space": str(space), "long_ago": self._now() - _USED_AGAIN_AFTER}
        found: dict[str, NDArray[np.float32]] = {}
        used_again: list[str] = []
        with self.database.read() as connection:
            for some in chunks(text_hashes):
                for text_hash, data, long_ago in connection.execute(_FIND, {**values, "hashes": some}):
                    found[text_hash] = _vector(data)
                    if long_ago:
                        used_again.append(text_hash)
        self._use(space, used_again)
        return found

    def keep_vectors(self, space: Space, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Raises LedgerRejected for a vector that is not one of this space, before any is kept."""
        if not vectors:
            return
        now = self._now()
        common = {"space": str(space), "created_at": now, "last_used_at": now}
        keys = sorted(vectors)
        matrix = _matrix(space, [vectors[key] for key in keys])
        rows = [common | {"text_hash": key, "vector": row.tobytes()} for key, row in zip(keys, matrix, strict=True)]
        with self.database.write(durable=True) as connection:
            for some in chunks(rows):
                connection.execute(_keep(self.database.dialect), some)

    def _use(self, space: Space, text_hashes: Sequence[str]) -> None:
        if not text_hashes:
            return
        values = {"of_space": str(space), "now": self._now()}
        with self.database.write() as connection:
            for some in chunks(text_hashes):
                connection.execute(_USE, {**values, "hashes": some})


def _matrix(space: Space, vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """All of them as one array, shape (vectors, dimensions), as the table keeps them."""
    wrong = next((vector.shape for vector in vectors if vector.shape != (space.dimensions,)), None)
    if wrong is not None:
        raise LedgerRejected(f"a vector of shape {wrong} is not one of the space {space}", space=str(space))
    matrix = np.stack(vectors).astype(_FLOAT32)
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
def _keep(dialect: str) -> Insert:
    return insert_into(embedding_cache, dialect).on_conflict_do_nothing(index_elements=[_C.space, _C.text_hash])
