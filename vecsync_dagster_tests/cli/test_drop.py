"""`vecsync drop`, and what is said of collections that left the configuration."""

from __future__ import annotations

import io
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import yaml
from qdrant_client import QdrantClient, models

from vecsync_dagster.automation.partitions import add_tenants, tenants_name
from vecsync_dagster.errors import WrongUsage
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.ledger.tables import metadata
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import PartitionResult, Workspace, dropping
from vecsync_dagster.sync.options import Selection
from vecsync_dagster.sync.standing import check_everything
from vecsync_dagster_tests.cli.program import MORAVA, Ran, config_of, vecsync
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.sync.failing_services import befall


@pytest.fixture
def server() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


@pytest.fixture(params=["embedded, SQLite", "server, PostgreSQL"])
def used(request: pytest.FixtureRequest, config: Path) -> Path:
    """A synced demo, on either store and ledger."""
    if request.param == "server, PostgreSQL":
        server: QdrantRest = request.getfixturevalue("server")
        change(config, stores={"main": {"type": "qdrant", "url": {"env": "QDRANT_URL"}, "prefix": "p_", "attempts": 1}})
        environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        environment.setenv("LEDGER_URL", request.getfixturevalue("postgres_database"))
        environment.setenv("QDRANT_URL", server.url)
        change(config, ledger={"url": {"env": "LEDGER_URL"}})
        shutil.rmtree(config.parent / "state" / "qdrant")  # the demo's own store, which is not used any more
        assert vecsync("migrate", "--config", config).code == 0
        ran = vecsync("sync", "all", "--no-record", "--config", config)
        assert ran.code == 0, ran.err
    return config


def change(config: Path, **keys: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8")) | keys
    config.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return data


def take_out(config: Path, entity: str) -> None:
    entities = change(config)["entities"]
    change(config, entities={name: value for name, value in entities.items() if name != entity})


def drop(config: Path, *arguments: str) -> Ran:
    return vecsync("drop", "works", *arguments, "--config", config)


def traces(config: Path) -> list[str]:
    """Tables of the ledger in which the collection or its entity still is, and files of the state folder."""
    loaded = config_of(config.parent)
    with Workspace(loaded) as workspace:
        ledger: SqlLedger = workspace.ledger
        with ledger.database.read() as connection:
            tables = [
                table.name
                for table in metadata.tables.values()
                for name in ("entity", "collection")
                if name in table.c and connection.execute(table.select().where(table.c[name] == "works")).first()
            ]
        store = workspace.store("main")
        points = [] if store.pinned_space("works") is None else ["points"]
    state = loaded.state_folder
    files = [str(path) for path in (state / "snapshots" / "works").rglob("*")]
    files += [str(path) for path in (state / "qdrant").glob("works__*")]
    log = state / "invalid_records.jsonl"
    return tables + points + files + ([log.name] if '"entity_type":"works"' in log.read_text() else [])


def test_a_collection_that_left_the_file_goes_with_all_it_had(used: Path) -> None:
    """Points, rows, runs, snapshots and rejected records go; the other entity stays exact; again, it is unknown."""
    assert traces(used)
    take_out(used, "works")
    dry = drop(used, "--dry-run", "--json")
    assert (dry.code, dry.json["whole"], dry.json["stores"].keys()) == (0, ["works"], {"main"})
    assert traces(used), "a dry run touches nothing"
    ran = drop(used, "--yes")
    assert ran.code == 0, ran.err
    assert traces(used) == []
    again = drop(used, "--yes")
    assert again.code == 2
    assert "no collection 'works' in the ledger or a store" in again.err
    assert vecsync("reconcile", "--config", used).code == 0
    assert vecsync("sync", "all", "--full", "--no-record", "--json", "--config", used).json["totals"]["upserted"] == 0


def test_one_of_an_entitys_collections_goes_alone(config: Path) -> None:
    """Its points and rows go, and what is said of it; the entity's other collection stays as it is, and is exact."""
    entities = change(config)["entities"]
    works = entities["works"]
    both = {**works["collections"], "codes": {"text": "{name}"}}
    change(config, entities={**entities, "works": {**works, "collections": both}})
    assert vecsync("sync", "all", "--entity", "works", "--full", "--no-record", "--config", config).code == 0
    change(config, entities=entities)
    named = vecsync("check", "--config", config)
    assert "codes" in named.out + named.err
    assert "codes" in vecsync("status", "--config", config).err

    def known(collection: str) -> tuple[int, bool, bool]:
        with Workspace(config_of(config.parent)) as workspace:
            rows = sum(one.documents for one in workspace.ledger.totals(workspace.ledger.now())
                       if one.collection == collection)  # fmt: skip
            runs = any(key.collection == collection for key in workspace.ledger.last_runs())
            return rows, runs, workspace.store("main").pinned_space(collection) is not None

    before = known("works")
    assert all(known("codes"))
    assert vecsync("drop", "codes", "--yes", "--config", config).code == 0
    assert known("codes") == (0, False, False)
    assert known("works") == before
    assert "codes" not in vecsync("status", "--config", config).err
    assert vecsync("reconcile", "--config", config).code == 0
    assert vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config).json["totals"]["upserted"] == 0


def test_what_is_in_the_file_is_not_dropped_by_mistake(used: Path) -> None:
    """A configured collection needs --force, and comes back with the next sync, from the cache."""
    for option in ("--yes", "--dry-run"):
        refused = drop(used, option)
        assert (refused.code, refused.out, "use --force" in refused.err) == (2, "", True)
    assert drop(used, "--yes", "--force").code == 0
    ran = vecsync("sync", "all", "--entity", "works", "--no-record", "--json", "--config", used)
    assert ran.code == 0, ran.err
    assert ran.json["totals"]["upserted"] > 0
    assert ran.json["totals"]["embedded"] == 0


def rename(config: Path, kind: str = "labour") -> None:
    """The entity works is called labour from now on; its collection keeps its name."""
    entities = change(config)["entities"]
    entities = {("labour" if name == "works" else name): value for name, value in entities.items()}
    entities["labour"]["type"] = kind
    change(config, entities=entities)


def sync_labour(config: Path, *scope: str) -> Ran:
    return vecsync("sync", *(scope or ("all",)), "--entity", "labour", "--full", "--no-record", "--config", config)


def points(config: Path) -> dict[str, int]:
    """How many points name which entity."""
    with Workspace(config_of(config.parent)) as workspace:
        stored = [one for page in workspace.store("main").scan("works") for one in page]
    return dict(Counter(str(point.payload["entity"]) for point in stored))


def test_what_a_renamed_entity_left_goes_by_its_name(used: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its points stay, and every run says so, until it is named; then the new one's alone are left, as they were."""
    before = points(used)["works"]
    rename(used)
    for _ in range(3):
        ran = sync_labour(used)
        assert (ran.code, "`vecsync drop works --entity works" in ran.out + ran.err) == (1, True)
        assert points(used) == {"works": before, "labour": before}
    assert "ledger rebuild" not in caplog.text, "it was not lost"
    shown = vecsync("status", "--config", used)
    assert "`vecsync drop works --entity works" in shown.err
    assert "works of labour" in shown.out
    assert "reconcile --repair" not in shown.err, "it does not help"
    unnamed = drop(used, "--yes")
    assert (unnamed.code, "`--entity works` removes what works left" in unnamed.err) == (2, True)
    dry = drop(used, "--entity", "works", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert (dry.json["heir"], dry.json["stores"], list(dry.json["entities"])) == ("labour", {"main": before}, ["works"])
    assert drop(used, "--entity", "works", "--yes").code == 0
    assert points(used) == {"labour": before}
    found = vecsync("search", "brick", "--tenant", MORAVA, "--collection", "works", "--json", "--config", used)
    assert (found.code, bool(found.json["hits"])) == (0, True)
    assert "works of works" not in vecsync("status", "--config", used).err
    assert drop(used, "--entity", "works", "--yes").code == 2
    ran = sync_labour(used)
    assert ran.code == 0, ran.err
    assert vecsync("reconcile", "--config", used).code == 0


def test_a_repair_leaves_what_this_ledger_has_of_another_entity(used: Path) -> None:
    """It may be another project's; `drop` takes it, if somebody names it."""
    before = points(used)["works"]
    rename(used)
    sync_labour(used)
    ran = vecsync("reconcile", "--repair", "--collection", "works", "--config", used)
    assert (ran.code, points(used)) == (1, {"works": before, "labour": before})


def test_what_nothing_replaces_stays(config: Path) -> None:
    """What a renamed entity left of tenants that were not synced since is all that is found of them."""
    rename(config)
    before = points(config)
    for scope in ((), ("tenant", MORAVA)):
        if scope:
            sync_labour(config, *scope)
        refused = drop(config, "--entity", "works", "--yes")
        assert (refused.code, "no full sync as labour" in refused.err, "--force" in refused.err) == (2, True, True)
        assert points(config)["works"] == before["works"]
    with Workspace(config_of(config.parent)) as workspace, pytest.raises(WrongUsage):
        dropping.leaving(workspace, "works", "works", everything=True)
    assert drop(config, "--entity", "works", "--force", "--yes").code == 0
    assert points(config).keys() == {"labour"}


def test_a_full_sync_that_found_nothing_replaces_nothing(config: Path) -> None:
    """It succeeded, and all records were rejected."""
    rename(config)
    entities = change(config)["entities"]
    entities["labour"]["types"] = {"name": "number"}
    change(config, entities=entities)
    before = points(config)
    sync_labour(config)
    refused = drop(config, "--entity", "works", "--yes")
    assert (refused.code, "the source has them, and labour does not" in refused.err) == (2, True)
    assert points(config) == before


def test_an_entity_that_keeps_its_type_is_refused_whole(used: Path) -> None:
    """Its documents have the ids of the former one's: nothing is written beside them; the message says what to do."""
    before = points(used)
    rename(used, change(used)["entities"]["works"]["type"])
    for _ in range(2):
        ran = sync_labour(used)
        assert (ran.code, "`vecsync drop works --entity works --force" in ran.out + ran.err) == (1, True)
        assert points(used) == before
    assert drop(used, "--entity", "works", "--force", "--yes").code == 0
    ran = sync_labour(used)
    assert ran.code == 0, ran.err
    assert points(used) == {"labour": before["works"]}
    assert vecsync("reconcile", "--config", used).code == 0


@pytest.mark.parametrize("named", [["works"], "works"])
def test_a_foreign_point_in_a_shared_collection_stays(config: Path, named: object) -> None:
    """Whatever its payload holds where ours name their entity."""
    rename(config)
    sync_labour(config)
    foreign = str(uuid.uuid4())
    with Workspace(config_of(config.parent)) as workspace:
        store, space = workspace.store("main"), workspace.ledger.space_of("works")
        assert space is not None
        store.upsert("works", [Point(foreign, {"entity": named}, np.ones(space.dimensions, np.float32))])
    ran = drop(config, "--entity", "works", "--yes")
    assert ran.code == 0, ran.err
    with Workspace(config_of(config.parent)) as workspace:
        assert [one.point_id for one in workspace.store("main").retrieve("works", [foreign])] == [foreign]


@pytest.mark.parametrize("entity", ["theirs", None])
def test_what_another_project_has_in_the_collection_stays(used: Path, entity: str | None) -> None:
    """Its points name an entity that this ledger does not know, or none: the collection goes by force alone; by its
    name, what an entity left."""
    foreign = str(uuid.uuid4())
    with Workspace(config_of(used.parent)) as workspace:
        store, space = workspace.store("main"), workspace.ledger.space_of("works")
        assert space is not None
        store.upsert("works", [Point(foreign, {"entity": entity}, np.ones(space.dimensions, np.float32))])
    take_out(used, "works")
    before = traces(used)
    for options in (["--yes"], ["--dry-run"]):
        refused = drop(used, *options)
        assert (refused.code, refused.out, traces(used)) == (2, "", before)
        assert "store main has 1 point of another entity than works, or of none" in refused.err
    ran = drop(used, "--entity", "works", "--yes")
    assert ran.code == 0, ran.err
    assert "the records of entity works" in ran.out
    with Workspace(config_of(used.parent)) as workspace:
        assert [one.point_id for page in workspace.store("main").scan("works") for one in page] == [foreign]
        assert ("works", "works") not in workspace.ledger.collections()
    refused = drop(used, "--yes")
    assert (refused.code, "the ledger knows nothing of it" in refused.err) == (2, True)
    assert drop(used, "--yes", "--force").code == 0
    assert traces(used) == []


def test_what_is_beside_a_stranger_s_collection_goes(config: Path, server: QdrantRest) -> None:
    """A collection that could not be made, as the server has another one of its name, leaves what it left in the
    ledger alone: that can be dropped, and the other one stays."""
    client = QdrantClient(url=server.url, check_compatibility=False)
    client.create_collection("works", models.VectorParams(size=4, distance=models.Distance.COSINE))
    change(config, stores={"main": {"type": "qdrant", "url": server.url, "attempts": 1}})
    ran = vecsync("sync", "all", "--entity", "works", "--full", "--no-record", "--config", config)
    assert (ran.code, "QDRANT_FOREIGN" in ran.err) == (1, True)
    take_out(config, "works")
    ran = drop(config, "--yes")
    assert ran.code == 0, ran.err
    with Workspace(config_of(config.parent)) as workspace:
        assert ("works", "works") not in workspace.ledger.collections()
    assert client.collection_exists("works")
    client.close()


def test_only_what_left_can_be_named(config: Path) -> None:
    for entity, told in (
        ("works", "is in the configuration"),
        ("nobody", "neither the ledger nor a store has anything of nobody"),
    ):
        refused = drop(config, "--entity", entity, "--yes")
        assert (refused.code, told in refused.err) == (2, True)


def test_it_asks_first(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer nothing goes."""
    take_out(config, "works")
    before = traces(config)
    for answer in ("", "n\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert drop(config).code != 0
        assert traces(config) == before
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert drop(config).code == 0
    assert traces(config) == []


def test_a_store_that_does_not_answer_stops_it(config: Path, server: QdrantRest) -> None:
    """Nothing is forgotten of points that may still be there."""
    change(config, stores={**change(config)["stores"], "other": {"type": "qdrant", "url": server.url, "attempts": 1}})
    take_out(config, "works")
    before = traces(config)
    server.fail(status=503, times=100)
    ran = drop(config, "--yes")
    assert (ran.code, "store other could not be asked" in ran.err) == (1, True)
    assert traces(config) == before


def test_a_running_sync_stops_it(config: Path) -> None:
    """A partition that is being synced is not dropped under its run."""
    take_out(config, "works")
    ledger = SqlLedger.open(f"sqlite:///{config.parent}/state/ledger.sqlite")
    with ledger.hold("works", "global"):
        ran = drop(config, "--yes")
    ledger.close()
    assert (ran.code, "PARTITION_BUSY" in ran.err) == (1, True)
    assert drop(config, "--yes").code == 0


def test_a_run_that_begins_meanwhile_is_refused(config: Path) -> None:
    """While a collection is dropped no run of its tenants begins, as one of a process that has the file of before
    would."""
    before = config_of(config.parent)
    take_out(config, "works")
    begun: list[PartitionResult] = []

    def begin() -> None:
        with Workspace(before, read_only=True) as other:
            [chosen] = other.select(["works"], ["global"])
            begun.extend(other.sync(chosen))

    with Workspace(config_of(config.parent)) as workspace:
        befall(workspace.store("main"), "drop_collection", begin, after=True)
        dropping.drop(workspace, dropping.leaving(workspace, "works"))
    assert [result.error and result.error.code for result in begun] == ["PARTITION_BUSY"]
    assert traces(config) == []


@pytest.mark.parametrize("tenant", ["t24", "new"])
def test_a_run_of_any_of_many_tenants_is_refused(config: Path, tenant: str) -> None:
    """However many tenants there are, and also one that nobody knew before."""
    before = config_of(config.parent)
    with Workspace(before) as workspace:
        runs = [Run(f"r{n}", "works", "works", f"t{n:02}", "full", "success", utc_now(), utc_now()) for n in range(25)]
        workspace.ledger.record_runs(runs)
    take_out(config, "works")
    begun: list[PartitionResult] = []

    def begin() -> None:
        with Workspace(before) as other:
            begun.extend(other.sync(Selection("works", tenant, ("works",))))

    with Workspace(config_of(config.parent)) as workspace:
        befall(workspace.store("main"), "drop_collection", begin, after=True)
        dropping.drop(workspace, dropping.leaving(workspace, "works"))
    assert [result.error and result.error.code for result in begun] == ["PARTITION_BUSY"]
    assert traces(config) == []


def test_what_was_cut_short_is_ended_by_the_next_call(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it dies, files half deleted, points gone or the entity half forgotten: the ledger still knows the
    collection, nothing is in the store without a row, and another call does the rest."""
    take_out(config, "works")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def die_deleting(folder: Path) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file())[:-1]:
            file.unlink()
        raise KeyboardInterrupt

    def cut_short(also: Callable[[str], None] = lambda _: None, ledger_dies: str = "") -> None:
        with Workspace(config_of(config.parent)) as workspace:
            if ledger_dies:
                befall(workspace.ledger, ledger_dies, die, after=True)
            with pytest.raises(KeyboardInterrupt):
                dropping.drop(workspace, dropping.leaving(workspace, "works"), also)
            assert ("works", "works") in workspace.ledger.collections()

    with monkeypatch.context() as files:
        files.setattr(shutil, "rmtree", die_deleting)
        cut_short()
    cut_short(die)
    cut_short(ledger_dies="forget_entity")
    assert drop(config, "--yes").code == 0
    assert traces(config) == []


def test_what_left_the_file_is_reported(config: Path) -> None:
    """By `check`, by `status` and by the weekly comparison; a collection, and everybody's records without a flag."""
    before = config.read_text(encoding="utf-8")
    take_out(config, "works")
    entities = change(config)["entities"]
    del entities["materials"]["tenancy"]["global_flag"]
    change(config, entities=entities)
    gone, scope = "works of works is not in the configuration any more", "materials of materials has no global records"
    check = vecsync("check", "--json", "--config", config).json["checks"]
    for told in (gone, scope):
        assert any(told in one["message"] for one in check)
        assert told in vecsync("status", "--config", config).err
    with Workspace(config_of(config.parent)) as workspace:
        [found] = [one for one in check_everything(workspace, "materials") if one.name == "reconciliation"]
    assert (found.passed, found.warning, found.facts["leftovers"]) == (False, True, 2)
    assert gone in found.message
    config.write_text(before, encoding="utf-8")
    assert vecsync("status", "--json", "--config", config).json["leftovers"] == []


def test_partitions_in_dagster_go_too(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dynamic partitions of an entity of which nothing is left."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        add_tenants(instance, "works", ["acme"])
    take_out(config, "works")
    assert drop(config, "--yes").code == 0
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_dynamic_partitions(tenants_name("works")) == []


def test_what_was_rejected_is_counted_after_it_left_the_file(config: Path) -> None:
    """No check of it is shown any more, and its last run met no rejected record."""

    def rejected() -> dict[str, int]:
        partitions = vecsync("status", "--json", "--config", config).json["partitions"]
        return {one["tenant"]: one["rejected"] for one in partitions if one["collection"] == "works"}

    before = rejected()
    assert sum(before.values())
    assert vecsync("sync", "all", "--no-record", "--config", config).code == 0
    take_out(config, "works")
    assert rejected() == before
