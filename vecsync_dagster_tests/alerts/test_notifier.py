"""What is told, to whom and how often: real servers on loopback, and a clock that is held."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import stamina

from vecsync_dagster.alerts import Alert, Alerts, send_test
from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.errors import AlertUnsent, ConfigError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.alerts.conftest import BROKEN, email_config, nothing, notify, slack_config, webhook_config
from vecsync_dagster_tests.fakes.alert_servers import Inbox, MailServer
from vecsync_dagster_tests.ledger.samples import Clock

Build = Callable[..., Alerts]
HOUR = timedelta(hours=1)


def everything(_: object) -> bool:
    return True


def texts(inbox: Inbox) -> list[str]:
    return [post.json["text"] for post in inbox.posts]


def states(inbox: Inbox) -> list[list[str]]:
    return [[alert["state"] for alert in post.json["alerts"]] for post in inbox.posts]


def test_a_problem_is_told_once_and_its_end_once(slack: Inbox, alerts_of: Build, clock: Clock) -> None:
    """However often a problem is seen within the cool-down, there is one message, and one when it is well."""
    alerts = alerts_of(**slack_config())
    for minute in range(5):
        clock.now += timedelta(minutes=minute)
        notify(alerts, [replace(BROKEN, run_id=f"run-{minute}")])
    assert len(slack.posts) == 1
    for _ in range(3):
        clock.now += timedelta(minutes=1)
        notify(alerts, [], everything, run_id="run-9")
    assert len(slack.posts) == 2
    assert texts(slack)[1] == (
        "vecsync: 1 resolved in works\n"
        "RESOLVED works of acme, check identity (was: store and ledger differ, since 2026-03-01 12:00Z)\n"
        "Run run-9"
    )


def test_a_problem_that_lasts_is_told_again_after_the_cool_down(slack: Inbox, alerts_of: Build, clock: Clock) -> None:
    """A reminder says since when; the cool-down is the configuration's."""
    alerts = alerts_of(**slack_config(), cool_down="PT2H")
    for _ in range(4):
        notify(alerts, [BROKEN])
        clock.now += HOUR
    assert len(slack.posts) == 2
    assert "(since 2026-03-01 12:00Z)" in texts(slack)[1]


def test_one_message_for_a_run(webhook: Inbox, alerts_of: Build) -> None:
    """Many failing checks of one run, and what is well again with it, come as one message."""
    alerts = alerts_of(**webhook_config(webhook))
    notify(alerts, [replace(BROKEN, check="counts", run_id="run-0")])
    broken = [replace(BROKEN, partition=f"works|t{number}") for number in range(30)]
    notify(alerts, broken, everything, run_id="run-1")
    assert states(webhook) == [["open"], ["open"] * 30 + ["closed"]]
    text = texts(webhook)[1]
    assert text.startswith("vecsync: 30 problems, 1 resolved in works\n")
    assert "and 10 more" in text
    assert len(text.splitlines()) == 1 + 20 + 1 + 1 + 1


def test_runs_are_told_apart(webhook: Inbox, alerts_of: Build, clock: Clock) -> None:
    """Problems of two runs that wait together are two messages, the older run first."""
    alerts = alerts_of(**webhook_config(webhook))
    alerts.observe([replace(BROKEN, run_id="run-b")], nothing)
    clock.now += HOUR
    alerts.observe([replace(BROKEN, check="counts", run_id="run-a")], nothing)
    assert alerts.deliver().sent == {"webhook": 2}
    assert [post.json["run_id"] for post in webhook.posts] == ["run-b", "run-a"]


def test_a_channel_that_is_down_is_told_later_and_holds_up_no_other(
    slack: Inbox, mails: MailServer, alerts_of: Build, clock: Clock
) -> None:
    """The mail goes out once; Slack hears of it when it is back, also after another problem was added."""
    alerts = alerts_of(**slack_config(), **email_config(mails))
    slack.fail(503, times=100)
    delivery = notify(alerts, [BROKEN])
    assert delivery.sent == {"email": 1}
    assert isinstance(delivery.errors["slack"], AlertUnsent)
    clock.now += timedelta(minutes=1)
    assert list(notify(alerts, [replace(BROKEN, check="counts", run_id="run-2")]).errors) == ["slack"]
    slack.recover()
    assert alerts.deliver().sent == {"slack": 2}
    assert (len(slack.posts), len(mails.mails)) == (2, 2)
    assert alerts.deliver().sent == {}


def test_a_problem_that_ended_while_a_channel_was_down(slack: Inbox, alerts_of: Build, clock: Clock) -> None:
    """It is told once, as what it is: over."""
    alerts = alerts_of(**slack_config())
    slack.fail(503, times=100)
    notify(alerts, [BROKEN])
    clock.now += timedelta(minutes=1)
    notify(alerts, [], everything)
    slack.recover()
    alerts.deliver()
    [text] = texts(slack)
    assert text.startswith("vecsync: 1 resolved in works")


def test_what_was_told_survives_a_restart(slack: Inbox, tmp_path: Path, clock: Clock) -> None:
    """A new process neither repeats what was told nor forgets what was not."""
    config = AlertsConfig.model_validate(slack_config())
    for run, expected in (("run-1", 1), ("run-2", 1), ("run-3", 2)):
        ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock=clock)
        if run == "run-3":
            clock.now += timedelta(hours=1)
        notify(Alerts(config, ledger, now=clock), [replace(BROKEN, run_id=run)])
        ledger.close()
        assert len(slack.posts) == expected


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
def test_processes_that_deliver_at_once_say_it_once(
    slack: Inbox, tmp_path: Path, url: str, request: pytest.FixtureRequest, clock: Clock
) -> None:
    """Whoever comes second waits, and then finds nothing left to say."""
    where = request.getfixturevalue("postgres_database") if url == "postgresql" else f"sqlite:///{tmp_path / 'l.db'}"
    config = AlertsConfig.model_validate(slack_config())
    ledgers = [SqlLedger.open(where, clock=clock) for _ in range(4)]
    Alerts(config, ledgers[0], now=clock).observe([BROKEN], nothing)
    with stamina.set_testing(False), ThreadPoolExecutor(4) as executor:  # they really wait for each other
        delivered = list(executor.map(lambda ledger: Alerts(config, ledger, now=clock).deliver(), ledgers))
    for ledger in ledgers:
        ledger.close()
    assert len(slack.posts) == 1
    assert sorted(len(delivery.sent) for delivery in delivered) == [0, 0, 0, 1]
    assert not any(delivery.errors for delivery in delivered)


def test_only_what_was_asked_for_is_told(slack: Inbox, alerts_of: Build) -> None:
    """Other kinds, and warnings where they are not wanted, are not even kept."""
    warning = replace(BROKEN, severity="warning")
    lost = Alert("tenants_lost", "works", "none left")
    notify(alerts_of(**slack_config(), kinds=["tenants_lost"]), [BROKEN])
    notify(alerts_of(**slack_config()), [warning])
    assert slack.posts == []
    notify(alerts_of(**slack_config(), kinds=["tenants_lost"]), [lost])
    notify(alerts_of(**slack_config(), min_severity="warning"), [warning])
    assert [text.splitlines()[1].split()[0] for text in texts(slack)] == ["ERROR", "WARNING"]


def test_a_problem_that_nobody_asks_for_any_more_is_not_over(slack: Inbox, alerts_of: Build, ledger: SqlLedger) -> None:
    """It is still seen: nobody is told that it has ended. One that has become a warning has."""
    notify(alerts_of(**slack_config()), [BROKEN])
    notify(alerts_of(**slack_config(), kinds=["tenants_lost"]), [BROKEN])
    assert len(slack.posts) == 1
    notify(alerts_of(**slack_config()), [replace(BROKEN, severity="warning")])
    assert "resolved" in texts(slack)[-1]


def test_a_warning_that_becomes_an_error_is_told_at_once(slack: Inbox, alerts_of: Build) -> None:
    """Within the cool-down, too; and it is one problem still, that ends once."""
    alerts = alerts_of(**slack_config(), min_severity="warning")
    for severity in ("warning", "error", "error", "warning"):
        notify(alerts, [replace(BROKEN, severity=severity)])
    assert [text.splitlines()[1].split()[0] for text in texts(slack)] == ["WARNING", "ERROR"]
    notify(alerts, [], everything)
    assert len(slack.posts) == 3


def test_a_warning_that_is_there_is_not_over_because_errors_alone_are_asked_for(
    slack: Inbox, alerts_of: Build, ledger: SqlLedger
) -> None:
    """`min_severity` was raised; the same warning is seen again."""
    warning = replace(BROKEN, severity="warning")
    notify(alerts_of(**slack_config(), min_severity="warning"), [warning])
    notify(alerts_of(**slack_config()), [warning])
    assert len(slack.posts) == 1
    notify(alerts_of(**slack_config()), [], everything)
    assert "resolved" in texts(slack)[-1]


def test_a_new_channel_hears_what_is_open_and_no_old_stories(
    slack: Inbox, mails: MailServer, alerts_of: Build, clock: Clock
) -> None:
    """Whoever adds a channel gets the problems of now."""
    both = alerts_of(**slack_config(), **email_config(mails))
    old = alerts_of(**email_config(mails))
    notify(old, [BROKEN, replace(BROKEN, check="counts")])
    clock.now += timedelta(minutes=1)
    notify(old, [], lambda known: known.alert.check == "counts", run_id="run-2")
    clock.now += timedelta(days=2)
    both.deliver()
    [text] = texts(slack)
    assert "1 problem in works" in text
    assert "identity" in text


def test_without_a_channel_nothing_is_kept(alerts_of: Build, ledger: SqlLedger) -> None:
    """No `alerts` in the configuration costs nothing."""
    alerts = alerts_of()
    notify(alerts, [BROKEN])
    assert ledger.alerts() == []
    assert send_test(AlertsConfig()) == {}


def test_a_test_message_goes_to_every_channel(
    slack: Inbox, mails: MailServer, webhook: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each channel says for itself whether it works."""
    config = AlertsConfig.model_validate({**slack_config(), **email_config(mails), **webhook_config(webhook)})
    assert send_test(config) == {"slack": None, "email": None, "webhook": None}
    assert "this is a test" in texts(slack)[0]
    assert webhook.posts[0].json["test"] is True
    monkeypatch.delenv("WEBHOOK_SECRET")
    mails.fail("550 no", times=9)
    errors = send_test(config)
    assert errors["slack"] is None
    assert isinstance(errors["webhook"], ConfigError)
    assert "550" in str(errors["email"])


def test_a_key_cannot_forge_a_line(slack: Inbox, mails: MailServer, alerts_of: Build) -> None:
    """Control characters of a tenant's key do not reach the message: no second line, no further header."""
    evil = replace(BROKEN, partition="works|a\nRun https://evil.example\r\nBcc: x@y.example")
    notify(alerts_of(**slack_config(), **email_config(mails)), [evil])
    assert len(texts(slack)[0].splitlines()) == 3
    [mail] = mails.mails
    assert mail["Bcc"] is None
    assert len(str(mail.get_content()).strip().splitlines()) == 2
