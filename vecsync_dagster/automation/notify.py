"""What the tenants sensor tells of a source that is taken for broken, and that it is well again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vecsync_dagster.alerts import Alerts, tenants_lost
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.rollcall import TenantsLost

__all__ = ["Notify", "keep_for_alerts"]

Notify = Callable[[Workspace, str, TenantsLost | None], None]
"""Called in every tick with the entity and what its source lacks, None where it is well: telling people once is the
callee's business."""


def keep_for_alerts(workspace: Workspace, entity: str, lost: TenantsLost | None) -> None:
    """Into the log, and into the ledger, from where the delivery sensor tells the channels."""
    raised = []
    if lost is not None:
        logging.getLogger("vecsync.automation").error("%s", lost)
        raised.append(tenants_lost(entity, known=lost.known, found=lost.listed))
    Alerts(workspace.config.alerts, workspace.ledger).observe(
        raised, lambda known: lost is None and (known.alert.kind, known.alert.entity) == ("tenants_lost", entity)
    )
