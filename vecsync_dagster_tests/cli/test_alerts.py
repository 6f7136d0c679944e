"""Alerts for people who have cron and nothing else: a command-line sync tells, and tells when it is well again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import stamina

from vecsync_dagster.config import load_config
from vecsync_dagster.demo import DATABASE
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import MORAVA, change_rows, replace_in_config, vecsync
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with Inbox() as inbox, stamina.set_testing(True, attempts=2):
        monkeypatch.setenv("SLACK_URL", inbox.url)
        yield inbox


def with_alerts(config: Path, more: str = "") -> Path:
    text = config.read_text(encoding="utf-8")
    config.write_text(f"{text}\nalerts: {{slack: {{url: {{env: SLACK_URL}}}}{more}}}\n", encoding="utf-8")
    return config


def texts(slack: Inbox) -> list[str]:
    return [post.json["text"] for post in slack.posts]


def lose_point(config: Path) -> None:
    """The store loses a point behind the ledger's back."""
    with Workspace(load_config(config)) as workspace:
        store = workspace.store_of("works", "works")
        [page, *_] = store.scan("works", MORAVA)
        store.delete("works", MORAVA, [page[0].point_id])


def sync(config: Path, *more: str) -> int:
    return vecsync("sync", "tenant", MORAVA, "--entity", "works", *more, "--config", config).code


def test_a_repair_is_told_once_as_a_warning(config: Path, synced: Path, slack: Inbox) -> None:
    """A run that repaired a lost point exits with 0 and makes one message; the next clean one says that it is over."""
    with_alerts(config, ", min_severity: warning")
    lose_point(config)
    assert sync(config, "--full", "--no-record") == 0
    [text] = texts(slack)
    assert "repaired: 1 missing" in text
    assert [sync(config, "--full", "--no-record"), sync(config, "--full", "--no-record")] == [0, 0]
    assert len(slack.posts) == 2
    assert "resolved in works" in texts(slack)[1]


def test_a_failing_check_is_told_once_and_so_is_its_end(
    config: Path, synced: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost point makes one message, however often cron runs, and one more when it is back."""
    monkeypatch.setenv("SYNC_REPAIR", "report")
    with_alerts(config, ", ui_url: https://dagster.example.com")
    lose_point(config)
    assert [sync(config, "--full"), sync(config, "--full", "--no-record")] == [1, 1]
    [text] = texts(slack)
    assert f"works of Morava Fasády ({MORAVA}), check counts: numbers differ: the store has" in text
    assert "https://dagster.example.com/runs/" in text
    listed = vecsync("alerts", "list", "--config", config)
    assert listed.code == 0
    assert all(check in listed.out for check in ("counts", "identity", "1 missing", "Morava Fasády"))
    known = vecsync("alerts", "list", "--json", "--config", config).json["alerts"]
    assert {(one["partition"], one["tenant_name"]) for one in known} == {(f"works|{MORAVA}", "Morava Fasády")}
    assert vecsync("reconcile", "--repair", "--entity", "works", "--config", config).code == 0
    assert sync(config, "--full", "--no-record") == 0
    assert sync(config, "--full", "--no-record") == 0
    assert len(slack.posts) == 2
    assert "resolved in works" in texts(slack)[1]
    assert "no problem is open" in vecsync("alerts", "list", "--config", config).out


def test_without_a_channel_nothing_is_said_to_be_well(config: Path, synced: Path) -> None:
    """No problem is kept then; what is wrong is told elsewhere."""
    lose_point(config)
    assert vecsync("reconcile", "--entity", "works", "--config", config).code == 1
    listed = vecsync("alerts", "list", "--config", config)
    assert listed.out.startswith("no problem is kept, as no channel is configured; `vecsync health")


def test_an_error_that_became_a_warning_is_over(config: Path, synced: Path, slack: Inbox) -> None:
    """Where warnings are told to nobody: a run that repaired what a comparison had found ends its problems."""
    with_alerts(config)
    lose_point(config)
    assert vecsync("reconcile", "--entity", "works", "--config", config).code == 1
    assert "identity" in vecsync("alerts", "list", "--config", config).out
    assert sync(config, "--full", "--no-record") == 0
    assert vecsync("status", "--strict", "--config", config).code == 0
    assert "no problem is open" in vecsync("alerts", "list", "--config", config).out
    assert "resolved in works" in texts(slack)[-1]


def test_what_a_comparison_finds_is_told_with_its_run(config: Path, synced: Path, slack: Inbox) -> None:
    """Also a comparison that somebody made by hand: its page in Dagster shows the failed checks."""
    with_alerts(config, ", ui_url: https://dagster.example.com")
    assert sync(config, "--full") == 0
    lose_point(config)
    assert vecsync("reconcile", "--entity", "works", "--config", config).code == 1
    assert "https://dagster.example.com/runs/" in texts(slack)[-1]


def test_what_somebody_mistyped_is_told_to_them_alone(config: Path, synced: Path, slack: Inbox) -> None:
    """An id that nothing has is wrong usage, and no problem of the sync."""
    with_alerts(config)
    assert vecsync("sync", "works", "--id", "99999", "--no-record", "--config", config).code == 2
    assert vecsync("sync", "tenant", "nobody", "--no-record", "--config", config).code == 2
    assert slack.posts == []


def test_a_source_that_is_gone_is_told(config: Path, synced: Path, slack: Inbox) -> None:
    """A sync that cannot begin is a failure that is told, and over with the first that can."""
    with_alerts(config)
    (synced / DATABASE).rename(synced / "away")
    assert sync(config, "--no-record") == 1
    [text] = texts(slack)
    assert "not synced: SOURCE_" in text
    (synced / "away").rename(synced / DATABASE)
    assert sync(config, "--no-record") == 0
    assert "resolved in works" in texts(slack)[1]


def test_a_source_that_answers_again_is_over_with_the_last_partition(config: Path, synced: Path, slack: Inbox) -> None:
    """One alert for all that the source failed, which counts what is left; alerts, status and health agree."""
    with_alerts(config)

    def left() -> tuple[list[tuple[str, str, int | None]], int, int]:
        """Open alerts; partitions that `status`, and that `health`, has as failed."""
        alerts = vecsync("alerts", "list", "--json", "--config", config).json["alerts"]
        status = vecsync("status", "--json", "--config", config).json["partitions"]
        runs = vecsync("health", "--json", "--config", config).json["last_runs"]
        return (
            sorted((one["entity"], one["kind"], one["figures"].get("partitions")) for one in alerts),
            sum(one["outcome"] != "success" for one in status),
            sum(one["failing"] and one["collection"] is not None for one in runs),
        )

    (synced / DATABASE).rename(synced / "away")
    assert vecsync("sync", "all", "--no-record", "--config", config).code == 1
    assert len(slack.posts) == 1
    away = [(name, "source_failure", 4) for name in ("materials", "works")]
    assert left() == (away, 8, 8)
    (synced / "away").rename(synced / DATABASE)
    one = ("sync", "tenant", MORAVA, "--entity", "works", "--no-record")
    assert vecsync(*one, "--config", config).code == 0
    assert left() == ([away[0], ("works", "source_failure", 3)], 7, 7)
    assert vecsync("sync", "materials", "--id", "1001", "--no-record", "--config", config).code == 0
    assert left() == ([away[0], ("works", "source_failure", 3)], 7, 7)
    assert len(slack.posts) == 1
    listed = vecsync("alerts", "list", "--config", config).out
    assert "works: the source answers again; still to be synced since it was unavailable: 3 partitions" in listed
    assert vecsync("sync", "all", "--entity", "works", "--no-record", "--config", config).code == 0
    assert left() == ([away[0]], 4, 4)
    assert texts(slack)[1].startswith("vecsync: 1 resolved in works\n")
    assert vecsync("sync", "all", "--no-record", "--config", config).code == 0
    assert left() == ([], 0, 0)
    assert texts(slack)[2].startswith("vecsync: 1 resolved in materials\n")


@pytest.mark.parametrize("typed", [MORAVA, "Nobdy"])
@pytest.mark.parametrize("record", [(), ("--id", "7")], ids=["tenant", "record"])
def test_a_source_that_is_away_is_over_when_it_can_be_asked(
    config: Path, synced: Path, slack: Inbox, record: Sequence[str], typed: str
) -> None:
    """Whatever tenant was typed then, the problem is the entity's. A sync of another one says nothing of its source."""
    with_alerts(config)
    change_rows(synced, "ALTER TABLE works RENAME TO away")
    one = ["sync", "works", "--tenant", typed, *record] if record else ["sync", "tenant", typed, "--entity", "works"]
    assert vecsync(*one, "--no-record", "--config", config).code == 1
    assert "works: not synced: SOURCE_" in texts(slack)[0]
    assert vecsync("sync", "materials", "--no-record", "--config", config).code == 0
    assert len(slack.posts) == 1
    assert len(vecsync("alerts", "list", "--json", "--config", config).json["alerts"]) == 1
    change_rows(synced, "ALTER TABLE away RENAME TO works")
    assert sync(config, "--no-record") == 0
    assert vecsync("alerts", "list", "--json", "--config", config).json["alerts"] == []
    assert "resolved in works" in texts(slack)[-1]


def test_slack_is_down_and_the_next_run_tells_it(
    config: Path, synced: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be sent is a warning, is listed as untold, and goes out with the next run."""
    monkeypatch.setenv("SYNC_REPAIR", "report")
    with_alerts(config)
    lose_point(config)
    slack.fail(503, times=100)
    ran = vecsync("sync", "tenant", MORAVA, "--entity", "works", "--full", "--no-record", "--config", config)
    assert ran.code == 1
    assert "warning: an alert was not sent; the next run tries again: ALERT_UNSENT: alerts.slack" in ran.err
    assert ran.err.count("ALERT_UNSENT") == 1
    listed = vecsync("alerts", "list", "--json", "--config", config).json["alerts"]
    assert {alert["check"]: alert["untold"] for alert in listed} == {"counts": ["slack"], "identity": ["slack"]}
    slack.recover()
    sync(config, "--full", "--no-record")
    assert len(slack.posts) == 1


def test_no_document_text_is_told(config: Path, synced: Path, slack: Inbox) -> None:
    """Rejected and failing records are told by counts and codes: no word of a record is sent."""
    with_alerts(config, ", min_severity: warning")
    change_rows(synced, "UPDATE works SET name = 'Geheimnis', unit = NULL WHERE tenant_id = ?", MORAVA)
    assert sync(config, "--full", "--no-record") == 0
    [post] = slack.posts
    assert "check validation" in post.json["text"]
    assert "Geheimnis" not in post.body.decode()


def test_what_a_run_may_cost(fresh: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that paid more than the limit is told, with both figures."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with OpenAIServer(dimensions=8) as server:
        priced = "dimensions: 8, price_per_million_tokens: 1000"
        paid = f"- {{provider: openai, model: m, {priced}, base_url: {server.base_url}}}"
        replace_in_config(fresh, "- {provider: hash, dimensions: 64}", paid)
        with_alerts(fresh, ", cost_usd_per_run: 0.0001")
        for _ in range(2):
            assert vecsync("sync", "global", "--entity", "works", "--no-record", "--config", fresh).code == 0
    first, second = texts(slack)
    assert "cost limit passed: one run paid US$ " in first
    assert "limit_usd 0.0001" in first
    assert "resolved" in second


def test_without_a_ledger_it_is_told_all_the_same(config: Path, synced: Path, slack: Inbox) -> None:
    """A ledger that cannot be opened keeps nothing, but somebody hears of it."""
    with_alerts(config)
    (synced / "state" / "ledger.sqlite").write_bytes(b"this is no database, it only looks like a file" * 100)
    assert sync(config, "--no-record") == 1
    [text] = texts(slack)
    assert "sync failed: LEDGER_" in text


def test_two_syncs_that_meet_tell_nobody(config: Path, synced: Path, slack: Inbox) -> None:
    """A tenant that another run has is no problem: that run tells what it finds."""
    with_alerts(config)
    with Workspace(load_config(config)) as workspace, workspace.ledger.hold("works", MORAVA):
        ran = vecsync("sync", "tenant", MORAVA, "--entity", "works", "--no-record", "--config", config)
    assert ran.code == 1
    assert "PARTITION_BUSY" in ran.err
    assert slack.posts == []


def test_a_dry_run_tells_nobody(config: Path, synced: Path, slack: Inbox) -> None:
    """Looking at what would happen is no event."""
    with_alerts(config)
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    sync(config, "--full", "--dry-run")
    assert slack.posts == []


def test_a_test_message(asked: Path, config: Path, slack: Inbox) -> None:
    """`alerts test` says for each channel whether it works; without one it says what to add."""
    none = vecsync("alerts", "test", "--config", asked)
    assert none.code == 1
    assert "no channel is configured" in none.err
    with_alerts(config)
    fine = vecsync("alerts", "test", "--config", config)
    assert (fine.code, fine.out) == (0, "slack: sent\n")
    slack.fail(404)
    broken = vecsync("alerts", "test", "--json", "--config", config)
    assert broken.code == 1
    assert broken.json["channels"] == {"slack": "ALERT_REFUSED: alerts.slack: the server answered 404"}


def test_a_message_that_goes_out_in_the_end_is_no_news(config: Path, slack: Inbox) -> None:
    """An attempt that failed is not told where the next one succeeds, and stdout stays one JSON document."""
    with_alerts(config)
    slack.fail(503)
    ran = vecsync("alerts", "test", "--json", "--config", config)
    assert ran.json["channels"] == {"slack": None}
    assert ran.err == ""


def test_check_names_a_secret_that_is_not_set(config: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` says whether each channel has its secrets, and sends nothing."""
    with_alerts(config)
    assert "alerts slack" in vecsync("check", "--config", config).out
    monkeypatch.delenv("SLACK_URL")
    assert "SLACK_URL is not set" in vecsync("check", "--config", config).out
    assert slack.posts == []
