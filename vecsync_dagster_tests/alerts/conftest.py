"""Channels that lead to servers on loopback, a ledger, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina

from vecsync_dagster.alerts import Alert, Alerts
from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.fakes.alert_servers import Inbox, MailServer
from vecsync_dagster_tests.ledger.samples import Clock

SECRET = "hush"
BROKEN = Alert(
    "reconciliation",
    "works",
    "2 missing",
    "works|acme",
    "identity",
    figures={"missing": 2},
    run_id="run-1",
)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries happen, without the pauses between them."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        yield inbox


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with Inbox() as inbox:
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        yield inbox


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Iterator[SqlLedger]:
    ledger = SqlLedger.open("sqlite://", clock=clock)
    yield ledger
    ledger.close()


def slack_config() -> dict[str, Any]:
    return {"slack": {"url": {"env": "SLACK_URL"}}}


def email_config(server: MailServer, **more: Any) -> dict[str, Any]:
    return {
        "email": {
            "host": "127.0.0.1",
            "port": server.port,
            "tls": "none",
            "from": "vecsync@example.com",
            "to": ["ops@example.com", "data@example.com"],
            **more,
        }
    }


def webhook_config(inbox: Inbox) -> dict[str, Any]:
    return {"webhook": {"url": inbox.url, "secret": {"env": "WEBHOOK_SECRET"}}}


@pytest.fixture
def alerts_of(ledger: SqlLedger, clock: Clock) -> Callable[..., Alerts]:
    """Alerts over `ledger` by a configuration's keys."""

    def build(**config: Any) -> Alerts:
        return Alerts(AlertsConfig.model_validate(config), ledger, now=clock)

    return build
