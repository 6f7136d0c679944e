"""Cron schedules are checked as Dagster reads them, without loading it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dagster._utils.schedules import is_valid_cron_schedule

from vecsync_dagster.config.cron import is_cron

GOOD = [
    "0 3 * * *",
    "0 3 * * SUN",
    "*/15 * * * *",
    "0 3 * * 0-7",
    "0 3 l * *",
    "0 3 * * 5#3",
    "@daily",
    "0 3 ? * *",
    "0 3 * jan,Feb *",
]
BAD = [
    "daily",
    "* * * * * *",
    "0 3 30 2 *",
    "60 * * * *",
    "*/0 * * * *",
    "0 24 * * *",
    "0 3 * * 1,",
    "",
    "0 3 0 * *",
    "@reboot",
    "0 3 15W * *",
]


@pytest.mark.parametrize("cron", [*GOOD, *BAD])
def test_what_dagster_takes_is_taken(cron: str) -> None:
    """A schedule that Dagster could not run is refused when the file is read, and no other."""
    assert is_cron(cron) is is_valid_cron_schedule(cron) is (cron in GOOD)


def test_a_schedule_in_the_file_does_not_load_dagster() -> None:
    """Commands that need no Dagster do not wait for it."""
    program = (
        "import sys; from vecsync_dagster.config.automation import ScheduleConfig; "
        "ScheduleConfig(cron='5 4 * * *'); sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
