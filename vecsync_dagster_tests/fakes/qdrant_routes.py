"""The endpoints of the fake Qdrant server: method and path -> a call of the in-memory client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

__all__ = ["Refused", "Route", "find_route"]


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Route:
    """`may_wait`: a write of points, which the server queues unless told to wait. `bare`: no envelope."""

    name: str
    body: Any
    do: Callable[[QdrantClient, str, Any], object]
    writes: bool = False
    may_wait: bool = False
    bare: bool = False

    def parse(self, body: bytes) -> Any:
        return None if self.body is None else _adapter(self.body).validate_json(body)

    def run(self, engine: QdrantClient, request: Any) -> object:
        """Raises Refused with the status the real server would answer."""
        try:
            return self.do(engine, self.name, request)
        except KeyError as error:  # a payload operation names a point that does not exist
            raise Refused(404, f"Not found: No point with id {error.args[0]} found") from error
        except ValueError as error:
            message = str(error)
            if message.endswith(" not found"):
                raise Refused(404, f"Not found: {message}") from error
            raise Refused(409 if message.endswith(" already exists") else 400, message) from error


@cache
def _adapter(body: Any) -> TypeAdapter[Any]:
    return TypeAdapter(body)


def find_route(method: str, path: str) -> Route | None:
    for (verb, pattern), (body, do, kind) in _ROUTES.items():
        match = re.fullmatch(pattern.replace("{c}", "([^/]+)"), path)
        if verb == method and match:
            name = unquote(match.group(1)) if match.groups() else ""
            return Route(name, body, do, writes=kind != "read", may_wait=kind == "points", bare=path == "/")
    return None


def _version(_c: QdrantClient, _name: str, _r: None) -> object:
    return {"title": "qdrant - vector search engine", "version": "1.20.0", "commit": None}


def _create(c: QdrantClient, name: str, r: models.CreateCollection) -> object:
    return c.create_collection(name, vectors_config=r.vectors)


def _index(c: QdrantClient, name: str, _r: models.CreateFieldIndex) -> object:
    """The in-memory engine has no indexes and warns of it; whether the collection exists is what counts."""
    c.get_collection(name)
    return _done()


def _change_aliases(c: QdrantClient, _name: str, r: models.ChangeAliasesOperation) -> object:
    return c.update_collection_aliases(r.actions)


def _upsert(c: QdrantClient, name: str, r: models.PointInsertOperations) -> object:
    return c.upsert(name, r.batch if isinstance(r, models.PointsBatch) else r.points)


def _batch(c: QdrantClient, name: str, r: models.UpdateOperations) -> object:
    return c.batch_update_points(name, r.operations)


def _set_payload(c: QdrantClient, name: str, r: models.SetPayload) -> object:
    return c.set_payload(name, r.payload, points=_chosen(r), key=r.key)


def _overwrite_payload(c: QdrantClient, name: str, r: models.SetPayload) -> object:
    return c.overwrite_payload(name, r.payload, points=_chosen(r))


def _retrieve(c: QdrantClient, name: str, r: models.PointRequest) -> object:
    return c.retrieve(name, r.ids, with_payload=_payload(r.with_payload), with_vectors=r.with_vector or False)


def _count(c: QdrantClient, name: str, r: models.CountRequest) -> object:
    return c.count(name, count_filter=r.filter, exact=r.exact is not False)


def _scroll(c: QdrantClient, name: str, r: models.ScrollRequest) -> object:
    points, following = c.scroll(
        name,
        scroll_filter=r.filter,
        limit=r.limit or 10,
        offset=r.offset,
        with_payload=_payload(r.with_payload),
        with_vectors=r.with_vector or False,
    )
    return {"points": [point.model_dump(mode="json") for point in points], "next_page_offset": following}


def _query(c: QdrantClient, name: str, r: models.QueryRequest) -> object:
    return c.query_points(
        name,
        query=r.query,
        query_filter=r.filter,
        limit=r.limit or 10,
        with_payload=r.with_payload or False,
        with_vectors=r.with_vector or False,
    )


def _facet(c: QdrantClient, name: str, r: models.FacetRequest) -> object:
    return c.facet(name, r.key, facet_filter=r.filter, limit=r.limit or 10)


def _chosen(r: models.SetPayload) -> Any:
    return r.points if r.points is not None else models.FilterSelector(filter=r.filter or models.Filter())


def _payload(wanted: Any) -> Any:
    return True if wanted is None else wanted


def _done() -> models.UpdateResult:
    return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


_COLLECTION = "/collections/{c}"
_POINTS = "/collections/{c}/points"

# (method, path) -> (what the body is, what to do, read | admin | points)
_ROUTES: dict[tuple[str, str], tuple[Any, Callable[[QdrantClient, str, Any], object], str]] = {
    ("GET", "/"): (None, _version, "read"),
    ("GET", "/aliases"): (None, lambda c, _name, _r: c.get_aliases(), "read"),
    ("GET", "/collections"): (None, lambda c, _name, _r: c.get_collections(), "read"),
    ("POST", "/collections/aliases"): (models.ChangeAliasesOperation, _change_aliases, "admin"),
    ("GET", _COLLECTION): (None, lambda c, name, _r: c.get_collection(name), "read"),
    ("PUT", _COLLECTION): (models.CreateCollection, _create, "admin"),
    ("DELETE", _COLLECTION): (None, lambda c, name, _r: c.delete_collection(name), "admin"),
    ("GET", _COLLECTION + "/exists"): (None, lambda c, name, _r: {"exists": c.collection_exists(name)}, "read"),
    ("PUT", _COLLECTION + "/index"): (models.CreateFieldIndex, _index, "points"),
    ("PUT", _POINTS): (models.PointInsertOperations, _upsert, "points"),
    ("POST", _POINTS): (models.PointRequest, _retrieve, "read"),
    ("POST", _POINTS + "/delete"): (models.PointsSelector, lambda c, name, r: c.delete(name, r), "points"),
    ("POST", _POINTS + "/batch"): (models.UpdateOperations, _batch, "points"),
    ("POST", _POINTS + "/payload"): (models.SetPayload, _set_payload, "points"),
    ("PUT", _POINTS + "/payload"): (models.SetPayload, _overwrite_payload, "points"),
    ("POST", _POINTS + "/count"): (models.CountRequest, _count, "read"),
    ("POST", _POINTS + "/scroll"): (models.ScrollRequest, _scroll, "read"),
    ("POST", _POINTS + "/query"): (models.QueryRequest, _query, "read"),
    ("POST", _COLLECTION + "/facet"): (models.FacetRequest, _facet, "read"),
}
