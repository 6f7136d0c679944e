"""Check outcomes as Dagster sees them: of each partition, and the worst of them as the check's headline.

Both are on assets that are never materialized, because Dagster takes a result for outdated as soon as its asset is
materialized again: a result there stays until another one of the same check and partition replaces it. `checks` has
the grid of partitions. `health` has one unpartitioned check of each name: what Dagster shows as the state of a
partitioned check is the partition that came last, so that a healthy tenant hides a broken one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from vecsync_dagster.automation.partitions import partition_key
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.sync import CheckOutcome, checks_of
from vecsync_dagster.sync.compare import Difference

__all__ = ["check_metadata", "check_specs", "evaluation", "grid_key", "health_key", "severity"]

_SHOWN = 100  # of the differences: an event of a database is no place for thousands
_COLUMNS = ("kind", "document", "point", "tenant", "stored_tenant")


def check_specs(entity: str, config: EntityConfig, partitions: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """The checks of each partition."""
    with warnings.catch_warnings():
        # Dagster still calls this a preview; the version is pinned below 1.14, and the tests show that it works.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(name=name, asset=grid_key(entity), description=description, partitions_def=partitions)
            for name, (_, description) in checks_of(config).items()
        ]


def grid_key(entity: str) -> dg.AssetKey:
    return dg.AssetKey([entity, "checks"])


def health_key(entity: str) -> dg.AssetKey:
    return dg.AssetKey([entity, "health"])


def evaluation(
    entity: str, collection: str, tenant: str, check: CheckOutcome, tenant_name: str = ""
) -> dg.AssetCheckEvaluation:
    """One check of one partition. Its metadata has counts and, for differences, ids, and what people call the tenant:
    never document text. A failed one names its partition: the log of a run has no column for it."""
    key = str(partition_key(collection, tenant))
    place = {} if check.passed else {"partition": dg.MetadataValue.text(key)}
    name = {"tenant_name": dg.MetadataValue.text(tenant_name)} if tenant_name else {}
    return dg.AssetCheckEvaluation(
        asset_key=grid_key(entity),
        check_name=check.name,
        passed=check.passed,
        metadata={**place, **name, **{key: _unplotted(value) for key, value in check_metadata(check).items()}},
        severity=severity(check),
        description=check.message,
        partition=key,
    )


def check_metadata(check: CheckOutcome) -> dict[str, dg.MetadataValue]:
    """Counts and, for differences, the first ids."""
    metadata: dict[str, dg.MetadataValue] = {}
    if not check.passed:  # once more what the description says: the log of a run shows the metadata alone
        metadata["result"] = dg.MetadataValue.text(f"{'warning: ' * check.warning}{check.message}")
    for name, fact in check.facts.items():
        metadata[name] = dg.MetadataValue.int(fact) if isinstance(fact, int) else dg.MetadataValue.text(fact)
    if check.differences:
        metadata["differences"] = _differences(check.differences[:_SHOWN])
    if check.rows:
        metadata["records"] = _table(list(check.rows[0]), check.rows)
    return metadata


def _unplotted(value: dg.MetadataValue) -> dg.MetadataValue:
    """Dagster draws one line through a check's numbers, whichever partitions they are of: as text it draws none."""
    return dg.MetadataValue.text(f"{value.value:,}") if isinstance(value, dg.IntMetadataValue) else value


def severity(check: CheckOutcome) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if check.warning else dg.AssetCheckSeverity.ERROR


def _differences(differences: Sequence[Difference]) -> dg.MetadataValue:
    """A column that is empty throughout is left out."""
    rows = [
        {
            "kind": d.kind,
            "document": d.document_id or "",
            "point": d.point_id,
            "tenant": d.tenant or "",
            "stored_tenant": d.stored_tenant or "",
        }
        for d in differences
    ]
    return _table([column for column in _COLUMNS if any(row[column] for row in rows)], rows)


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> dg.MetadataValue:
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: row.get(name, "") for name in columns}) for row in rows], schema=schema
    )
