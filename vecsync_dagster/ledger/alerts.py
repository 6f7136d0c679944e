"""Problems that were seen, and what each channel was told of them: kept here, so that both survive a restart.

What belongs here: which problem is open, since when, and what a channel has yet to be told. What a problem is,
and how it is told, is the business of the room `alerts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, and_, case, delete, func, not_, or_, select, update

from vecsync_dagster.config.alerts import AlertKind, Severity
from vecsync_dagster.ledger.document_statements import REJECTED
from vecsync_dagster.ledger.part import Insert, LedgerPart, chunks, clean, insert_into
from vecsync_dagster.ledger.partition_statements import FAILED
from vecsync_dagster.ledger.tables import alert, alert_delivery, index_state, tenant_name

__all__ = ["Alert", "AlertBook", "KnownAlert", "Owner"]

_A: Final = alert.c
_D: Final = alert_delivery.c
_N: Final = tenant_name.c
_T: Final = index_state.c

KEPT: Final = timedelta(days=30)
"""How long a problem that is over stays in the table, and one of another project that nobody looks for any more."""
OLD_NEWS: Final = timedelta(days=1)
"""A problem that ended longer ago is not told any more to a channel that never heard of it (a new one, for example)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A problem: names, counts and codes; never document text, never a secret.

    `partition` is `collection|tenant`, or a tenant's key where all its partitions are meant; None: the entity as a
    whole. `check`: also the job whose run failed, where that synced nothing. `message` is one sentence. `run_id`: the
    Dagster run that found it, empty where there is none. `at`: when it was found, None: by whoever looks now.
    """

    kind: AlertKind
    entity: str
    message: str
    partition: str | None = None
    check: str | None = None
    severity: Severity = "error"
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    run_id: str = ""
    at: datetime | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """What makes it the same problem when it is seen again."""
        return ":".join((self.kind, self.entity, self.check or "", self.partition or ""))

    @property
    def place(self) -> tuple[str, str]:
        """Collection and tenant; empty where all are meant."""
        collection, bar, tenant = (self.partition or "").partition("|")
        return (collection, tenant) if bar else ("", collection)


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """A problem as the ledger has it. `episode` counts how often it began; `closed_at` None: it is still there.
    `tenant_name`: what people call the tenant of the partition."""

    alert: Alert
    episode: int
    opened_at: datetime
    raised_at: datetime
    closed_at: datetime | None
    tenant_name: str = ""

    @property
    def key(self) -> str:
        return self.alert.key


class Owner(NamedTuple):
    """Who has alerts: a project has its own, and those of what is in its configuration (entity and collection), also
    where it was another folder then, or an earlier version. An alert may be of several entities together."""

    project: str
    places: frozenset[tuple[str, str]]

    def has(self, row: Row[*tuple[Any, ...]]) -> bool:
        if row.project == self.project:
            return True
        collection, _ = _known(row).alert.place
        entities = row.entity.split(", ")
        return any(entity in entities and collection in ("", one) for entity, one in self.places)


def _is_of(owner: Owner | None, row: Row[*tuple[Any, ...]]) -> bool:
    return owner is None or owner.has(row)


class AlertBook(LedgerPart):
    """`owner`: whose alerts alone; None: all."""

    def observe(
        self,
        raised: Sequence[Alert],
        well: Callable[[KnownAlert], bool],
        *,
        run_id: str,
        at: datetime,
        owner: Owner | None = None,
    ) -> None:
        """What somebody found who looked at the time `at`, in one transaction: problems, and which open ones are over
        (`well`).

        Runs may be looked at late and out of order: what is known from a later look stays as it is. Observing the same
        twice changes nothing.
        """
        project = None if owner is None else owner.project
        rows = [{**_values(one, at), "project": project} for one in {one.key: one for one in raised}.values()]
        keys = {row["key"] for row in rows}
        with self.database.write() as connection:
            for some in chunks(rows):
                connection.execute(_raise(self.database.dialect), some)
            still = select(alert).where(_A.closed_at.is_(None), _A.observed_at <= at)
            for row in connection.execute(still).all():
                over = update(alert).where(_A.key == row.key, _A.observed_at <= at)
                if _is_of(owner, row):
                    if row.key not in keys and well(_known(row)):
                        connection.execute(over, {"closed_at": at, "observed_at": at, "run_id": run_id})
                elif row.observed_at < self._now() - KEPT:  # its project is gone
                    connection.execute(over, {"closed_at": row.observed_at})
            self._forget_old(connection.execute)

    def alerts(self, owner: Owner | None = None) -> list[KnownAlert]:
        """Open problems, those that began last first."""
        query = select(alert).where(_A.closed_at.is_(None)).order_by(_A.opened_at.desc(), _A.key)
        with self.database.read() as connection:
            rows = [row for row in connection.execute(query).all() if _is_of(owner, row)]
            return _with_names(connection, list(map(_known, rows)))

    def untold(self, channel: str, cool_down: timedelta, owner: Owner | None = None) -> list[KnownAlert]:
        """What a channel has yet to be told: a problem that began, one that was seen again after the cool-down,
        and (once) that one is over. Ordered by run."""
        finished = and_(_A.closed_at.is_not(None), _D.closed.is_(True), _D.episode == _A.episode)
        query = (
            select(alert, _D.episode.label("told_episode"), _D.closed, _D.told_at)
            .outerjoin(alert_delivery, and_(_D.key == _A.key, _D.channel == channel))
            .where(not_(func.coalesce(finished, False)))
            .order_by(_A.observed_at, _A.run_id, _A.key)
        )
        now = self._now()
        with self.database.read() as connection:
            found = [row for row in connection.execute(query).all() if _is_of(owner, row)]
            rows = [row for row in found if _is_untold(row, cool_down, now)]
            return _with_names(connection, list(map(_known, rows)))

    def told(self, channel: str, alerts: Iterable[KnownAlert]) -> None:
        """The channel took a message about these."""
        now = self._now()
        rows = [
            {
                "key": known.key,
                "channel": channel,
                "episode": known.episode,
                "closed": known.closed_at is not None,
                "told_at": now,
            }
            for known in alerts
        ]
        with self.database.write() as connection:
            for some in chunks(rows):
                connection.execute(_told(self.database.dialect), some)

    def permanent_failures(self, entity: str, collection: str) -> dict[str, tuple[int, datetime | None]]:
        """Tenant -> documents that failed for good, and when the last one did; only where there are any. Rejected
        records are not among them: no attempt was made for those."""
        query = (
            select(_T.tenant_id, func.count(), func.max(_T.last_attempt_at))
            # The collection as no key of another index: SQLite shall take that of failed rows.
            .where(FAILED, _T.entity == entity, _T.collection.concat("") == collection)
            .where(_T.next_attempt_at.is_(None), ~REJECTED)
            .group_by(_T.tenant_id)
        )
        with self.database.read() as connection:
            return {tenant: (count, at) for tenant, count, at in connection.execute(query)}

    def _forget_old(self, execute: Callable[..., Any]) -> None:
        old = select(_A.key).where(_A.closed_at < self._now() - KEPT)
        execute(delete(alert_delivery).where(_D.key.in_(old)))
        execute(delete(alert).where(_A.closed_at < self._now() - KEPT))


def _is_untold(row: Row[*tuple[Any, ...]], cool_down: timedelta, now: datetime) -> bool:
    told: datetime | None = row.told_at
    if told is None:
        return row.closed_at is None or row.closed_at > now - OLD_NEWS
    if row.closed_at is not None or row.closed or row.told_episode != row.episode:
        return True  # the last word that was said about it is not true any more
    return row.raised_at > told and now >= told + cool_down


def _values(one: Alert, at: datetime) -> dict[str, Any]:
    found = one.at or at
    return {
        "key": one.key,
        "kind": one.kind,
        "entity": one.entity,
        "partition": one.partition,
        "check_name": one.check,
        "severity": one.severity,
        "message": clean(one.message),
        "figures": dict(one.figures),
        "run_id": one.run_id,
        "episode": 1,
        "opened_at": found,
        "raised_at": found,
        "observed_at": at,
        "closed_at": None,
    }


def _known(row: Row[*tuple[Any, ...]]) -> KnownAlert:
    found = Alert(
        kind=row.kind,
        entity=row.entity,
        message=row.message,
        partition=row.partition,
        check=row.check_name,
        severity=row.severity,
        figures=row.figures,
        run_id=row.run_id,
    )
    return KnownAlert(found, row.episode, row.opened_at, row.raised_at, row.closed_at)


def _with_names(connection: Connection, alerts: Sequence[KnownAlert]) -> list[KnownAlert]:
    places = [(one.alert.entity, one.alert.place[1]) for one in alerts]
    names: dict[tuple[str, str], str] = {}
    for some in chunks(sorted({tenant for _, tenant in places if tenant})):
        query = select(_N.entity, _N.tenant_id, _N.name).where(_N.tenant_id.in_(some))
        names |= {(entity, tenant): name for entity, tenant, name in connection.execute(query)}
    return [replace(one, tenant_name=names.get(place, "")) for one, place in zip(alerts, places, strict=True)]


@cache
def _raise(dialect: str) -> Insert:
    statement = insert_into(alert, dialect)
    new = statement.excluded
    over = _A.closed_at.is_not(None)
    worse = and_(_A.severity == "warning", new.severity == "error")
    replaced = ("severity", "message", "figures", "raised_at", "observed_at", "closed_at", "project")
    news = or_(over, new.raised_at > _A.raised_at, _A.run_id == "")
    begun = {
        # What was told of a warning is not true of an error: it waits for no cool-down.
        "episode": case((or_(over, worse), _A.episode + 1), else_=_A.episode),
        "opened_at": case((over, new.opened_at), else_=_A.opened_at),
        # Whoever sees the same again, as it was found before, has not found it.
        "run_id": case((news, new.run_id), else_=_A.run_id),
    }
    return statement.on_conflict_do_update(
        index_elements=[_A.key],
        set_={**{name: new[name] for name in replaced}, **begun},
        where=_A.observed_at <= new.observed_at,
    )


@cache
def _told(dialect: str) -> Insert:
    statement = insert_into(alert_delivery, dialect)
    values = {name: statement.excluded[name] for name in ("episode", "closed", "told_at")}
    return statement.on_conflict_do_update(index_elements=[_D.key, _D.channel], set_=values)
