"""A MongoDB server for tests: SecantusDB, a real server of the wire protocol in this process, on loopback.

It calls itself a replica set, so that sessions, change streams and fail points are there as on a real one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo import MongoClient

__all__ = ["URL_VARIABLE", "failing", "mongo_server", "new_mongo_database"]

URL_VARIABLE = "MONGO_URL"


@contextmanager
def mongo_server() -> Iterator[str]:
    """URL of the server the environment names, or of one started for this block."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    from secantus import SecantusDBServer

    with SecantusDBServer(storage_path=":memory:") as server:
        yield str(server.uri)


@contextmanager
def new_mongo_database(server: str) -> Iterator[str]:
    """Name of a new, empty database on `server`; dropped at the end."""
    name = f"vecsync_test_{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        with MongoClient[dict[str, object]](server) as client:
            client.drop_database(name)


@contextmanager
def failing(server: str, command: str, *, mode: object = "alwaysOn", **how: object) -> Iterator[None]:
    """Every such command of vecsync fails in this block; `mode` {"times": n}: so many of them."""
    fault = {"configureFailPoint": "failCommand", "data": {"failCommands": [command], "appName": "vecsync", **how}}
    with MongoClient[dict[str, object]](server) as client:
        client.admin.command({**fault, "mode": mode})
        try:
            yield
        finally:
            client.admin.command({**fault, "mode": "off"})
