"""Who is there: the tenants a source lists beside those that are known, and whether the source is to be believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.options import is_tenant

__all__ = ["RollCall", "TenantsLost", "call_the_roll"]


@dataclass(frozen=True, slots=True)
class TenantsLost:
    """The source lacks so many of the tenants that have documents that it is taken for broken. `known` tenants have
    documents; of these the source still lists `listed`, and lacks `missing`."""

    entity: str
    known: int
    listed: int
    missing: tuple[str, ...]
    max_lost_share: float

    def __str__(self) -> str:
        return (
            f"{self.entity}: the source lists {self.listed} of {self.known} tenants that have documents: it lacks more "
            f"than automation.tenants.max_lost_share ({self.max_lost_share:.0%}), so it is taken for broken and "
            f"nothing is removed. To remove one that is really gone: "
            f"vecsync sync tenant ID --entity {self.entity} --full --allow-removals"
        )


@dataclass(frozen=True, slots=True)
class RollCall:
    """Tenants without `global`. `listed`: by the source, with keys that can be partitions; `invalid`: with others;
    `vanished`: known, and not at the source. `lost`: why nothing may be removed."""

    listed: tuple[str, ...]
    invalid: tuple[str, ...]
    vanished: tuple[str, ...]
    lost: TenantsLost | None


def call_the_roll(
    entity: str, at_source: Iterable[str], with_documents: Iterable[str], known: Iterable[str], max_lost_share: float
) -> RollCall:
    """`with_documents`: tenants that would lose something; `known`: others that left a trace (partitions)."""
    found = set(at_source) - {GLOBAL}
    listed = {tenant for tenant in found if is_tenant(tenant)}
    holders = set(with_documents) - {GLOBAL}
    missing = holders - found
    lost = None
    if len(missing) > max_lost_share * len(holders):
        lost = TenantsLost(entity, len(holders), len(holders) - len(missing), tuple(sorted(missing)), max_lost_share)
    vanished = (holders | set(known)) - found - {GLOBAL}
    return RollCall(tuple(sorted(listed)), tuple(sorted(found - listed)), tuple(sorted(vanished)), lost)
