"""A tenant, or `global`, of which the source has no row: when that is believed, so that its documents are removed.

One look may come between the DELETE and the INSERT of an import, or meet a view or a policy that is broken for a
while. So nothing goes before a second look agrees; and of a tenant, nothing before it was missing for a while. What
the source itself says of single records (tombstones) is done at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from vecsync_dagster.config.models import EntityConfig, RemovalGuard
from vecsync_dagster.ledger.base import Ledger, Missing
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.words import named

__all__ = ["Absence", "absence_of", "absences", "is_ruled_out", "is_suspicious", "look_again"]

LOOKS = 2


@dataclass(frozen=True, slots=True)
class Absence:
    """`looks` at the source, one after the other, found no row of the tenant since `since`; before `until` nothing of
    it is removed."""

    tenant: str
    since: datetime
    until: datetime
    looks: int

    def confirmed(self, now: datetime) -> bool:
        return self.looks >= LOOKS and now >= self.until

    def text(self, now: datetime, name: str = "") -> str:
        """For people: who, since when, and when its documents go. `name`: what people call the tenant."""
        return f"{self._who(name)}: {self.since_when(now)}"

    def held_text(self, name: str = "") -> str:
        """The same where the source lacks so many tenants that nothing is removed."""
        return f"{self._who(name)}: missing since {_at(self.since)}, and not removed while so many tenants are"

    def _who(self, name: str) -> str:
        return GLOBAL if self.tenant == GLOBAL else f"tenant {named(self.tenant, name)}"

    def since_when(self, now: datetime) -> str:
        """The same where the tenant is named already."""
        then = f"removed after {_at(self.until)}" if now < self.until else "removed by the next full sync"
        return f"missing since {_at(self.since)}, {then} if it stays away"


def is_suspicious(guard: RemovalGuard, gone: int, known: int) -> bool:
    """Whether the removal guard stops the removal of so many of the documents that are known of a partition."""
    return gone > guard.min_documents and gone > guard.share * known


def is_ruled_out(entity: EntityConfig, tenant: str) -> bool:
    """Whether the configuration leaves no record to this partition: everybody's where each record has its tenant, a
    tenant's where there are no tenants. Nothing of it is missing: it is to be empty."""
    if entity.tenancy is None:
        return tenant != GLOBAL
    return tenant == GLOBAL and entity.tenancy.global_flag is None


def absence_of(tenant: str, missing: Missing, missing_for: timedelta) -> Absence:
    """Everybody's records need a second look, and no more."""
    until = missing.since if tenant == GLOBAL else missing.since + missing_for
    return Absence(tenant, missing.since, until, missing.looks)


def absences(ledger: Ledger, entity: str, missing_for: timedelta) -> dict[str, Absence]:
    """Every tenant that the last look at the source did not find."""
    return {tenant: absence_of(tenant, one, missing_for) for tenant, one in ledger.missing(entity).items()}


def look_again(
    ledger: Ledger, entity: str, missing: Iterable[str], found: Iterable[str], missing_for: timedelta
) -> dict[str, Absence]:
    """One look at the source's list of tenants: remembers who is not there, and who is back."""
    before = ledger.missing(entity)
    back = sorted(before.keys() & set(found))
    if back:
        # Some of it may have gone to others meanwhile, and rows may have the times that they had before.
        for collection, tenant in ledger.seen(entity):
            if tenant in back:
                ledger.doubt(entity, collection, tenant)
        ledger.found(entity, back)
    away = sorted(set(missing))
    looked = ledger.miss(entity, away) if away else {}
    return {tenant: absence_of(tenant, one, missing_for) for tenant, one in looked.items()}


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
