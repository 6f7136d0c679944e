"""Asset checks: their specs, and the outcomes of a sync as Dagster's evaluations."""

from vecsync_dagster.checks.evaluations import check_specs, evaluation, grid_key, health_key, severity
from vecsync_dagster.checks.headlines import (
    failing_last,
    headlines,
    last_in_grid,
    over_in_grid,
    red_checks,
    run_in_grid,
    to_tell,
)

__all__ = [
    "check_specs",
    "evaluation",
    "failing_last",
    "grid_key",
    "headlines",
    "health_key",
    "last_in_grid",
    "over_in_grid",
    "red_checks",
    "run_in_grid",
    "severity",
    "to_tell",
]
