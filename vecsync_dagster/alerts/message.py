"""What a channel is told: the problems of one run in one message, as text and as data.

A message names entity, partition, check, figures and the run. It never holds document text: an alert has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from vecsync_dagster.ledger.alerts import KnownAlert
from vecsync_dagster.words import number_of, one_line, place_of

__all__ = ["Message", "run_link", "run_message", "test_message", "where"]

LISTED: Final = 20
_WORDS: Final = {
    "check_failure": "check failed",
    "run_failure": "sync failed",
    "source_failure": "not synced",
    "tenants_lost": "tenants lost",
    "cost_limit": "cost limit passed",
    "permanent_failure": "documents failed for good",
    "reconciliation": "store and ledger differ",
}
_OF_CHECKS: Final = {
    "counts": "numbers differ",
    "isolation": "points under a wrong tenant",
    "isolation_of_all": "points under a wrong tenant",
}


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is the same for the same news, so that a receiver can leave out what it was sent twice."""

    id: str
    subject: str
    lines: tuple[str, ...]
    data: dict[str, Any]

    @property
    def text(self) -> str:
        return "\n".join((self.subject, *self.lines))


def run_message(alerts: Sequence[KnownAlert], *, run_id: str, ui_url: str | None) -> Message:
    """Everything there is to say about one run: what began or goes on, and what is over."""
    bad = [known for known in alerts if known.closed_at is None]
    well = [known for known in alerts if known.closed_at is not None]
    link = run_link(run_id, ui_url)
    lines = [*_listed([_problem(known) for known in bad]), *_listed([_recovery(known) for known in well])]
    if run_id:
        lines.append(f"Run {link or run_id}")
    entities = ", ".join(dict.fromkeys(known.alert.entity for known in alerts))
    subject = _subject(len(bad), len(well), entities)
    data = {
        "source": "vecsync",
        "subject": subject,
        "run_id": run_id or None,
        "run_url": link,
        "alerts": [_data(known) for known in (*bad, *well)],
    }
    return Message(_id(alerts), subject, tuple(lines), data)


def test_message(now: datetime) -> Message:
    """What `vecsync alerts test` sends."""
    subject = "vecsync: this is a test of the alerts"
    line = f"Sent by `vecsync alerts test` at {_at(now)}. If you read this, the channel works."
    digest = hashlib.sha256(now.isoformat().encode()).hexdigest()[:32]
    return Message(digest, subject, (line,), {"source": "vecsync", "subject": subject, "alerts": [], "test": True})


def run_link(run_id: str, ui_url: str | None) -> str | None:
    return f"{ui_url.rstrip('/')}/runs/{run_id}" if run_id and ui_url else None


def _subject(bad: int, well: int, entities: str) -> str:
    parts = [f"{bad} problem{'' if bad == 1 else 's'}"] if bad else []
    parts += [f"{well} resolved"] if well else []
    return f"vecsync: {', '.join(parts)} in {entities}"


def _problem(known: KnownAlert) -> str:
    return f"{known.alert.severity.upper()} {_what(known)}"


def _recovery(known: KnownAlert) -> str:
    return f"RESOLVED {_where(known)} (was: {_title(known)}, since {_at(known.opened_at)})"


def _title(known: KnownAlert) -> str:
    return _OF_CHECKS.get(known.alert.check or "", _WORDS[known.alert.kind])


def _what(known: KnownAlert) -> str:
    alert = known.alert
    figures = one_line(", ".join(f"{name} {value}" for name, value in alert.figures.items()))
    counted = f" [{figures}]" if figures else ""
    since = f" (since {_at(known.opened_at)})" if known.raised_at != known.opened_at else ""
    differences = alert.figures.get("differences")
    # That they differ is said already, and by how much is among the figures.
    doubled = f"{number_of(differences, 'difference')}: " if isinstance(differences, int) else ""
    return f"{_where(known)}: {_title(known)}: {one_line(alert.message.removeprefix(doubled))}{counted}{since}"


def _where(known: KnownAlert) -> str:
    alert = known.alert
    what = "job" if alert.kind == "run_failure" else "check"
    return one_line(", ".join([where(known), *([f"{what} {alert.check}"] if alert.check else [])]))


def where(known: KnownAlert) -> str:
    """The place for people: `works, materials of Hoffmann Bau (0b5f…)`, or the entity alone."""
    return place_of(known.alert.entity, *known.alert.place, known.tenant_name)


def _listed(lines: Sequence[str]) -> list[str]:
    more = len(lines) - LISTED
    return [*lines[:LISTED], *([f"and {more:,} more"] if more > 0 else [])]


def _data(known: KnownAlert) -> dict[str, Any]:
    alert = known.alert
    return {
        "state": "open" if known.closed_at is None else "closed",
        "key": alert.key,
        "kind": alert.kind,
        "severity": alert.severity,
        "entity": alert.entity,
        "partition": alert.partition,
        "tenant_name": known.tenant_name,
        "check": alert.check,
        "message": alert.message,
        "figures": dict(alert.figures),
        "opened_at": known.opened_at.isoformat(),
        "closed_at": known.closed_at.isoformat() if known.closed_at else None,
    }


def _id(alerts: Sequence[KnownAlert]) -> str:
    states = sorted(f"{a.key}\0{a.episode}\0{a.raised_at.isoformat()}\0{a.closed_at}" for a in alerts)
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:32]


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z"
