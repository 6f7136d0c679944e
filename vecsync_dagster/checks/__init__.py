"""Asset checks: their specs, and the outcomes of a sync as Dagster's evaluations."""

from vecsync_dagster.checks.evaluations import check_specs, evaluation

__all__ = ["check_specs", "evaluation"]
