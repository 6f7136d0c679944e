"""`vecsync watch` and `vecsync install-triggers`: a changed row is synced at once, however the process is treated."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.cli.waking import told_by
from vecsync_dagster.config import Config
from vecsync_dagster.config.automation import AutomationConfig
from vecsync_dagster.config.models import EnvRef, PostgresSource
from vecsync_dagster.ledger import migrate
from vecsync_dagster.sources import postgres_notify
from vecsync_dagster.sources.postgres_notify import NotifyWaker
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.automation.test_runs_by_itself import exact
from vecsync_dagster_tests.cli.program import Ran, start, vecsync
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.world import World, config_of, file_of

INSERT = "INSERT INTO works (id, name, is_global, tenant_id)"
SLOW = {"watch": {"poll": 3600, "debounce": 0.1}}


@pytest.fixture
def world(tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """PostgreSQL and a store on a server; nothing is looked at again within the hour."""
    monkeypatch.setenv("SOURCE_URL", postgres_database)
    monkeypatch.setenv("LEDGER_URL", postgres_database)
    migrate.upgrade(postgres_database)
    with QdrantRest() as server:
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": server.url, "timeout_s": 20},
            ledger={"url": {"env": "LEDGER_URL"}},
            automation=SLOW,
        )
        world = World(postgres_database.replace("postgresql://", "postgresql+psycopg://"), config)
        file_of(config, tmp_path)
        world.insert({"id": n, "is_global": True} for n in range(1, 4))
        world.insert({"id": 10 + n, "tenant_id": "acme"} for n in range(4))
        yield world


def triggers(world: World, *options: str) -> Ran:
    return vecsync("install-triggers", *options, "--config", world.config.folder / "vecsync.yaml")


def notices(url: str, statement: str) -> list[str]:
    """What a statement tells those who listen."""
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as writer:
        listener.execute("LISTEN vecsync_changes")
        writer.execute(statement.encode())
        return [notice.payload for notice in listener.notifies(timeout=0.3)]


def test_triggers_tell_whose_rows_were_touched(world: World, postgres_database: str) -> None:
    """Keys of tenants and nothing else, once a statement; of both sides of a move; nothing where nothing happened."""
    assert triggers(world).out == "works: triggers installed\n"
    assert triggers(world).code == 0  # again: replaced

    def told(statement: str) -> list[str]:
        return notices(postgres_database, statement)

    [insert] = told(f"{INSERT} SELECT n, 'secret', false, 'b' FROM generate_series(50, 60) n")
    assert insert == '{"entity" : "works", "tenants" : ["b"]}'
    [moved] = told("UPDATE works SET tenant_id = 'c' WHERE id IN (10, 50)")
    assert tenants_of(moved) == ["acme", "b", "c"]
    assert [tenants_of(one) for one in told("UPDATE works SET is_global = true WHERE id = 51")] == [["b", "global"]]
    assert [tenants_of(one) for one in told("DELETE FROM works WHERE id = 52")] == [["b"]]
    assert told("UPDATE works SET name = 'x' WHERE id = -1") == []
    [many] = told(f"{INSERT} SELECT n, 'x', false, repeat('t', 60) || n FROM generate_series(1000, 1300) n")
    assert tenants_of(many) is None
    [truncate] = told("TRUNCATE works")
    assert tenants_of(truncate) is None
    assert triggers(world, "--remove").out == "works: triggers removed\n"
    assert told("INSERT INTO works (id, name, is_global) VALUES (1, 'x', true)") == []


def tenants_of(payload: str) -> list[str] | None:
    tenants: list[str] | None = json.loads(payload)["tenants"]
    return None if tenants is None else sorted(tenants)


def test_triggers_are_removed_where_their_entity_is_not_any_more(world: World, postgres_database: str) -> None:
    """Of an entity that moved to another schema, and with --unknown of one that left vecsync.yaml, which another file
    may have: `check` says where they are, installing removes them, and what others made stays."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        connection.execute("CREATE TABLE other.works (LIKE works INCLUDING ALL)")
        connection.execute("CREATE FUNCTION vecsync_mine_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'")
    assert triggers(world).code == 0
    assert "triggers of" not in vecsync("check", "--config", world.config.folder / "vecsync.yaml").out
    works = world.config.entities["works"]
    moved = {"renamed": works, "works": works.model_copy(update={"table": "other.works"})}
    moved["renamed"] = works.model_copy(update={"collections": {"renamed": works.collections["works"]}})
    file_of(world.config.model_copy(update={"entities": moved}), world.config.folder)
    ran = vecsync("check", "--json", "--config", world.config.folder / "vecsync.yaml")
    [probe] = [one for one in ran.json["checks"] if one["part"].startswith("triggers")]
    assert (probe["part"], probe["state"], "still on works," in probe["message"]) == ("triggers of works", "WARN", True)
    ran = triggers(world)
    assert ran.out == "works: triggers removed from works\nrenamed: triggers installed\nworks: triggers installed\n"
    [told] = notices(postgres_database, "DELETE FROM works WHERE id = 1")
    assert json.loads(told)["entity"] == "renamed"
    file_of(world.config.model_copy(update={"entities": {"works": moved["works"]}}), world.config.folder)
    kept = triggers(world)
    assert (kept.out, "renamed: its triggers stay" in kept.err) == ("works: triggers installed\n", True)
    told = triggers(world, "--unknown").out
    assert told == "renamed: triggers removed from works\nworks: triggers installed\n"
    assert notices(postgres_database, "DELETE FROM works WHERE id = 2") == []
    assert triggers(world, "--remove").out == "works: triggers removed\n"
    with psycopg.connect(postgres_database) as connection:
        ours = connection.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'vecsync%'").fetchall()
    assert ours == [("vecsync_mine_notify",)]


def test_views_and_tables_of_every_kind(
    world: World, postgres_database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`check` and `sync` take views, materialized views and partitioned tables; installing says which cannot have
    triggers and gives the others theirs; `watch` says whose changes it does not hear of."""
    kinds = {
        "seen": "CREATE VIEW seen AS SELECT * FROM works",
        "kept": "CREATE MATERIALIZED VIEW kept AS SELECT * FROM works",
        "parts": "CREATE TABLE parts (LIKE works) PARTITION BY HASH (id); "
        "CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0); "
        "INSERT INTO parts SELECT * FROM works",
    }
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        for statement in kinds.values():
            connection.execute(statement.encode())
    works = world.config.entities["works"]
    entities = {
        name: works.model_copy(update={"table": name, "id": "id", "collections": {name: works.collections["works"]}})
        for name in kinds
    }
    file = file_of(world.config.model_copy(update={"entities": entities}), tmp_path)
    checked = {one["part"]: one["state"] for one in vecsync("check", "--json", "--config", file).json["checks"]}
    assert [checked[f"source of {name}"] for name in kinds] == ["OK"] * 3
    ran = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", file)
    assert (ran.code, ran.json["totals"]["upserted"]) == (0, 3 * 7)
    ran = triggers(world)
    assert (ran.code, ran.out) == (1, "parts: triggers installed\n")
    assert [name for name in kinds if f"entity {name}, " in ran.err] == ["seen", "kept"]
    url = Postgres(PostgresSource(type="postgres", url=EnvRef(env="SOURCE_URL")), name="db").conninfo()
    NotifyWaker(url, "db", {name: name for name in kinds}).run(lambda *_: None, lambda: True)
    assert "source db: no triggers for seen, kept: looked at every automation.watch.poll" in caplog.text


def heard(url: str, table: str) -> set[str]:
    """Of whose changes a listener is told, where the entity is on that table."""
    waker = NotifyWaker(url, "db", {"works": table})
    waker.run(lambda *_: None, lambda: True)
    return set(waker.hears)


def test_only_an_entity_whose_own_table_tells_is_heard(world: World, postgres_database: str) -> None:
    """Not by triggers on the table it was on before, one of the same name in another schema, or disabled ones; and
    `check` says what is there of no use."""
    file = world.config.folder / "vecsync.yaml"
    assert triggers(world).code == 0
    works = world.config.entities["works"]
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other; CREATE TABLE other.works (LIKE works INCLUDING ALL)")
        connection.execute('CREATE TABLE "other.dotted" (LIKE works INCLUDING ALL)')
        assert heard(postgres_database, "works") == heard(postgres_database, "public.works") == {"works"}
        for table in ("other.works", "other.dotted", "no.table", "nowhere"):
            assert heard(postgres_database, table) == set(), table
        elsewhere = psycopg.conninfo.make_conninfo(postgres_database, options="-csearch_path=other,public")
        assert heard(elsewhere, "works") == set()

        def probed() -> list[str]:
            checks = vecsync("check", "--json", "--config", file).json["checks"]
            return [one["message"] for one in checks if one["part"] == "triggers of works"]

        assert probed() == []
        for disabled in ("ALL", "vecsync_works_update"):
            connection.execute(f"ALTER TABLE works DISABLE TRIGGER {disabled}".encode())
            assert heard(postgres_database, "works") == set()
            [message] = probed()
            assert "not all of them are there and enabled" in message
            assert triggers(world).code == 0
        connection.execute("ALTER TABLE works ENABLE ALWAYS TRIGGER vecsync_works_update")
        assert heard(postgres_database, "works") == {"works"}
        moved = works.model_copy(update={"table": "other.works"})
        file_of(world.config.model_copy(update={"entities": {"works": moved}}), world.config.folder)
        [message] = probed()
        assert "still on works," in message
        assert "Its own table has none" in message
        assert list(told_by(world.config)) == ["works"]
        assert list(told_by(world.config.model_copy(update={"entities": {"works": moved}}))) == []


def test_a_table_that_loses_its_triggers_is_not_heard_any_more(
    world: World, postgres_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A listener looks again every now and then, and says it once."""
    assert triggers(world).code == 0
    monkeypatch.setattr(postgres_notify, "_LOOK_S", 0.0)
    monkeypatch.setattr(postgres_notify, "_LISTEN_S", 0.05)
    waker, seen = NotifyWaker(postgres_database, "db", {"works": "works"}), list[set[str]]()

    def stop() -> bool:
        seen.append(set(waker.hears))
        if len(seen) == 2:
            with psycopg.connect(postgres_database, autocommit=True) as connection:
                connection.execute("ALTER TABLE works DISABLE TRIGGER ALL")
        return len(seen) > 5

    waker.run(lambda *_: None, stop)
    assert (seen[1], seen[-1]) == ({"works"}, set())
    assert caplog.text.count("no triggers for works") == 1


def test_a_dry_run_prints_the_sql(world: World, postgres_database: str) -> None:
    """What would be done, as SQL that a database administrator can run; and nothing is done."""
    printed = triggers(world, "--dry-run").out
    assert notices(postgres_database, "DELETE FROM works WHERE id = 1") == []
    assert printed.count("CREATE TRIGGER") == 4
    with psycopg.connect(postgres_database) as connection:
        connection.execute(printed.encode())
    assert len(notices(postgres_database, "DELETE FROM works WHERE id = 2")) == 1


def test_sqlite_has_no_triggers_of_ours(fresh: Path) -> None:
    """A source that cannot tell is left out, and is wrong usage where it was named."""
    ran = vecsync("install-triggers", "--config", fresh)
    assert (ran.code, ran.out) == (0, "")
    assert "materials: its source estimating is no PostgreSQL" in ran.err
    assert vecsync("install-triggers", "--entity", "works", "--config", fresh).code == 2


def test_a_user_who_may_not_is_told(world: World, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to create triggers: one line, with the way to give another user."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS vecsync_reader")
        connection.execute("CREATE ROLE vecsync_reader LOGIN PASSWORD 'hunter2'")
        connection.execute("GRANT SELECT ON works TO vecsync_reader")
    try:
        reader = psycopg.conninfo.conninfo_to_dict(postgres_database)
        monkeypatch.setenv("OWNER_URL", postgres_database)
        url = f"postgresql://vecsync_reader:hunter2@{reader['host']}:{reader['port']}/{reader['dbname']}"
        monkeypatch.setenv("SOURCE_URL", url)
        refused = triggers(world)
        assert refused.code == 1
        assert "InsufficientPrivilege" in refused.err
        assert "hunter2" not in refused.err
        assert triggers(world, "--url-env", "OWNER_URL").code == 0
    finally:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY vecsync_reader")
            connection.execute("DROP ROLE vecsync_reader")


def test_changes_are_synced_at_once(world: World, postgres_database: str, tmp_path: Path) -> None:
    """Rows that come, change and go, a new tenant, and all that happened while the connection was cut; then a signal
    ends it, and that is no failure."""
    assert triggers(world).code == 0
    process = start("watch", "--no-record", "--config", tmp_path / "vecsync.yaml")
    try:
        wait_for("the first look", lambda: exact(world))
        wait_for("the listener", lambda: listeners(postgres_database))
        world.insert([{"id": 100, "tenant_id": "acme"}, {"id": 101, "tenant_id": "new"}])
        wait_for("inserted rows", lambda: exact(world))
        world.update(100, name="иначе")
        world.delete(11)
        wait_for("an update and a deletion", lambda: exact(world))
        cut(postgres_database)
        world.insert([{"id": 102, "is_global": True}])
        wait_for("what came while nobody listened", lambda: exact(world))
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = ended(process)
    assert process.returncode == 0, err
    assert "works of acme: " in out
    assert "Работа" not in out + err


def test_what_moved_with_its_key_is_told_too(world: World, postgres_database: str, tmp_path: Path) -> None:
    """Where the tenant is a part of the key: the former tenant has as many rows as before, as another one came, and the
    new tenant may never have been synced."""
    entity = world.config.entities["works"].model_copy(update={"id": ("tenant_id", "id")})
    world.config = world.config.model_copy(update={"entities": {"works": entity}})
    file_of(world.config, tmp_path)
    assert triggers(world).code == 0
    keys = {"~/1", "~/2", "~/3", *(f"acme/{n}" for n in range(10, 14))}

    def synced() -> bool:
        return {payload["dbId"] for payload in world.stored().values()} == keys

    assert vecsync("sync", "all", "--full", "--no-record", "--config", tmp_path / "vecsync.yaml").code == 0
    process = start("watch", "--events-only", "--no-record", "--config", tmp_path / "vecsync.yaml")
    try:
        wait_for("the listener", lambda: listeners(postgres_database))
        for number, tenant, deleted in (
            (10, "new", None),
            (11, "new", world._moment()),
            (12, "other", world._moment()),
        ):
            with psycopg.connect(postgres_database) as connection:  # one transaction, one round
                moved = "UPDATE works SET tenant_id = %s, deleted_at = %s, updated_at = now() WHERE id = %s"
                connection.execute(moved, (tenant, deleted, number))
                connection.execute(
                    "INSERT INTO works (id, name, unit, is_global, tenant_id, updated_at) "
                    "VALUES (%s, 'n', 'u', false, 'acme', now())",
                    (number + 90,),
                )
            keys -= {f"acme/{number}"}
            keys |= {f"acme/{number + 90}"} | ({f"{tenant}/{number}"} if deleted is None else set())
            wait_for(f"record {number}", synced)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = ended(process)
    assert process.returncode == 0, err


def test_dagster_is_told_of_several_rounds_at_once(
    world: World, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run for all that was synced well, while it goes on and at its end; and nothing is missing."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert triggers(world).code == 0
    slow = {**SLOW, "watch": {**SLOW["watch"], "record": 3600}}
    file_of(world.config.model_copy(update={"automation": AutomationConfig.model_validate(slow)}), tmp_path)
    process = start("watch", "--config", tmp_path / "vecsync.yaml")
    try:
        wait_for("the first look", lambda: exact(world))
        wait_for("the listener", lambda: listeners(postgres_database))
        for row, tenant in enumerate(("acme", "acme", "new", "other"), 100):
            world.insert([{"id": row, "tenant_id": tenant}])
            wait_for("an inserted row", lambda: exact(world))
        assert materialized(world.config) == (0, set())
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = ended(process)
    assert process.returncode == 0, err
    assert materialized(world.config) == (1, {f"works|{tenant}" for tenant in ("acme", "global", "new", "other")})


def materialized(config: Config) -> tuple[int, set[str]]:
    """Runs that Dagster has, and the partitions of the last stage that it was told of."""
    with open_instance(config) as instance:
        return instance.get_runs_count(), instance.get_materialized_partitions(dg.AssetKey(["works", "vectors"]))


def test_watch_ends_where_every_sync_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entity's source is down: the other is synced; the figures and Dagster say both, one alert tells of it and one
    of its end."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    source = {"type": "sqlite", "path": "source.db"}
    config = config_of(tmp_path, source=source, store={"type": "qdrant", "path": "qdrant"})
    data = config.model_dump(mode="json", exclude_unset=True)
    data["entities"] = {
        "late": {**data["entities"]["works"], "source": "late", "collections": {"late": {"text": "{name}"}}}
    } | data["entities"]
    data["sources"]["late"] = {**source, "path": "late.db"}
    data |= {"alerts": {"slack": {"url": {"env": "SLACK_URL"}}}, "automation": {"watch": {"poll": 1, "debounce": 0}}}
    config = Config.model_validate(data).with_folder(tmp_path)
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    world.insert([{"id": 1, "tenant_id": "acme"}])

    def metrics() -> dict[str, Any]:
        file = tmp_path / "state" / "sync_metrics.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        process = start("watch", "--config", file_of(config, tmp_path))
        try:
            first = wait_for("the figures", metrics)
            wait_for("the alert", lambda: inbox.posts)
            assert shown(config, "late").startswith("the source failed: SOURCE_ERROR")
            World(f"sqlite:///{tmp_path / 'late.db'}", config)
            wait_for("its end", lambda: len(inbox.posts) > 1)
            wait_for("Dagster", lambda: shown(config, "late").endswith("all ended well"))
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = ended(process)
    assert process.returncode == 0, err
    assert (first["outcome"], [error["entity"] for error in first["errors"]]) == ("failed", ["late"])
    assert {(one["tenant"], one["outcome"]) for one in first["partitions"]} == {
        ("acme", "success"),
        ("global", "success"),
    }
    assert (metrics()["outcome"], metrics()["health"]["failing"]) == ("success", 0)
    raised, resolved = (post.json["text"] for post in inbox.posts)
    assert "SOURCE_ERROR" in raised
    assert "late" in resolved
    world.assert_exact()


def shown(config: Config, entity: str) -> str:
    """What Dagster shows of the entity's last runs."""
    key = dg.AssetCheckKey(dg.AssetKey([entity, "health"]), "runs")
    with open_instance(config) as instance:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation.description or ""


def listeners(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        return [pid for (pid,) in connection.execute(query)]


def cut(url: str) -> None:
    with psycopg.connect(url) as connection:
        for pid in listeners(url):
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()
