"""An environment without overrides, whatever the machine that runs the tests has set."""

from __future__ import annotations

import pytest

from vecsync_dagster.config.loading import ENVIRONMENT, RETRY_ENVIRONMENT


@pytest.fixture(autouse=True)
def _no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*ENVIRONMENT, *RETRY_ENVIRONMENT, "VECSYNC_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
