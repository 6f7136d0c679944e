"""What a source looked like before a sync: taken first, so that what changes meanwhile is found by the next look."""

from __future__ import annotations

from dataclasses import replace

from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.sources.base import Fingerprint, Fingerprinting, Source
from vecsync_dagster.sync.options import PartitionResult, SyncOptions

__all__ = ["Looks", "leaves_nothing_out", "seen_after"]


class Looks:
    """Looks at sources: one tenant at a time, or at all of them ahead of a run over many."""

    def __init__(self) -> None:
        self._ahead: dict[str, dict[str, Fingerprint]] = {}
        self._used: set[tuple[str, str]] = set()

    def ahead(self, entity: str, source: Source) -> None:
        """Many tenants are about to be synced: one statement in place of one for each. A look that is older than it
        need be costs at most one more run that finds nothing to do."""
        if isinstance(source, Fingerprinting):
            self._ahead[entity] = source.fingerprints()
            self._used = {(name, tenant) for name, tenant in self._used if name != entity}

    def at(self, entity: str, tenant: str, source: Source) -> Fingerprint | None:
        """The look before a sync of this tenant; None where the source has none. Raises Source* errors."""
        if not isinstance(source, Fingerprinting):
            return None
        if entity in self._ahead and (entity, tenant) not in self._used:
            self._used.add((entity, tenant))
            return self._ahead[entity].get(tenant, Fingerprint())
        return source.fingerprints(tenant).get(tenant, Fingerprint())


def leaves_nothing_out(options: SyncOptions) -> bool:
    """Whether such a run reads the source itself, all that changed in it, and writes it to the store."""
    return options.depth == "apply" and not options.partial and "export" in options.stages


def seen_after(result: PartitionResult, before: Fingerprint | None, settings: str) -> Seen:
    """What a successful run has seen, of which `before` was the look.

    An incremental run does not see every deletion. Where the ledger accounts for another number of rows than the
    source has, that number is kept: the next look then differs, and a full run is asked for.
    """
    counts = next((check.facts for check in result.checks if check.name == "counts"), None)
    if before is not None and result.mode == "incremental" and counts is not None:
        rows = sum(int(counts[name]) for name in ("ledger", "not_stored", "unidentified"))
        before = replace(before, rows=rows - int(counts.get("former", 0)))
    return Seen(result.started_at, settings, before)
