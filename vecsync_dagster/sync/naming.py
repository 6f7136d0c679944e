"""What people call the tenants: read from the source, kept in the ledger, so that others can show it without asking."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Naming, Source
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.options import is_tenant

__all__ = ["keep_names"]

_log = logging.getLogger(__name__)


def keep_names(
    ledger: Ledger, name: str, entity: EntityConfig, source: Source, at_source: Iterable[str], *, renew: bool
) -> None:
    """The source has listed its tenants: make the ledger know their names. One query, and none where all of them were
    asked for before, unless they are to be renewed. A source that does not give them is a warning: no name decides
    anything."""
    known = {tenant: text for (_, tenant), text in ledger.names(name).items()}
    if entity.tenancy is None or entity.tenancy.name is None or not isinstance(source, Naming):
        if known:
            ledger.forget_names(name)
        return
    listed = set(filter(is_tenant, at_source)) - {GLOBAL}
    if not renew and listed <= known.keys():
        return
    try:
        with contained(f"{name}: reading the names of tenants"):
            found = source.names(listed)
    except VecsyncError as error:
        _log.warning("%s: names of tenants were not read: %s: %s", name, error.code, error)
        return
    changed = {tenant: found.get(tenant, "") for tenant in sorted(listed) if known.get(tenant) != found.get(tenant, "")}
    if changed:
        ledger.set_names(name, changed)
    if gone := known.keys() - listed - set(ledger.tenants(name)):
        ledger.forget_names(name, gone)
