"""The statements that every run of a partition asks, built once: what they cost a run of a small partition is mostly
their building.

Parameters: of_entity, of_collection, of_tenant (see `place`), and those each statement speaks of.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from vecsync_dagster.ledger.document_statements import NOT_SYNCED, REJECTED
from vecsync_dagster.ledger.record_states import FORMER, Status
from vecsync_dagster.ledger.tables import (
    Moment,
    check_result,
    index_state,
    missing_tenant,
    partition_seen,
    sync_run,
    unfinished_run,
    watermark,
)

__all__ = [
    "AHEAD",
    "CUT",
    "CUT_SHORT",
    "FAILED",
    "FAILED_CHECKS",
    "FORMERS",
    "MOVED",
    "RUN_START",
    "TALLY",
    "UNFINISHED",
    "WATERMARK",
    "place",
]

_T: Final = index_state.c
_M: Final = missing_tenant.c
_P: Final = partition_seen.c
_R: Final = sync_run.c
_U: Final = unfinished_run.c
_W: Final = watermark.c
_OF_ENTITY: Final[BindParameter[str]] = bindparam("of_entity")
_OF_COLLECTION: Final[BindParameter[str]] = bindparam("of_collection")
_OF_TENANT: Final[BindParameter[str]] = bindparam("of_tenant")


def place(entity: str, collection: str, tenant: str) -> dict[str, Any]:
    return {"of_entity": entity, "of_collection": collection, "of_tenant": tenant}


def _of(table: FromClause) -> ColumnElement[bool]:
    c = table.c
    return and_(c.entity == _OF_ENTITY, c.collection == _OF_COLLECTION, c.tenant_id == _OF_TENANT)


_HELD: Final = _T.content_hash.is_not(None)
_KNOWN: Final = select(func.count()).select_from(index_state).where(_of(index_state))
_SEEN: Final = select(func.max(_T.last_seen_at)).where(_of(index_state))
_ALL_SEEN: Final = select(_P.seen_at).where(_of(partition_seen))
_LOOKS: Final = select(_M.looks).where(_M.entity == _OF_ENTITY, _M.tenant_id == _OF_TENANT)

# The entity as no key of another index: SQLite shall take the one that has these rows alone.
_FEW: Final = and_(_T.collection == _OF_COLLECTION, _T.tenant_id == _OF_TENANT, _T.entity.concat("") == _OF_ENTITY)
_FORMER: Final = and_(NOT_SYNCED, _T.status == "stale", _T.error_code == FORMER)

FORMERS: Final = select(_T.document_id).where(_FORMER, _FEW)
"""What `Ledger.keep_former` kept; in no order, which SQLite would take from an index of all rows."""

RUN_START: Final = select(
    *(one.scalar_subquery() for one in (_KNOWN, _LOOKS, _SEEN, _ALL_SEEN)),
    exists().where(_of(index_state), _HELD),
    exists().where(_T.collection == _OF_COLLECTION, _HELD),
    exists().where(_FORMER, _FEW),
)
"""Rows, looks at a missing tenant, when documents and all of them were seen last, whether the partition and the
collection hold any, whether the partition has former ones. Queries in one, each by an index of its own: together they
would read every row."""

# Written out, not a parameter: only then do both databases see that the index of failed rows will do.
FAILED: Final = _T.status == literal_column("'failed'")
_OTHERS: Final = tuple(status for status in get_args(Status) if status != "synced")

CUT: Final = and_(literal_column("truncated") == literal_column("1"), _FEW)
"""Documents whose text was cut. Written out, as `FAILED` is."""

TALLY: Final = select(
    _KNOWN.scalar_subquery(),
    func.count().filter(_T.content_hash.is_(None)),
    func.count().filter(_T.status == "stale", _T.error_code.is_distinct_from(FORMER)),
    func.count().filter(FAILED, _T.next_attempt_at.is_not(None)),
    func.count().filter(FAILED, _T.next_attempt_at.is_(None), ~REJECTED),
    func.count().filter(FAILED, _T.next_attempt_at.is_(None), REJECTED),
    select(func.count()).select_from(index_state).where(CUT).scalar_subquery(),
    func.count().filter(_FORMER),
).where(NOT_SYNCED, _T.status.in_(_OTHERS), _FEW)
"""Rows; never stored, stale, failed (waiting, permanent, rejected), cut, former. Of what is synced the number of rows
says it all, and most is; the others are named, so that their index is taken."""

_MOVED: Final = exists().where(_of(unfinished_run), _U.moved.is_(True))

MOVED: Final = select(_MOVED)

CUT_SHORT: Final = select(exists().where(_of(unfinished_run), or_(_U.moved.is_(True), _U.mode.is_not(None))))

WATERMARK: Final = select(_W.cursor_value, _W.cursor_id).where(
    _of(watermark),
    _W.settings == bindparam("of_settings"),
    ~_MOVED,
)

UNFINISHED: Final = select(_U.run_id).where(_of(unfinished_run)).order_by(_U.began_at, _U.run_id)

FAILED_CHECKS: Final = (
    select(check_result).where(_of(check_result), check_result.c.passed.is_(False)).order_by(check_result.c.check_name)
)

AHEAD: Final = select(func.max(_R.started_at)).where(
    _of(sync_run),
    _R.run_id != bindparam("but_run"),
    _R.started_at > bindparam("ended_at", type_=Moment),
)
"""When the last run began that says it began after the end of this one."""
