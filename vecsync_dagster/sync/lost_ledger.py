"""A store that is full beside a ledger that knows nothing of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from vecsync_dagster.containment import contained
from vecsync_dagster.sync.compare import FOREIGN
from vecsync_dagster.sync.job import Job
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.verify import CheckOutcome, graded, kept
from vecsync_dagster.words import number_of

__all__ = ["tell_of_all", "tell_of_lost_ledger"]

_log = logging.getLogger(__name__)


def tell_of_lost_ledger(job: Job, target: Target) -> None:
    """A ledger that knows nothing beside a store that is full: of what the source has too, the run takes in what lies
    there as it was written. The rest may be somebody else's: until a comparison finds no such point, no run removes
    any. Where a run of ours, or a rebuild, did not finish, they are ours."""
    with contained(f"{target}: counting"):
        stored = target.store.count(target.collection, target.tenant)
        own = target.store.count(target.collection, target.tenant, target.entity) if stored else 0
    if stored and not job.ledger.unfinished(target.entity, target.collection, target.tenant):
        # Where all are another entity's, it is not lost: an entity was renamed, or somebody else has the collection.
        if own:
            _log.warning(
                "%s: the store has %d points, and the ledger knows of none: those whose records the source has are "
                "taken in and not embedded again; if the ledger was lost, `vecsync ledger rebuild` takes in the others",
                target,
                own,
            )
        found = CheckOutcome(
            "identity",
            passed=False,
            message=f"{number_of(stored, 'point')} that the ledger does not know",
            facts={FOREIGN: stored},
        )
        place = (target.entity, target.collection, target.tenant)
        job.ledger.record_checks([kept(graded(found, job.checks), *place, datetime.now(UTC), job.run_id)])


def tell_of_all(job: Job, target: Target) -> None:
    """The ledger has no document of the collection. Tenants that left the source meanwhile are unknown to it, and no
    run would ever visit what they left behind. The check stays failed until everything is compared again."""
    with contained(f"{target.collection}: counting"):
        stored = target.store.count(target.collection)
    if not stored:
        return
    message = (
        f"the store held {number_of(stored, 'point')} of {target.collection} when the ledger did not know the "
        "collection; those of tenants that left the source stay: after a full sync of all tenants "
        "`vecsync reconcile` names them, and `--repair --allow-removals` removes them"
    )
    found = CheckOutcome("reconciliation", passed=False, message=message, facts={"differences": stored})
    found = graded(found, job.checks)
    job.ledger.record_checks([kept(found, target.entity, "", "", datetime.now(UTC), job.run_id)])
