"""How long a failed document waits for its next attempt: a function without a clock."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.config.models import RetryConfig
from vecsync_dagster.sync.apply import backoff
from vecsync_dagster_tests.properties import a_property

CONFIGS = st.builds(
    RetryConfig,
    max_retries=st.integers(0, 1000),
    base=st.timedeltas(timedelta(0), timedelta(days=1)),
    multiplier=st.floats(1, 100),
    cap=st.timedeltas(timedelta(0), timedelta(days=1)),
)


def waits(config: RetryConfig, failures: int) -> list[float | None]:
    """Seconds after each failure; None: no other attempt."""
    found = (backoff(n, config) for n in range(1, failures + 1))
    return [None if wait is None else wait.total_seconds() for wait in found]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RetryConfig(), [5, 10, 20, 40, 80, None, None]),
        (RetryConfig(max_retries=8), [5, 10, 20, 40, 80, 160, 300, 300, None]),
        (RetryConfig(max_retries=0), [None]),
        (RetryConfig(multiplier=1), [5, 5, 5, 5, 5, None]),
        (RetryConfig(base=timedelta(0)), [0, 0, 0, 0, 0, None]),
        (RetryConfig(base=timedelta(seconds=400)), [300, 300, 300, 300, 300, None]),
        (RetryConfig(cap=timedelta(0)), [0, 0, 0, 0, 0, None]),
    ],
)
def test_waits(config: RetryConfig, expected: list[float | None]) -> None:
    """Base x multiplier^n, capped, and permanent once the retries are used up."""
    assert waits(config, len(expected)) == expected


@a_property
@given(CONFIGS, st.integers(1, 1001))
def test_bounds(config: RetryConfig, failures: int) -> None:
    """However often it failed: a wait between nothing and the cap, never shorter than the one before, or none."""
    wait = backoff(failures, config)
    if failures > config.max_retries:
        assert wait is None
        return
    assert wait is not None
    assert timedelta(0) <= wait <= config.cap
    before = backoff(failures - 1, config) if failures > 1 else timedelta(0)
    assert before is not None
    assert before <= wait
