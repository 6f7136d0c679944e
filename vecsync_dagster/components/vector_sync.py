"""The component: a whole configuration as part of somebody's Dagster project."""

# Without `from __future__ import annotations`: Dagster reads the annotations of the fields as objects.

from copy import deepcopy
from typing import Annotated, Any

import dagster as dg
from pydantic import Field, model_validator

from vecsync_dagster.config import Config, load_config, validate_config
from vecsync_dagster.definitions import build_definitions

__all__ = ["VectorSync", "VectorSyncScaffolder"]

_EXAMPLE = {
    "sources": {"app": {"type": "postgres", "url": {"env": "DATABASE_URL"}}},
    "entities": {
        "products": {
            "source": "app",
            "table": "products",
            "updated_at": "updated_at",
            "collections": {"products": {"text": "{name} {category}", "payload": ["name", "category"]}},
        }
    },
    "embedding": {"chain": [{"provider": "bundled"}]},
    "stores": {"main": {"type": "qdrant", "path": ".vecsync/qdrant"}},
    "state": ".vecsync",
}


class VectorSyncScaffolder(dg.Scaffolder[Any]):
    """`dg scaffold defs`: a defs.yaml with a small configuration to start from."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        dg.scaffold_component(request, {"config": _EXAMPLE})


@dg.scaffold_with(VectorSyncScaffolder)
class VectorSync(dg.Component, dg.Model, dg.Resolvable):
    """Tables kept in sync with collections of a vector store: assets, checks, jobs, schedules and alerts.

    Give either `config_file` or `config`. One instance holds all entities of a project: they share ledger, stores
    and embedding cache.
    """

    config_file: Annotated[
        str | None, Field(description="A vecsync.yaml; a relative path starts at this defs.yaml's folder")
    ] = None
    config: Annotated[
        dict[str, Any] | None,
        Field(description="What would stand in a vecsync.yaml; relative paths in it start at the project's root"),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> "VectorSync":
        if (self.config_file is None) == (self.config is None):
            raise ValueError("give either config_file or config")
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises ConfigError that names the key and what would be valid."""
        # The project's own executor stays what it is: our jobs bring theirs.
        return build_definitions(self._config(context), executor=None)

    def _config(self, context: dg.ComponentLoadContext) -> Config:
        if self.config_file is not None:
            return load_config(context.path / self.config_file)
        inline = validate_config(deepcopy(self.config), name=f"{context.path.name}: config")
        return inline.with_folder(context.project_root)
