"""Check outcomes of `sync.verify` as Dagster sees them: one spec a check and entity, one evaluation a partition."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

from vecsync_dagster.automation.partitions import partition_key
from vecsync_dagster.sync import CHECKS, CheckOutcome
from vecsync_dagster.sync.compare import Difference

__all__ = ["check_specs", "evaluation"]

_COLUMNS = ("kind", "document", "point", "tenant", "stored_tenant")


def check_specs(entity: str, partitions: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """Partitioned like the asset, so that a check that failed for one tenant is not hidden by the next one's."""
    with warnings.catch_warnings():
        # Dagster still calls this a preview; the version is pinned below 1.14, and the tests show that it works.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name=name, asset=dg.AssetKey([entity, stage]), description=description, partitions_def=partitions
            )
            for name, (stage, description) in CHECKS.items()
        ]


def evaluation(entity: str, collection: str, tenant: str, check: CheckOutcome) -> dg.AssetCheckEvaluation:
    """One check of one partition. Its metadata has counts and, for differences, ids: never document text."""
    stage, _ = CHECKS[check.name]
    metadata: dict[str, dg.MetadataValue] = {"result": dg.MetadataValue.text(check.message)}
    for name, fact in check.facts.items():
        metadata[name] = dg.MetadataValue.int(fact) if isinstance(fact, int) else dg.MetadataValue.text(fact)
    if check.differences:
        metadata["differences"] = _table(check.differences)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([entity, stage]),
        check_name=check.name,
        passed=check.passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN if check.warning else dg.AssetCheckSeverity.ERROR,
        description=check.message,
        blocking=False,
        partition=str(partition_key(collection, tenant)),
    )


def _table(differences: Sequence[Difference]) -> dg.MetadataValue:
    records = [
        dg.TableRecord(
            {
                "kind": d.kind,
                "document": d.document_id or "",
                "point": d.point_id,
                "tenant": d.tenant or "",
                "stored_tenant": d.stored_tenant or "",
            }
        )
        for d in differences
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in _COLUMNS])
    return dg.MetadataValue.table(records=records, schema=schema)
