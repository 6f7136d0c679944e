"""The way to a collection of MongoDB: URL, client, database, and what to say where one of them is wrong."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import cached_property
from typing import Any

from bson.errors import BSONError
from pymongo import MongoClient, common, uri_parser
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from vecsync_dagster.config.models import MongoSource, resolve
from vecsync_dagster.errors import ConfigError, SourceRejected
from vecsync_dagster.sources.mongo_errors import REFUSED, translated
from vecsync_dagster.sources.mongo_exact import ExactCollection, own_collation
from vecsync_dagster.url_options import refuse_unencoded, refuse_unknown, wrong_value

__all__ = ["Connection"]

_LISTED = 25
_SCHEMES = ("mongodb://", "mongodb+srv://")
Document = dict[str, Any]


def _check_options(url: str, key: str) -> None:
    """pymongo only warns, with the value. Raises ConfigError that names the option alone."""
    refuse_unencoded(url.partition("?")[0].partition("://")[2].partition("/")[2], key=key)
    options = re.split("[&;]", url.partition("?")[2])
    given = [option.partition("=")[0] for option in options if option]
    valid = common.URI_OPTIONS_VALIDATOR_MAP
    refuse_unknown("MongoDB", url, [name for name in given if name.lower() not in valid], valid, key=key)
    for name, option in zip(given, filter(None, options), strict=True):
        try:
            uri_parser.split_options(option, warn=False)
        except (ConfigurationError, InvalidURI, ValueError, TypeError):
            described = "true or false" if "boolean" in valid[name.lower()].__name__ else "in MongoDB's documentation"
            raise wrong_value(name, described, key=key) from None


class Connection:
    """One source's client; connects with its first use, and again after `close`."""

    def __init__(self, config: MongoSource, *, name: str) -> None:
        self._config = config
        self._name = name
        self._key = f"sources.{name}.url"

    @cached_property
    def client(self) -> MongoClient[Document]:
        """Raises ConfigError where the URL is not one."""
        url = resolve(self._config.url, self._key)
        _check_options(url, self._key)
        wait = self._config.connect_timeout_s * 1000
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # of an option that is none, with its value
                return MongoClient(
                    url if url.startswith(_SCHEMES) else "",  # a bare word would be taken for a host
                    appname="vecsync",
                    connectTimeoutMS=wait,
                    serverSelectionTimeoutMS=wait,
                    socketTimeoutMS=self._config.timeout_s * 1000,
                    tz_aware=True,
                    tzinfo=UTC,
                    uuidRepresentation="standard",
                    datetime_conversion="DATETIME_AUTO",
                    # Bytes that are no UTF-8 must not end the read.
                    unicode_decode_error_handler="replace",
                )
        except (InvalidURI, ConfigurationError, ValueError, TypeError, UserWarning):
            raise ConfigError(  # without its cause, which may quote a part of the password
                f"{self._key}: not a URL of MongoDB; write mongodb://user:password@host:port/database, with special "
                "characters of user and password percent-encoded",
                key=self._key,
            ) from None

    @cached_property
    def database(self) -> Database[Document]:
        if self._config.database is not None:
            return self.client[self._config.database]
        try:
            return self.client.get_default_database()
        except ConfigurationError:
            raise ConfigError(
                f"sources.{self._name}.database: this key is missing, and the URL names no database either",
                key=f"sources.{self._name}.database",
            ) from None

    @property
    def place(self) -> str:
        """Where the database is, for messages: hosts and name; no user, no password."""
        hosts = ", ".join(
            sorted(f"{host}:{port}" for host, port in self.client.topology_description.server_descriptions())
        )
        return f"source {self._name}: MongoDB at {hosts}/{self.database.name}"

    def collection(self, name: str, key: str) -> Collection[Document]:
        """Raises SourceRejected where there is none: a wrong name would read like an emptied collection."""
        database = self.database
        try:
            there = sorted(database.list_collection_names(authorizedCollections=True))
        except OperationFailure as error:
            if error.code != 13 or error.code not in REFUSED:
                raise
            there = [name]  # this user may not ask; reading will tell
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            listed = ", ".join(there[:_LISTED]) or "none: is it the right database?"
            raise SourceRejected(
                f"{key}: {self.place} has no collection {name!r}{hint}; there are: {listed}", collection=name
            )
        found = database.get_collection(name, read_concern=ReadConcern("majority"))
        own = own_collation(found)
        if "viewOn" in own:  # a query may not have another one than its view
            raise SourceRejected(
                f"{key}: the view {name!r} has the collation {own['collation'].get('locale')!r}, which takes different "
                "texts for equal: read the collection below it, or make the view without a collation",
                collection=name,
            )
        return ExactCollection(database, name, read_concern=found.read_concern) if own else found

    @contextmanager
    def translating(self, doing: str) -> Iterator[None]:
        """The one place where a driver's error becomes ours: not chained, its text may quote a document."""
        try:
            yield
        except (PyMongoError, BSONError) as error:
            raise translated(error, self.place, doing) from None

    def close(self) -> None:
        client = self.__dict__.pop("client", None)
        self.__dict__.pop("database", None)
        if client is not None:
            client.close()
