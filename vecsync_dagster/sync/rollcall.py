"""Who is there: the tenants a source lists beside those that are known, and whether the source is to be believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vecsync_dagster.errors import TenantsLost
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.options import is_tenant

__all__ = ["RollCall", "call_the_roll"]


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
        lost = TenantsLost(entity, len(holders), sorted(missing), max_lost_share)
    vanished = (holders | set(known)) - found - {GLOBAL}
    return RollCall(tuple(sorted(listed)), tuple(sorted(found - listed)), tuple(sorted(vanished)), lost)
