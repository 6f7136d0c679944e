"""The queries of one entity in MongoDB: built here, run by mongo.py. Every one of records is bounded by its tenant."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.identity import Key
from vecsync_dagster.sources.mongo_dotted import Named, path_of
from vecsync_dagster.sources.mongo_keys import among, is_own, key_of
from vecsync_dagster.sources.mongo_values import Fields, is_one_of, meanings, owned, owner_text, value_at
from vecsync_dagster.sources.sql_types import EPOCH, earlier, moment_of
from vecsync_dagster.sources.tenant_names import FEW, READ

__all__ = ["GLOBAL", "Queries", "Query", "moment"]

GLOBAL = "global"
Query = dict[str, Any]
_NOTHING: Query = {"_id": {"$in": []}}
_FLAGGED = [True, 1, "1", "t", "T", "true", "True", "TRUE"]
_LIST: Query = {"$type": "array"}
_NO_TIME = ("", 0, False, "0", "false")  # what an application writes for "not deleted"
_ISO = r"^\d{4}-\d\d-\d\d"
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Queries:
    """`unique`: no two documents have one key."""

    entity: EntityConfig
    named: Named = field(default_factory=Named)
    unique: bool = True

    @property
    def asked(self) -> tuple[str, ...]:
        """The fields that records are looked up by."""
        entity = self.entity
        more = [entity.tenancy.column, entity.tenancy.global_flag] if entity.tenancy is not None else []
        names = [*entity.key, *more, entity.updated_at, entity.deleted_at, *entity.filter]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record, the id first."""
        return tuple(dict.fromkeys([*self.entity.fields, *self.asked]))

    @property
    def projection(self) -> dict[str, Any]:
        """A field inside another one that is wanted too would be refused by the server."""
        names = self.fields
        if any(name.startswith("_id.") for name in names):
            names = ("_id", *names)
        return self._project(names, {"_id": 0} if self.unique else {"_id": 1})

    def _project(self, names: Iterable[str], wanted: dict[str, int]) -> dict[str, Any]:
        paths = tuple(map(path_of, names))
        apart = {path: 1 for path in paths if not any(path.startswith(f"{other}.") for other in paths)}
        return self.named.projection(wanted | apart)

    def tenant(self, tenant: str) -> Query:
        """Whose records are read: the flag wins over the tenant's field; without tenancy all are global."""
        tenancy = self.entity.tenancy
        if tenancy is None:
            return {} if tenant == GLOBAL else _NOTHING
        if tenant == GLOBAL:
            return _NOTHING if tenancy.global_flag is None else self.where(tenancy.global_flag, {"$in": _FLAGGED})
        return both(self.where(tenancy.column, {"$in": list(owned(tenant))}), self.unflagged())

    def owner(self, document: Fields) -> str | None:
        """`tenant`, said of a document that is here: whose it is; None where it is not one tenant's."""
        tenancy = self.entity.tenancy
        if tenancy is None:
            return GLOBAL
        flag = None if tenancy.global_flag is None else value_at(document, tenancy.global_flag)
        if any(is_one_of(one, _FLAGGED) for one in (flag if isinstance(flag, list) else [flag])):
            return GLOBAL
        return owner_text(value_at(document, tenancy.column))

    def owned(self) -> Query:
        """Not of many tenants: a list finds each of its items."""
        tenancy = self.entity.tenancy
        return {} if tenancy is None else {"$nor": [both(self.unflagged(), self.where(tenancy.column, _LIST))]}

    def where(self, name: str, condition: Any) -> Query:
        return self.named.where(name, condition)

    def unflagged(self) -> Query:
        tenancy = self.entity.tenancy
        flag = None if tenancy is None else tenancy.global_flag
        return {} if flag is None else self.where(flag, {"$nin": _FLAGGED})

    def live(self) -> Query:
        """Neither marked as deleted nor kept out by the filter."""
        return both(self.undeleted(), *(self.where(*one) for one in self._filters()))

    def _filters(self) -> Iterable[tuple[str, Query]]:
        return ((name, {"$in": _wanted(texts)}) for name, texts in self.entity.filter.items())

    def undeleted(self) -> Query:
        return {} if self.entity.deleted_at is None else self.where(self.entity.deleted_at, {"$in": [None, *_NO_TIME]})

    def is_live(self, document: Fields) -> bool:
        """`live`, said of a document that is here: its value, or one of them if it is an array."""
        deleted_at = self.entity.deleted_at
        if deleted_at is not None and value_at(document, deleted_at) not in (None, *_NO_TIME):
            return False
        return all(_allowed(value_at(document, name), texts) for name, texts in self.entity.filter.items())

    def owners(self, column: str) -> list[Query]:
        """How many live records that are not everybody's have each value in the tenant's field."""
        by = {"$group": {"_id": self.named.value(column), "count": {"$sum": 1}}}
        return [*self.named.stages, {"$match": both(self.unflagged(), self.live())}, by]

    def tenant_names(self, column: str, name: str, tenants: Collection[str]) -> list[Query]:
        """For each value in the tenant's field the name that sorts last. A few tenants' documents are looked up; for
        more, the whole collection is read."""
        few = len(tenants) <= FEW
        theirs = self.where(column, {"$in": [key for one in sorted(tenants) for key in owned(one)]}) if few else {}
        text = {"$convert": {"input": self.named.value(name), "to": "string", "onError": None, "onNull": None}}
        by = {"_id": self.named.value(column), "name": {"$max": {"$substrCP": [text, 0, READ]}}}
        return [*self.named.stages, {"$match": both(theirs, self.unflagged(), self.live())}, {"$group": by}]

    def among(self, keys: Iterable[str]) -> Query:
        """Records by their keys, or by the text of these."""
        return among(self.entity.key, keys, self.where)

    def repeated(self, limit: int) -> list[Query]:
        """Keys of one text that more than one live document has: 7 and "7" are one here."""
        keys = self.entity.key
        texts = {
            f"k{place}": {"$convert": {"input": value, "to": "string", "onError": value, "onNull": None}}
            for place, value in enumerate(map(self.named.value, keys))
        }
        first = {"$first": "$$ROOT"}
        return [
            *self.named.stages,
            {"$match": both(self.live(), {"$or": [self.where(name, {"$ne": None}) for name in keys]})},
            {"$project": self.key_projection},
            {"$group": {"_id": texts, "count": {"$sum": 1}, "first": first}},
            {"$match": {"count": {"$gt": 1}}},
            {"$limit": limit},
        ]

    @property
    def key_projection(self) -> dict[str, Any]:
        """The fields of the key alone."""
        names = ("_id",) if is_own(self.entity.key) else self.entity.key
        return self._project(names, {"_id": 0})

    def key(self, document: Fields) -> Key | None:
        return key_of(document, self.entity.key)

    # -- incremental -------------------------------------------------------------------------------
    def start(self, cursor: str) -> datetime:
        """Where an incremental read begins: the cursor's time less the overlap."""
        return earlier(moment_of(cursor), self.entity.overlap)

    def dated(self, updated_at: str, start: datetime) -> Query:
        """Modified or deleted at or after `start`, by times that can be compared. Of texts a few more: see `is_due`.

        The deletion's time counts by itself: not every application dates the modification too.
        """
        modified = {"$or": [self.where(updated_at, bound) for bound in _bounds(start)]}
        deleted_at = self.entity.deleted_at
        if deleted_at is None:
            return modified
        deleted: Query = {"$or": [self.where(deleted_at, bound) for bound in _bounds(start)]}
        return {"$or": [modified, both(deleted, self.where(updated_at, {"$ne": None}))]}

    def undated(self, updated_at: str, start: datetime) -> Query:
        """Nobody knows when: no time at all, a value of a type that `dated` does not compare, NaN, or text that is no
        time."""
        text = {"$lt": _text_bound(start), "$not": {"$regex": _ISO}}
        odd = {"$not": {"$type": ["date", "number", "string"]}}
        return {"$or": [self.where(updated_at, one) for one in (odd, math.nan, text)]}

    def is_due(self, document: Fields, start: datetime) -> bool:
        """What `dated` says, exactly: text may hold a time zone, or only a day, which is as good as its last moment."""
        times = [value_at(document, name) for name in (self.entity.updated_at, self.entity.deleted_at) if name]
        return any(_since(value, start) for value in times)


def both(*parts: Query) -> Query:
    """All of these conditions; empty ones are none."""
    real = [part for part in parts if part]
    merged = {key: value for part in real for key, value in part.items()}
    # One flat condition where no field is named twice: every server finds its indexes there.
    return merged if len(merged) == sum(map(len, real)) else {"$and": real}


def moment(value: Any) -> int | None:
    """A modification time in microseconds since 1970 (sql_types.py); None where it is none."""
    when = _time_of(value)
    return None if when is None else (when - EPOCH) // _MICROSECOND


def _since(value: Any, start: datetime) -> bool:
    when = _time_of(value)
    if when is None:
        return value is not None
    return (when + _DAY - _MICROSECOND if isinstance(value, str) and len(value) == 10 else when) >= start


def _time_of(value: Any) -> datetime | None:
    """A date; text in ISO 8601, without a time zone in UTC; or a number of seconds, milli- or microseconds."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            size = abs(value)
            return EPOCH + timedelta(seconds=value / (1 if size < 1e11 else 1e3 if size < 1e14 else 1e6))
    except (ValueError, OverflowError):
        return None
    return None


def _bounds(start: datetime) -> list[Mapping[str, Any]]:
    """MongoDB compares a value with others of its type alone: a bound for each type that can hold a time."""
    seconds = (start - EPOCH).total_seconds()
    numbers = [{"$gte": seconds, "$lt": 1e11}, {"$gte": max(seconds * 1e3, 1e11), "$lt": 1e14}]
    return [{"$gte": start}, {"$gte": _text_bound(start)}, *numbers, {"$gte": max(seconds * 1e6, 1e14)}]


def _text_bound(start: datetime) -> str:
    """Not after any text that means `start` or later, in whatever time zone it is written."""
    return (start - min(_DAY, start - datetime.min.replace(tzinfo=UTC))).date().isoformat()


def _wanted(texts: Sequence[str | None]) -> list[Any]:
    return [meaning for text in texts for meaning in meanings(text)]


def _allowed(value: Any, texts: Sequence[str | None]) -> bool:
    values, wanted = value if isinstance(value, list) else [value], _wanted(texts)
    return any(is_one_of(one, wanted) for one in values)
