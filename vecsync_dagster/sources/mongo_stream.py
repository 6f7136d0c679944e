"""Change streams: what happened to a collection since a resume token, as ids.

The token stands in the cursor of a read (`Cursor.id`), behind the time that a read without streams goes on from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import json_util
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from vecsync_dagster.identity import Key
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster.sources.mongo_dotted import dotted
from vecsync_dagster.sources.mongo_errors import NO_STREAMS, REFUSED, is_transient
from vecsync_dagster.sources.mongo_keys import is_own, key_of, written
from vecsync_dagster.sources.mongo_reading import watched
from vecsync_dagster.sources.mongo_values import unreadable_in

__all__ = [
    "SYNC_METADATA",
    "Events",
    "Token",
    "cursor_with",
    "drain",
    "has_pre_images",
    "has_streams",
    "key_not_told",
    "only_metadata",
    "token_now",
    "token_of",
]

SYNC_METADATA = "syncMetadata"
"""The field of a write-back: what touches nothing else is no change."""

Document = dict[str, Any]
Token = Mapping[str, Any]
_MOST = 100_000  # changed documents; past that a full read is quicker, and memory stays bounded
_WAIT_MS = 100
_PRE_IMAGES = 17  # wire version of MongoDB 6.0, the first that can tell what a document was before
_WANTED = {"operationType": 1, "documentKey": 1, "updateDescription": 1}
_ENDS = {"drop": "dropped", "rename": "renamed", "dropDatabase": "dropped with its database", "invalidate": "replaced"}


@dataclass(slots=True)
class Events:
    """`keys`: `_id` of every document that was written or deleted, each once, by itself as extended JSON. `gone`: keys
    that documents had, in the same way: of all that were written or deleted where the key is in `_id`, else of deleted
    ones. `lost`: why only a full read will do. `replaced`: by `_id`, the keys that documents have which were written as
    a whole, and of which the stream does not tell whether they had others; not of those that were `made` since."""

    token: Token | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    gone: dict[str, Key] = field(default_factory=dict)
    lost: str | None = None
    replaced: dict[str, Key | None] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)


def token_of(cursor: Cursor | None) -> Token | None:
    """The resume token in a cursor, if there is one."""
    if cursor is None or not cursor.id.startswith('{"resume"'):
        return None
    try:
        token = json_util.loads(cursor.id)["resume"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    return token if isinstance(token, dict) else None


def cursor_with(value: str, token: Token) -> Cursor:
    return Cursor(value, json_util.dumps({"resume": token}))


def has_streams(error: OperationFailure) -> bool:
    """Whether the server that answered so can do change streams, and lets this user."""
    return error.code not in NO_STREAMS and error.code != 13


def token_now(collection: Collection[Document], session: ClientSession) -> Token | None:
    """Where the stream stands: taken before a full read, so that nothing written during it is lost."""
    with watched(collection, session=session, max_await_time_ms=_WAIT_MS) as stream:
        if stream.resume_token is None:
            stream.try_next()  # the first answer of old servers has no token
        return stream.resume_token


def drain(collection: Collection[Document], token: Token, key: Sequence[str]) -> Events:
    """All that happened since the token. Raises what may be tried again; anything else is a lost token."""
    events = Events()
    own = is_own(key)
    # A path would not take a field whose own name has a dot.
    images = ("fullDocumentBeforeChange", "fullDocument")
    keys = dict.fromkeys(images if dotted(key) else [f"{image}.{name}" for image in images for name in key], 1)
    try:
        with watched(
            collection,
            [{"$project": {**_WANTED, **({} if own else keys)}}],
            resume_after=token,
            full_document_before_change=None if own or not has_pre_images(collection) else "whenAvailable",
            max_await_time_ms=_WAIT_MS,
        ) as stream:
            while events.lost is None and (event := stream.try_next()) is not None:
                _take(events, event, key)
            events.token = stream.resume_token
    except OperationFailure as error:
        if is_transient(error) or error.code in REFUSED:
            raise
        name = (error.details or {}).get("codeName") or error.code
        events.lost = f"the server cannot go on from the resume token of the last run ({name})"
    return events


def has_pre_images(collection: Collection[Document]) -> bool:
    """Whether the server can tell what a document was before; only of collections where that is switched on."""
    described = collection.database.client.topology_description.server_descriptions().values()
    return min((server.max_wire_version for server in described if server.is_readable), default=0) >= _PRE_IMAGES


def _take(events: Events, event: Mapping[str, Any], key: Sequence[str]) -> None:
    kind = event["operationType"]
    if kind in _ENDS:
        events.lost = f"the collection was {_ENDS[kind]} since the last run"
    if "documentKey" not in event or only_metadata(event):
        return
    identity = event["documentKey"]["_id"]
    events.keys[written(identity)] = identity
    if is_own(key):
        _had(events, {"_id": identity}, key)
    elif unreadable_in(identity) is not None:
        events.lost = "a document was changed whose _id cannot be read: the stream does not tell which it is"
    else:
        _take_old_key(events, event, key)
    if len(events.keys) > _MOST:
        events.lost = f"more than {_MOST} documents changed since the last run"


def _had(events: Events, document: Document, names: Sequence[str]) -> None:
    key = key_of(document, names)
    if key is not None and key.native is not None:
        events.gone[key.native] = key


def _take_old_key(events: Events, event: Mapping[str, Any], names: Sequence[str]) -> None:
    """The key that a document had: the event's is its `_id`, and the document itself may be gone."""
    before, kind, identity = event.get("fullDocumentBeforeChange"), event["operationType"], event["documentKey"]["_id"]
    if kind == "insert":
        events.made.add(written(identity))
    elif before is not None:
        _had(events, before, names)
    elif kind == "replace":
        if written(identity) not in events.made:
            events.replaced[written(identity)] = key_of(event.get("fullDocument") or {}, names)
    elif kind == "delete" or any(_touches(event, name) for name in names):
        events.lost = key_not_told("deleted", names)


def key_not_told(happened: str, names: Sequence[str]) -> str:
    """Why only a full read will do where this happened to a document, whose key is in these fields."""
    key = ", ".join(names)
    return (
        f"a document was {happened}, and the stream does not tell its {key}; it does where {key} is _id or parts of "
        "it, or with changeStreamPreAndPostImages switched on for the collection"
    )


def _touched(event: Mapping[str, Any]) -> set[str]:
    """The fields that an update names."""
    told = event.get("updateDescription") or {}
    names = [*told.get("updatedFields", {}), *told.get("removedFields", [])]
    return {*names, *(cut["field"] for cut in told.get("truncatedArrays", []))}


def only_metadata(event: Mapping[str, Any]) -> bool:
    names = _touched(event)
    return bool(names) and all(name.partition(".")[0] == SYNC_METADATA for name in names)


def _touches(event: Mapping[str, Any], name: str) -> bool:
    """Whether an update changed this field: a document that got another id lost its old one."""
    return any(f"{name}.".startswith(f"{touched}.") or touched.startswith(f"{name}.") for touched in _touched(event))
