"""What people call the tenants: read from the source, kept in the ledger, so that others can show it without asking."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from vecsync_dagster.config.entities import NameTable
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import NamesTenants, Source
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.options import is_tenant

__all__ = ["Renewal", "keep_tenant_names", "naming"]

Renewal = Literal["new", "cheap", "all"]
"""Of which tenants names are asked: of new ones; of all, where a table of names has them; of all, which reads the whole
table where a column of the entity's own has them."""

_log = logging.getLogger(__name__)


def naming(entity: EntityConfig, source: Source) -> NamesTenants | None:
    """The source, if it is to say what people call its tenants, and can."""
    asked = entity.tenancy is not None and entity.tenancy.name is not None
    return source if asked and isinstance(source, NamesTenants) else None


def keep_tenant_names(
    ledger: Ledger, name: str, entity: EntityConfig, source: Source, at_source: Iterable[str], *, renew: Renewal
) -> None:
    """The source has listed its tenants: make the ledger know their names. One query, and none where all of them were
    asked for before, unless they are to be renewed. A source that does not give them is a warning, and they are not
    asked for again before they are renewed: no name decides anything."""
    known = {tenant: text for (_, tenant), text in ledger.tenant_names(name).items()}
    namer = naming(entity, source)
    if namer is None or entity.tenancy is None:
        if known:
            ledger.forget_tenant_names(name)
        return
    listed = set(filter(is_tenant, at_source)) - {GLOBAL}
    new = listed - known.keys()
    everything = renew == "all" or (renew == "cheap" and isinstance(entity.tenancy.name, NameTable))
    asked = listed if everything else new
    if not asked:
        return
    try:
        with contained(f"{name}: reading the names of tenants"):
            found = namer.tenant_names(asked)
    except VecsyncError as error:
        _log.warning("%s: names of tenants were not read: %s: %s", name, error.code, error)
        asked, found = new, {}
    changed = {tenant: found.get(tenant, "") for tenant in sorted(asked) if known.get(tenant) != found.get(tenant, "")}
    if changed:
        ledger.set_tenant_names(name, changed)
    if gone := known.keys() - listed - set(ledger.with_rows_or_marks(name)):
        ledger.forget_tenant_names(name, gone)
