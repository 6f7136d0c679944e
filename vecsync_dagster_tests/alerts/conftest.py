"""Channels that lead to servers on loopback, a ledger, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import stamina

from vecsync_dagster.alerts import Alert, Alerts, Delivery
from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import KnownAlert
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


def nothing(_: KnownAlert) -> bool:
    """Says of no open problem that it is over."""
    return False


def notify(
    alerts: Alerts, raised: Iterable[Alert], well: Callable[[KnownAlert], bool] = nothing, *, run_id: str = ""
) -> Delivery:
    """Keep what was seen, and tell the channels."""
    alerts.observe(raised, well, run_id=run_id)
    return alerts.deliver()


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
