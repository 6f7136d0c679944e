"""MongoDB tells by itself: a change stream of an entity's collection, and who listens to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from vecsync_dagster.config.models import EntityConfig, MongoSource
from vecsync_dagster.sources.mongo_connection import Connection
from vecsync_dagster.sources.mongo_dotted import dotted
from vecsync_dagster.sources.mongo_errors import translated
from vecsync_dagster.sources.mongo_stream import has_streams, only_metadata
from vecsync_dagster.sources.mongo_values import value_at
from vecsync_dagster.sources.waking import Stop, Wake
from vecsync_dagster.stores.base import GLOBAL

__all__ = ["StreamWaker"]

_WAIT_MS = 500
_LOOK_S = 0.5


class StreamWaker:
    """Listens for one entity. Where the server has no change streams (and need not have them) it tells nothing."""

    def __init__(self, config: MongoSource, entity: EntityConfig, *, name: str, entity_name: str) -> None:
        self.name = name
        self._config = config
        self._entity = entity
        self._entity_name = entity_name

    def run(self, wake: Wake, stop: Stop) -> None:
        connection = Connection(self._config, name=self.name)
        try:
            self._listen(connection.database[self._entity.table], wake, stop)
        except (PyMongoError, BSONError) as error:
            if isinstance(error, OperationFailure) and not has_streams(error) and self._config.change_stream == "auto":
                self._idle(stop)
                return
            # The driver's text may quote a document: it is not chained.
            raise translated(error, connection.place, f"entity {self._entity_name}: listening to its changes") from None
        finally:
            connection.close()

    def _listen(self, collection: Collection[dict[str, Any]], wake: Wake, stop: Stop) -> None:
        owner = self._owner()
        # A path would not take a field whose own name has a dot.
        paths = ["fullDocument"] if dotted(owner) else [f"fullDocument.{name}" for name in owner]
        wanted = {"operationType": 1, "updateDescription": 1, **dict.fromkeys(paths, 1)}
        lookup = "updateLookup" if self._entity.tenancy is not None else None
        with collection.watch([{"$project": wanted}], full_document=lookup, max_await_time_ms=_WAIT_MS) as stream:
            # What happened before somebody listened.
            wake(self._entity_name, GLOBAL if self._entity.tenancy is None else None)
            while not stop():
                event = stream.try_next()
                if event is not None and not only_metadata(event):
                    wake(self._entity_name, self._whose(event))

    def _owner(self) -> list[str]:
        tenancy = self._entity.tenancy
        return [] if tenancy is None else [name for name in (tenancy.column, tenancy.global_flag) if name is not None]

    def _whose(self, event: Mapping[str, Any]) -> str | None:
        """None where it is not told, as of a document that is gone."""
        tenancy = self._entity.tenancy
        if tenancy is None:
            return GLOBAL
        document = event.get("fullDocument")
        if not isinstance(document, Mapping):
            return None
        if tenancy.global_flag is not None and value_at(document, tenancy.global_flag) is True:
            return GLOBAL
        tenant = value_at(document, tenancy.column)
        return None if tenant is None else str(tenant)

    @staticmethod
    def _idle(stop: Stop) -> None:
        while not stop():
            time.sleep(_LOOK_S)
