"""MongoDB tells by itself: a change stream of an entity's collection, and who listens to it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection as Among
from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from vecsync_dagster.config.models import EntityConfig, MongoSource
from vecsync_dagster.sources.mongo_connection import Connection
from vecsync_dagster.sources.mongo_dotted import dotted
from vecsync_dagster.sources.mongo_errors import translated
from vecsync_dagster.sources.mongo_keys import is_own, key_of
from vecsync_dagster.sources.mongo_queries import Queries
from vecsync_dagster.sources.mongo_reading import watched
from vecsync_dagster.sources.mongo_stream import has_pre_images, has_streams, only_metadata
from vecsync_dagster.sources.waking import Stop, Wake
from vecsync_dagster.stores.base import GLOBAL

__all__ = ["StreamWaker"]

_log = logging.getLogger(__name__)
_A_VIEW = 166
_WAIT_MS = 500
_LOOK_S = 0.5


class StreamWaker:
    """Listens for one entity. Where there is no change stream (and need not be one) it says so and tells nothing."""

    def __init__(self, config: MongoSource, entity: EntityConfig, *, name: str, entity_name: str) -> None:
        self.name = name
        self.hears: Among[str] = ()
        self._config = config
        self._entity = entity
        self._queries = Queries(entity)
        self._entity_name = entity_name

    def run(self, wake: Wake, stop: Stop) -> None:
        connection = Connection(self._config, name=self.name)
        try:
            self._listen(connection.database[self._entity.table], wake, stop)
        except (PyMongoError, BSONError) as error:
            if isinstance(error, OperationFailure) and not has_streams(error) and self._config.change_stream == "auto":
                why = "a view or time series collection" if error.code == _A_VIEW else "on a server without them"
                _log.warning(
                    "source %s: no change stream for %s, %s: looked at every automation.watch.poll",
                    self.name,
                    self._entity_name,
                    why,
                )
                self.hears = ()
                self._idle(stop)
                return
            # The driver's text may quote a document: it is not chained.
            raise translated(error, connection.place, f"entity {self._entity_name}: listening to its changes") from None
        finally:
            connection.close()

    def _listen(self, collection: Collection[dict[str, Any]], wake: Wake, stop: Stop) -> None:
        before = self._asks_before(collection)
        images = ["fullDocument", *(["fullDocumentBeforeChange"] if before else [])]
        wanted = {"operationType": 1, "documentKey": 1, "updateDescription": 1, **self._owner_of(images)}
        with watched(
            collection,
            [{"$project": wanted}],
            full_document=None if self._entity.tenancy is None else "updateLookup",
            full_document_before_change="whenAvailable" if before else None,
            max_await_time_ms=_WAIT_MS,
        ) as stream:
            self.hears = (self._entity_name,)
            # Nobody was listening: any tenant may have changed or disappeared.
            wake(self._entity_name, GLOBAL if self._entity.tenancy is None else None)
            while stream.alive and not stop():
                event = stream.try_next()
                # One of no document, as when the collection is dropped or renamed, ends the stream.
                if event is not None and "documentKey" in event and not only_metadata(event):
                    self._tell(event, wake)

    def _asks_before(self, collection: Collection[dict[str, Any]]) -> bool:
        """Whether what a document was before is needed to know whose it was: its `_id` is no key of the ledger."""
        if self._entity.tenancy is None or is_own(self._entity.key):
            return False
        collection.database.command("ping")  # before its first answer nothing is known of a server
        return has_pre_images(collection)

    def _owner_of(self, images: list[str]) -> dict[str, int]:
        tenancy = self._entity.tenancy
        names = [] if tenancy is None else [name for name in (tenancy.column, tenancy.global_flag) if name is not None]
        # A path would not take a field whose own name has a dot.
        paths = images if dotted(names) else [f"{image}.{name}" for image in images for name in names]
        return dict.fromkeys(paths if names else [], 1)

    def _tell(self, event: Mapping[str, Any], wake: Wake) -> None:
        """Whose the document is now, and whose it was; where that is not told, its key tells whose it was."""
        images = [event.get("fullDocument"), event.get("fullDocumentBeforeChange")]
        owners = [self._queries.owner(image or {}) for image in images if self._entity.tenancy is None or image]
        for owner in dict.fromkeys(owner for owner in owners if owner is not None):
            wake(self._entity_name, owner)
        if not any(owners):
            key = key_of(event["documentKey"], self._entity.key) if is_own(self._entity.key) else None
            wake(self._entity_name, None, key)

    @staticmethod
    def _idle(stop: Stop) -> None:
        while not stop():
            time.sleep(_LOOK_S)
