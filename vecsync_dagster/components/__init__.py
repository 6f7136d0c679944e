"""What an existing Dagster project adds with `dg scaffold defs vecsync_dagster.components.VectorSync NAME`."""

from vecsync_dagster.components.vector_sync import VectorSync

__all__ = ["VectorSync"]
