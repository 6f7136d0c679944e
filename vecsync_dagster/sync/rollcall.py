"""Who is there: the tenants a source lists beside those that are known, and whether the source is to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vecsync_dagster.errors import TenantsLost
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.options import is_tenant

__all__ = ["RollCall", "call_the_roll"]

_NAMED = 5


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
        lost = _lost(entity, len(holders), sorted(missing), max_lost_share)
    vanished = (holders | set(known)) - found - {GLOBAL}
    return RollCall(tuple(sorted(listed)), tuple(sorted(found - listed)), tuple(sorted(vanished)), lost)


def _lost(entity: str, known: int, missing: Sequence[str], max_lost_share: float) -> TenantsLost:
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return TenantsLost(
        f"{entity}: the source lists {known - len(missing)} of {known} tenants that have documents: it lacks more "
        f"than automation.tenants.max_lost_share ({max_lost_share:.0%}), so it is taken for broken and nothing is "
        f"removed. To remove one that is really gone: `vecsync sync tenant ID --entity {entity} --full "
        "--allow-removals`, or in the launchpad its `partitions` with `mode: full` and `allow_removals: true`. "
        f"Missing: {', '.join(missing[:_NAMED])}{more}",
        known=known,
        missing=missing,
        entity=entity,
    )
