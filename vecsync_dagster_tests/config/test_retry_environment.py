"""The retry worker's settings under the names that existing deployments have in their environment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vecsync_dagster.config.loading import RETRY_ENVIRONMENT, parse_config
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.config.examples import VALID

VALUES = {
    "SYNC_WORKER_ENABLED": ("false", False),
    "SYNC_WORKER_INTERVAL_MS": ("30000", timedelta(seconds=30)),
    "SYNC_WORKER_BATCH_SIZE": ("25", 25),
    "SYNC_MAX_RETRIES": ("7", 7),
    "SYNC_BASE_BACKOFF_MS": ("1500", timedelta(seconds=1.5)),
    "SYNC_BACKOFF_MULTIPLIER": ("3", 3.0),
    "SYNC_MAX_BACKOFF_MS": ("600000", timedelta(minutes=10)),
}


@pytest.mark.parametrize("variable", RETRY_ENVIRONMENT)
def test_each_variable_sets_its_key(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds are milliseconds; a value that is none is refused by the variable's name."""
    text, value = VALUES[variable]
    monkeypatch.setenv(variable, text)
    assert getattr(parse_config(VALID).sync.retry, RETRY_ENVIRONMENT[variable][-1]) == value
    monkeypatch.setenv(variable, "many")
    with pytest.raises(ConfigError, match=variable):
        parse_config(VALID)
