"""What the pages of Dagster's UI show of an entity's checks: asked of the real webserver, with the UI's own queries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from vecsync_dagster_tests.automation.deployment import Deployment
from vecsync_dagster_tests.world import ENTITY

__all__ = ["Page", "Pages"]

# As AssetChecksQuery and AssetCheckPartitionHealthQuery of the webserver's JavaScript ask.
# (Asset health is answered by Dagster+ alone.)
_CHECKS = """
query AssetChecksQuery($assetKey: AssetKeyInput!) {
  assetNodeOrError(assetKey: $assetKey) { ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
    name
    executionForLatestMaterialization { status evaluation { severity description partition } }
    partitionKeysByDimension { name partitionKeys }
    partitionStatuses { ... on AssetCheckMultiPartitionStatuses {
      primaryDimensionName
      ranges {
        primaryDimStartKey
        primaryDimEndKey
        secondaryDim { ... on AssetCheckDefaultPartitionStatuses {
          succeededPartitions failedPartitions inProgressPartitions skippedPartitions executionFailedPartitions
        } }
      }
    } }
  } } } } }
}"""


@dataclass(frozen=True)
class Page:
    """One check: the status beside its name, its description, and the partitions by status."""

    status: str
    severity: str
    message: str
    grid: dict[str, set[str]]


class Pages:
    def __init__(self, web: Deployment) -> None:
        self._web = web

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._web.ports['web']}"

    def health(self) -> dict[str, Page]:
        """The checks of `health`, by name: the headlines, and those over all partitions."""
        return self._page("health")

    def grid(self) -> dict[str, Page]:
        """The checks of `checks`, by name, with their Partitions tabs."""
        return self._page("checks")

    def _page(self, asset: str) -> dict[str, Page]:
        node = self._web.ask(_CHECKS, assetKey={"path": [ENTITY, asset]})["assetNodeOrError"]
        return {check["name"]: _page_of(check) for check in node["assetChecksOrError"]["checks"]}


def _page_of(check: dict[str, Any]) -> Page:
    last = check["executionForLatestMaterialization"] or {"status": "NOT_EVALUATED", "evaluation": None}
    evaluation = last["evaluation"] or {"severity": "", "description": ""}
    return Page(last["status"], evaluation["severity"], evaluation["description"] or "", _grid_of(check))


def _grid_of(check: dict[str, Any]) -> dict[str, set[str]]:
    statuses = check["partitionStatuses"]
    if statuses is None:
        return {}
    keys = {one["name"]: one["partitionKeys"] for one in check["partitionKeysByDimension"]}
    primary = keys[statuses["primaryDimensionName"]]
    found: dict[str, set[str]] = defaultdict(set)
    for some in statuses["ranges"]:
        begin, end = primary.index(some["primaryDimStartKey"]), primary.index(some["primaryDimEndKey"])
        for one in primary[begin : end + 1]:
            for status, others in some["secondaryDim"].items():
                pairs = [(one, other) for other in others]
                if statuses["primaryDimensionName"] == "tenant":
                    pairs = [(other, tenant) for tenant, other in pairs]
                found[status.removesuffix("Partitions")].update("|".join(pair) for pair in pairs)
    return {status: there for status, there in found.items() if there}
