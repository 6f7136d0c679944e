"""`Watch` in this process: what one entity meets is not the others' end, and who is missing is not removed at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vecsync_dagster.config import Config
from vecsync_dagster.config.models import MongoSource
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.sources import stream_waker
from vecsync_dagster.sources.waking import Stop, Wake, Waker
from vecsync_dagster.sync import Figures, SyncOptions, Workspace
from vecsync_dagster.sync.watching import Round, Watch
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.tools import Tools, sample, tools_config
from vecsync_dagster_tests.world import ENTITY, WORKS, World

PATIENCE_S = 60
QUICK = {"watch": {"poll": 1, "debounce": 0}, "tenants": {"missing_for": 0}}


def watch(config: Config, until: Callable[[list[Round]], bool], wakers: Sequence[Waker] = ()) -> list[Round]:
    """Watches all entities until then; what came of each round."""
    rounds: list[Round] = []
    deadline = time.monotonic() + PATIENCE_S

    def done(_: Workspace, found: Round) -> None:
        rounds.append(found)

    def stop() -> bool:
        assert time.monotonic() < deadline, rounds
        return until(rounds)

    Watch(config, list(config.entities), wakers, stop=stop, done=done).run()
    return rounds


def use(world: World, **changes: object) -> None:
    data = {**world.config.model_dump(mode="json", exclude_unset=True), **changes}
    world.config = Config.model_validate(data).with_folder(world.config.folder)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_an_entity_whose_source_is_down_stops_no_other(embedded_world: World, tmp_path: Path, first: bool) -> None:
    """The others' results and its problem come together; once its source is there it is reached, and synced."""
    world = embedded_world
    seed(world, {"acme": 3})
    data = world.config.model_dump(mode="json", exclude_unset=True)
    other = {**data["entities"][ENTITY], "source": "late", "collections": {"tools": {"text": "{name}"}}}
    entities = {"tools": other, **data["entities"]} if first else {**data["entities"], "tools": other}
    sources = {**data["sources"], "late": {"type": "sqlite", "path": "late.db"}}
    use(world, entities=entities, sources=sources, automation=QUICK)
    [found] = watch(world.config, lambda rounds: len(rounds) == 1)
    assert [(one.entity, one.tenant, one.outcome) for one in found.results] == [
        (ENTITY, "acme", "success"),
        (ENTITY, "global", "success"),
    ]
    assert [(entity, tenant, error.code) for entity, tenant, error in found.problems] == [
        ("tools", None, "SOURCE_ERROR")
    ]

    def come(rounds: list[Round]) -> bool:
        if rounds and not (tmp_path / "late.db").exists():
            World(f"sqlite:///{tmp_path / 'late.db'}", world.config).insert([{"id": 1, "tenant_id": "acme"}])
        return any(one.reached for one in rounds)

    last = watch(world.config, come)[-1]
    assert (last.reached, {(one.entity, one.tenant, one.outcome) for one in last.results}) == (
        ["tools"],
        {("tools", "acme", "success"), ("tools", "global", "success")},
    )
    world.assert_exact()


def test_a_tenant_that_is_gone_is_removed_when_two_looks_missed_it(embedded_world: World) -> None:
    """Without triggers and without a sensor: each look at all tenants is one, and the guard does not keep it."""
    world = embedded_world
    seed(world, {"acme": 3, "brick": 60})
    use(world, automation=QUICK)
    world.sync()
    with world.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM works WHERE tenant_id = 'brick'"))
    [found] = watch(world.config, lambda rounds: len(rounds) == 1)
    assert [(one.tenant, one.figures.removed) for one in found.results] == [("brick", 60)]
    world.assert_exact()


def test_two_changes_of_one_second_with_a_sync_between_them(embedded_world: World) -> None:
    """Times of whole seconds: the later change, of another row, is synced though no time is newer."""
    world = embedded_world
    seed(world, {"acme": 3})
    use(world, automation=QUICK)
    world.sync()
    second = datetime.now(UTC).replace(microsecond=0)

    def change(row: int, name: str) -> None:
        values = {"name": name, "updated_at": second.isoformat(" ")}
        with world.engine.begin() as connection:
            connection.execute(sa.update(WORKS).where(WORKS.c.id == row).values(values))

    change(1, "first")
    world.sync()
    change(2, "second")
    rounds = watch(world.config, lambda rounds: any(one.figures.changed for found in rounds for one in found.results))
    assert {one.tenant for found in rounds for one in found.results} == {"acme"}
    world.assert_exact()


class Once:
    """An event about brick, when it begins to listen."""

    name = "once"
    hears: Collection[str] = (ENTITY,)

    def run(self, wake: Callable[..., None], stop: Callable[[], bool]) -> None:
        wake(ENTITY, "brick")
        while not stop():
            time.sleep(0.1)


def test_a_tenant_that_is_named_waits_too(embedded_world: World) -> None:
    """An event about a tenant without rows is one look; at the end of the time it is looked for again."""
    world = embedded_world
    seed(world, {"acme": 3, "brick": 2})
    use(world, automation={"watch": {"poll": 3600, "debounce": 0}, "tenants": {"missing_for": 2}})
    world.sync()
    world.delete(1001, 1002)
    rounds = watch(world.config, lambda rounds: len(rounds) == 2, [Once()])
    figures = [one.figures for found in rounds for one in found.results]
    assert [(one.removals_waiting, one.removed) for one in figures] == [(2, 0), (0, 2)]
    world.assert_exact()


def test_a_tenant_that_is_named_stays_where_most_are_lost(embedded_world: World) -> None:
    """An event about a tenant of a source that is taken for broken fails, and is no look."""
    world = embedded_world
    seed(world, {"acme": 3, "brick": 2, "cord": 1})
    use(world, automation={"watch": {"poll": 3600, "debounce": 0}, "tenants": {"missing_for": 0}})
    world.sync()
    before = world.stored()
    world.delete(1001, 1002, 2001)
    [found] = watch(world.config, lambda rounds: len(rounds) == 1, [Once()])
    assert [(one.tenant, "max_lost_share" in str(one.error)) for one in found.results] == [("brick", True)]
    assert world.stored() == before
    with world.workspace() as workspace:
        assert workspace.ledger.missing(ENTITY) == {}


def of_tenants(folder: Path, database: str, key: str | list[str]) -> Config:
    """Tools of two tenants, which are looked at when somebody says so, and once an hour."""
    return tools_config(
        folder,
        database,
        entity={"id": key, "tenancy": {"column": "org", "global_flag": "shared"}, "updated_at": "lastUpdated"},
        automation={"watch": {"poll": 3600, "debounce": 0.2}},
    )


def six_documents() -> list[dict[str, Any]]:
    approved = [one for one in sample() if one["approvalStatus"] == "approved"]
    return [{**one, "_id": one["id"], "org": n % 2 + 1.0} for n, one in enumerate(approved[:6])]


def waker_of(config: Config) -> Waker:
    source = config.sources["directory"]
    assert isinstance(source, MongoSource)
    return stream_waker(source, config.entities["tools"], name="directory", entity_name="tools")


@pytest.mark.parametrize("key", ["_id", "id", ["_id.org", "_id.no"], ["org", "id"]], ids=str)
def test_a_deleted_document_is_gone_at_once(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch, key: str | list[str]
) -> None:
    """With tenants, whichever field is the key, and without pre-images: it does not wait for the next look."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    config = of_tenants(tmp_path, mongo_database, key)
    tools = Tools(mongo_url, mongo_database, config)
    documents = six_documents()
    if key == ["_id.org", "_id.no"]:
        documents = [{**one, "_id": {"org": one["org"], "no": one["id"]}} for one in documents]
    deleted: list[str] = []

    def until(rounds: list[Round]) -> bool:
        results = [one for found in rounds for one in found.results]
        if not deleted and sum(one.figures.upserted for one in results) >= 4 * 6:
            deleted.append(str(documents[0]["id"]))
            tools.delete(*deleted)
        return sum(one.figures.removed for one in results) >= 4

    try:
        tools.insert(documents)
        rounds = watch(config, until, [waker_of(config)])
    finally:
        tools.close()
    removed = {one.tenant: one.figures.removed for found in rounds for one in found.results if one.figures.removed}
    assert removed == {"1": 1}


def test_what_happened_while_nobody_listened_is_synced_at_once(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tenants too: a document that changed, moved or went meanwhile does not wait until its tenant is due."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    config = of_tenants(tmp_path, mongo_database, "_id")
    tools = Tools(mongo_url, mongo_database, config)
    first, second, third, *_ = documents = six_documents()
    try:
        tools.insert(documents)
        assert sync_in_full(config).new == 4 * 6
        tools.change(first["id"], name="Renamed")
        tools.delete(second["id"])
        tools.change(third["id"], org=2.0)
        rounds = watch(config, lambda rounds: len(rounds) == 1, [waker_of(config)])
        left = sync_in_full(config)
    finally:
        tools.close()
    assert sum(one.figures.removed for found in rounds for one in found.results) == 4 * 2, "deleted, and moved away"
    assert (left.writes, left.removed) == (0, 0)


def sync_in_full(config: Config) -> Figures:
    """All tenants; what it did to all partitions together."""
    total = Figures()
    with Workspace(config) as workspace:
        for selection in workspace.select(["tools"], None):
            for result in workspace.sync(selection, SyncOptions(mode="full")):
                assert result.ok
                total.add(result.figures)
    return total


def test_a_collection_that_was_made_anew_is_synced_at_once(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs from before it was dropped, and what changes in it later."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    config = of_tenants(tmp_path, mongo_database, "_id")
    tools = Tools(mongo_url, mongo_database, config)
    first, second, *others = six_documents()
    steps: list[int] = []

    def until(rounds: list[Round]) -> bool:
        """Two steps; the second one's outcome is in the rounds after it."""
        since = [one.figures for found in rounds[steps[-1] if steps else 0 :] for one in found.results]
        if not steps and since:
            steps.append(len(rounds))
            tools.documents.drop()
            tools.insert([{**first, "name": "Renamed"}, *others])
        elif len(steps) == 1 and sum(figures.removed for figures in since) == 4:
            steps.append(len(rounds))
            tools.change(first["id"], name="Renamed again")
        else:
            return len(steps) == 2 and any(figures.writes for figures in since)
        return False

    try:
        tools.insert([first, second, *others])
        watch(config, until, [waker_of(config)])
        left = sync_in_full(config)
    finally:
        tools.close()
    assert (left.writes, left.removed) == (0, 0)


class Tells:
    """Listens for a moment at a time."""

    name = "directory"
    hears: Collection[str] = ("tools",)

    def __init__(self, *told: tuple[str | None, str | None], moment: float) -> None:
        self.told = told
        self.moment = moment
        self.times = 0

    def run(self, wake: Wake, stop: Stop, /) -> None:
        for tenant, gone in self.told:
            wake("tools", tenant, gone)
        time.sleep(self.moment)
        self.times += 1


@pytest.fixture
def two_tenants(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Config]:
    """Tools of two tenants, in a source that cannot say whose have changed."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    config = of_tenants(tmp_path, mongo_database, "_id")
    tools = Tools(mongo_url, mongo_database, config)
    tools.insert(six_documents())
    yield config
    tools.close()


def test_a_stream_that_breaks_all_the_time_seldom_syncs_everybody(two_tenants: Config) -> None:
    """When somebody begins to listen, and once more; then not until a poll later."""
    waker = Tells((None, None), moment=1)
    rounds = watch(two_tenants, lambda _: waker.times > 4, [waker])
    assert sum(len(found.results) for found in rounds) == 2 * 4 * 3, "two tenants, and what is everybody's"


def test_a_waker_that_returns_at_once_is_not_run_all_the_time(two_tenants: Config) -> None:
    waker = Tells(moment=0)
    end = time.monotonic() + 3
    watch(two_tenants, lambda _: time.monotonic() > end, [waker])
    assert 2 < waker.times < 30


@pytest.mark.parametrize("key", ["*", ""])
def test_any_text_may_be_the_key_of_a_record_that_is_gone(two_tenants: Config, key: str) -> None:
    """Nobody had one with this key: nobody is synced for it."""
    sync_in_full(two_tenants)
    waker = Tells((None, key), ("1", None), moment=1)
    [found, *_] = watch(two_tenants, lambda rounds: len(rounds) == 1, [waker])
    assert {one.tenant for one in found.results} == {"1"}


def test_watch_runs_again_what_failed_before_it_began(embedded_world: World) -> None:
    """A full run that failed, though nothing changed since: with its first look."""
    world = embedded_world
    use(world, automation=QUICK)
    seed(world, {"acme": 3, "brick": 2})
    world.sync(mode="full")
    with world.workspace() as workspace:
        now = datetime.now(UTC)
        workspace.ledger.record_run(Run("a run", ENTITY, ENTITY, "acme", "full", "failed", now, now, {}, "X: y"))
    [found] = watch(world.config, lambda rounds: len(rounds) == 1)
    assert [(one.tenant, one.mode, one.outcome) for one in found.results] == [("acme", "full", "success")]


def test_a_row_dated_in_the_future_hides_no_change_from_watch(embedded_world: World) -> None:
    """What changes after a row that is dated years ahead is synced by the next look."""
    world = embedded_world
    use(world, automation=QUICK)
    seed(world, {"acme": 3})
    with world.engine.begin() as connection:
        connection.execute(sa.update(WORKS).where(WORKS.c.id == 1).values(updated_at="2099-01-01 00:00:00"))
    world.sync(mode="full")

    def wrote(rounds: list[Round]) -> bool:
        return any(result.figures.upserted for found in rounds for result in found.results)

    for row in (2, 3):
        world.update(row, name=f"changed {row}")
        watch(world.config, wrote)
    world.assert_exact()


def test_a_store_that_another_process_has_is_no_failure(embedded_world: World) -> None:
    """It is waited for, and what was told meanwhile is synced then; nobody is told that anything failed."""
    world = embedded_world
    use(world, automation={"watch": {"poll": 3600, "debounce": 0}})
    use(world, stores={"main": {"type": "qdrant", "path": "qdrant", "lock_timeout_s": 0.1}})
    seed(world, {"brick": 2})
    world.sync()
    world.update(1, name="changed")
    ended = time.monotonic() + 3
    with world.workspace() as other:
        other.store("main").count(ENTITY)
        assert watch(world.config, lambda _: time.monotonic() > ended, [Once()]) == []
    [found] = watch(world.config, lambda rounds: len(rounds) == 1, [Once()])
    assert [(one.tenant, one.outcome, one.figures.changed) for one in found.results] == [("brick", "success", 1)]
    with world.workspace() as workspace:
        assert workspace.ledger.runs(outcome="failed") == []
    world.assert_exact()
