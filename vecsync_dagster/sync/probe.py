"""A write that is known to be good: it tells a store that takes nothing from a document that is refused.

It is a new point, so that what has no room refuses it as well. It carries the payload of a document that the store
holds, and belongs to nobody: no search finds it, and it is deleted at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from vecsync_dagster.containment import contained
from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import InternalError, StoreRejected
from vecsync_dagster.stores.base import DOCUMENT_ID, ENTITY, SCOPE, TENANT_ID, Point
from vecsync_dagster.sync.target import Target

__all__ = ["clear_probe", "emptied", "known_good", "takes_probe"]

_MOST = 3  # one of them may have become bad since
_PAGE, _PAGES = 200, 10


def takes_probe(target: Target, payload: Mapping[str, Any], *, payload_only: bool) -> bool:
    """Whether the store takes the point; `payload_only`: and then its payload alone. Raises what is about the service
    as a whole."""
    t = target
    dimensions = t.space.dimensions
    point = Point(_point_id(t), _nobodys(t, payload), np.full(dimensions, dimensions**-0.5, dtype=np.float32))
    try:
        with contained(f"{t}: a write that is known to be good"):
            t.store.upsert(t.collection, [point])
            return not (payload_only and t.store.set_payload(t.collection, [point]))
    except (StoreRejected, InternalError):
        return False
    finally:
        clear_probe(t)  # also after a write that got no answer: it may have been done


def emptied(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Where nothing is known to be good: the fields of a document that was refused, with nothing in them."""
    return {name: None if value is None else type(value)() for name, value in payload.items()} | {"dbId": "0"}


def clear_probe(target: Target) -> None:
    """Also what a run left that ended between the two."""
    target.store.delete_foreign(target.collection, [_point_id(target)])


def known_good(target: Target, without: Container[str]) -> list[Mapping[str, Any]]:
    """Payloads of a few documents that the ledger calls synced: of the partition, else of the collection; none of the
    documents `without`."""
    t = target
    for tenant in (t.tenant, None):
        ids = list(islice(_synced(t, tenant, without), _MOST))
        points = t.store.retrieve(t.collection, ids) if ids else []
        if points:
            return [point.payload for point in points]
    return []


def _synced(target: Target, tenant: str | None, without: Container[str]) -> Iterator[str]:
    t = target
    for page in islice(t.ledger.points(t.entity, t.collection, tenant, _PAGE), _PAGES):
        points = {point.document_id: point.point_id for point in page if point.document_id not in without}
        rows = t.ledger.rows(t.entity, t.collection, list(points), t.ledger.now()) if points else {}
        yield from (points[identity] for identity, row in rows.items() if row.status == "synced")


def _document_id(target: Target) -> str:
    return f"vecsync:probe:{target.tenant}"


def _point_id(target: Target) -> str:
    return point_id(target.entity, _document_id(target))


def _nobodys(target: Target, payload: Mapping[str, Any]) -> dict[str, Any]:
    own = {DOCUMENT_ID: _document_id(target), ENTITY: target.entity}
    return {**payload, **own, TENANT_ID: None, SCOPE: "probe", "isGlobal": False}
