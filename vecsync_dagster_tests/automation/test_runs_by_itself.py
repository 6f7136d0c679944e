"""The whole story under the real daemon, webserver and code server: nobody moves a hand but in the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.errors import StoreLocked, VecsyncError
from vecsync_dagster.ledger import migrate
from vecsync_dagster_tests.alerts.test_dagster import lose_point, repair
from vecsync_dagster_tests.automation.deployment import Deployment, deployment, wait_for
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.world import ENTITY, World, config_of, file_of

ALERTS = {"slack": {"url": {"env": "SLACK_URL"}}}
QUICK = {
    "tenants": {"interval": 3, "missing_for": 2},
    "changes": {"interval": 3, "single_runs": 2, "backoff": {"base": 5, "cap": 5}},
}
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        yield inbox


def fill(world: World) -> None:
    world.insert({"id": n, "is_global": True} for n in range(1, 4))
    for number, tenant in enumerate(("acme", "brick", "cord"), 1):
        world.insert({"id": number * 10 + n, "tenant_id": tenant} for n in range(3))


def exact(world: World) -> bool:
    """Whether the store equals the source; False while somebody else has the embedded store."""
    try:
        return world.stored() == world.expected()
    except StoreLocked:
        return False


def finds(world: World, tenant: str, name: str) -> bool:
    """Whether a search for the name finds that very document."""
    try:
        with world.workspace() as workspace:
            provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
            store = workspace.store_of(ENTITY, ENTITY)
            hits = store.search(ENTITY, provider.embed_query(name), tenant, limit=1)
            return [hit.payload["name"] for hit in hits] == [name]
    except VecsyncError:
        return False


def tell_the_story(world: World, dagster: Deployment, inbox: Inbox) -> None:
    wait_for("the first sync", lambda: exact(world))
    assert dagster.partitions() == {"global", "acme", "brick", "cord"}

    world.insert([{"id": 100, "tenant_id": "acme", "name": "čerpadlo"}])
    wait_for("the inserted row in the search", lambda: finds(world, "acme", "čerpadlo"))

    world.insert({"id": 200 + n, "tenant_id": "delta"} for n in range(3))
    wait_for("the new tenant among the partitions", lambda: "delta" in dagster.partitions())
    wait_for("the new tenant's points", lambda: exact(world))

    world.delete(20, 21, 22)
    wait_for("the removed tenant's points to go", lambda: exact(world))
    wait_for("the removed tenant to leave the partitions", lambda: "brick" not in dagster.partitions())

    kill_and_go_on(world, dagster)
    nightly = run_nightly(dagster)
    assert nightly["status"] == "SUCCESS"
    assert exact(world)
    assert inbox.posts == []
    lose_point(world)
    assert run_nightly(dagster)["status"] == "FAILURE"
    wait_for("the alert of the lost point", lambda: inbox.posts)
    repair(world)
    run_nightly(dagster)
    wait_for("the message that it is well again", lambda: len(inbox.posts) > 1)
    assert ["resolved" in post.json["text"] for post in inbox.posts] == [False, True]
    nothing_doubled(world, dagster)


def run_nightly(dagster: Deployment) -> dict[str, Any]:
    run_id = dagster.run_schedule("works_nightly", "works_job")
    return wait_for("the nightly run", lambda: ended(dagster, run_id))


def kill_and_go_on(world: World, dagster: Deployment) -> None:
    """Killed while a run of its own is under way, and dead while rows come and go."""
    known = {run["runId"] for run in dagster.runs()}
    world.update(100, name="vodní čerpadlo")
    wait_for("a run for the change", lambda: {run["runId"] for run in dagster.runs()} - known)
    dagster.kill_daemon()
    world.insert([{"id": 101, "tenant_id": "acme", "name": "kladivo"}])
    world.delete(200)
    dagster.start_daemon()
    wait_for("what changed around the kill", lambda: exact(world))


def ended(dagster: Deployment, run_id: str) -> dict[str, Any] | None:
    return next((run for run in dagster.runs() if run["runId"] == run_id and run["status"] in ENDED), None)


def nothing_doubled(world: World, dagster: Deployment) -> None:
    """No request became two runs, no text was embedded twice, and no run failed but the one that missed a point."""
    keys = Counter(run["tags"]["dagster/run_key"] for run in dagster.runs() if "dagster/run_key" in run["tags"])
    assert set(keys.values()) == {1}
    statuses = Counter(run["status"] for run in dagster.runs())
    assert statuses.pop("FAILURE") == 1
    assert statuses.keys() == {"SUCCESS"}
    ran = sorted((run["startTime"], run["endTime"]) for run in dagster.runs())
    assert all(ended <= started for (_, ended), (started, _) in pairwise(ran)), "a run waited for the pool as a process"
    with world.workspace() as workspace:
        embedded = sum(run.figures["embedded"] for run in workspace.ledger.runs(ENTITY, limit=1000))
        names = 3 + 3 * 3 + 3 + 3  # at first, of the new tenant; then the pump, the pump renamed, the hammer
    assert embedded == names


@pytest.mark.timeout(600)
def test_on_sqlite(tmp_path: Path, inbox: Inbox) -> None:
    """A row, a tenant, a tenant that goes, a daemon that is killed, an alert and its end: on SQLite, with the embedded
    store."""
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant", "lock_timeout_s": 30},
        automation=QUICK,
        alerts=ALERTS,
        sync={"repair": "report"},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    fill(world)
    with deployment(tmp_path / "home", file_of(config, tmp_path)) as dagster:
        tell_the_story(world, dagster, inbox)


@pytest.mark.many
@pytest.mark.timeout(600)
def test_on_postgresql(tmp_path: Path, inbox: Inbox, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on PostgreSQL (source, ledger and Dagster's own storage), with the store on a server."""
    for name in ("SOURCE_URL", "LEDGER_URL"):
        monkeypatch.setenv(name, postgres_database)
    # With SQLAlchemy 2.1 plain postgresql:// means psycopg 3, whose parameters dagster-postgres' NOTIFY does not allow.
    monkeypatch.setenv("DAGSTER_URL", postgres_database.replace("postgresql://", "postgresql+psycopg2://"))
    migrate.upgrade(postgres_database)
    with QdrantRest() as server:
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": server.url, "timeout_s": 20},
            ledger={"url": {"env": "LEDGER_URL"}},
            automation=QUICK,
            alerts=ALERTS,
            sync={"repair": "report"},
        )
        world = World(postgres_database.replace("postgresql://", "postgresql+psycopg://"), config)
        fill(world)
        storage = {"postgres": {"postgres_url": {"env": "DAGSTER_URL"}}}
        with deployment(tmp_path / "home", file_of(config, tmp_path), storage) as dagster:
            tell_the_story(world, dagster, inbox)
