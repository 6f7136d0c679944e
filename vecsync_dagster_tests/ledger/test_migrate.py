"""The schema's versions: up, down, refused; and that they end where `tables.py` says."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.exc import IntegrityError

from vecsync_dagster.errors import ConfigError, LedgerRejected, NotFound
from vecsync_dagster.ledger import SqlLedger, migrate, version
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.database import Database
from vecsync_dagster.ledger.tables import index_state, metadata
from vecsync_dagster_tests.ledger.samples import MINUTE, NOON, SPACE, A, B, confirm, confirmed, failed, state

both = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)


def schema(engine: Engine) -> dict[str, Any]:
    """All the database itself says of our tables."""
    inspector = inspect(engine)
    return {
        name: (
            [{**column, "type": repr(column["type"])} for column in inspector.get_columns(name)],
            inspector.get_pk_constraint(name)["constrained_columns"],
            # As text: a partial index's condition is an object that equals only itself.
            sorted(str(index) for index in map(plain, inspector.get_indexes(name))),
            inspector.get_check_constraints(name),
        )
        for name in metadata.tables
    }


def plain(index: ReflectedIndex) -> dict[str, Any]:
    options = index.get("dialect_options", {})
    return {**index, "dialect_options": {key: str(value) for key, value in options.items()}}


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


@both
class TestMigrations:
    # Of SQLite's indexes of an expression these libraries know nothing; contract_retention.py shows that it is there.
    @pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index ix_index_state_text")
    @pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
    def test_the_migrated_schema_is_that_of_the_tables(self, url: str) -> None:
        """Alembic finds no difference, and the database describes both the same way: a new ledger, which is made in one
        step, and one that came through all versions."""
        database = Database(url)
        migrate.upgrade(database.engine, "0001")
        migrate.upgrade(database.engine)
        with database.engine.connect() as connection:
            options = {"version_table": version.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        migrated = schema(database.engine)
        migrate.downgrade(database.engine, "base")
        migrate.upgrade(database.engine)
        assert schema(database.engine) == migrated
        database.close()

    def test_down_leaves_nothing_and_up_works_again(self, url: str) -> None:
        """A ledger taken back to `base` has no table of ours, and can be brought up again."""
        migrate.upgrade(url)
        database = Database(url)
        assert tables(database.engine) == set(metadata.tables) | {version.VERSION_TABLE}
        migrate.downgrade(url, "base")
        assert tables(database.engine) == {version.VERSION_TABLE}
        assert version.current(url) is None
        migrate.upgrade(url, version.HEAD)
        assert set(metadata.tables) <= tables(database.engine)
        database.close()

    def test_versions_are_told(self, url: str) -> None:
        """`current`, `pending` and `head` say where a ledger is and where it should be."""
        assert (version.current(url), version.pending(url)) == (None, True)
        refusal = f"its version is none, needed is {version.HEAD}; run `vecsync migrate`"
        with pytest.raises(LedgerRejected, match=refusal):
            version.require_head(url)
        migrate.upgrade(url)
        assert (version.current(url), version.pending(url)) == (version.HEAD, False)

    def test_upgrading_twice_keeps_what_is_there(self, url: str) -> None:
        """A ledger that is up to date is left alone."""
        ledger = SqlLedger.open(url)
        confirm(ledger, A, ["d1"])
        migrate.upgrade(url)
        assert ledger.tally(*A).held == 1
        ledger.close()

    def test_partitions_that_ran_before_are_shown_once_more(self, url: str) -> None:
        """What earlier versions told Dagster briefly nobody knows; a source that was asked is no partition."""
        ledger = SqlLedger.open(url)
        for run_id, place, mode in (("r1", A, "full"), ("r2", A, "full"), ("r3", (A[0], "", ""), "listing")):
            ledger.record_run(Run(run_id, *place, mode, "success", NOON, NOON + MINUTE, {}))
        migrate.downgrade(url, "0017")
        migrate.upgrade(url)
        assert ledger.unshown(A[0]) == {A[1:]}
        ledger.shown(*A, NOON + MINUTE)
        assert ledger.unshown(A[0]) == set()
        ledger.close()

    def test_documents_of_earlier_versions_are_found_by_the_rest_of_their_keys(self, url: str) -> None:
        """As those are that are written now."""
        ledger = SqlLedger.open(url)
        keys = {
            A: ("tenant-a/1", "2/tenant-a", "tenant-a/tenant-a", "tenant-a/5/tenant-a", "3"),
            (*A[:2], "global"): ("~/4",),
        }
        keys[(*A[:2], "c/d~")] = ("c~1d~0/5", "c~1d~0/")
        for where, some in keys.items():
            writes = [replace(confirmed(f"{where[2]} {key}"), db_id=key) for key in some]
            ledger.confirm(*where, SPACE, writes, NOON)
        rests = {f"{where[2]} {key}": None for where, some in keys.items() for key in some}
        before = {name: state(ledger, name)["rest_id"] for name in rests}
        migrate.downgrade(url, "0021")
        migrate.upgrade(url)
        assert {name: state(ledger, name)["rest_id"] for name in rests} == before
        assert sorted(before.values(), key=str) == ["", "1", "2", "4", "5", "5/tenant-a", None, "tenant-a"]
        ledger.close()

    def test_documents_and_when_they_were_seen_survive_both_ways(self, url: str) -> None:
        """Down to where no row had a number or a text, and up again: every row as it was but for its text, and last
        seen when it was seen."""
        ledger = SqlLedger.open(url)
        confirm(ledger, A, ["d2", "d1"])
        ledger.fail(*B, SPACE, [failed("d3")], NOON)
        ledger.mark_all_seen(*A, NOON + MINUTE)
        before = {name: state(ledger, name) for name in ("d1", "d2", "d3")}
        migrate.downgrade(url, "0006")
        migrate.upgrade(url)
        after = {name: state(ledger, name) for name in before}
        for name, row in before.items():
            seen_at = NOON if name == "d3" else NOON + MINUTE
            unknown = {"number": 0, "text_hash": None, "truncated": None}
            assert after[name] | {"number": 0} == row | unknown | {"last_seen_at": seen_at}
        assert len({row["number"] for row in after.values()}) == 3
        ledger.close()

    def test_a_newer_ledger_is_refused(self, url: str) -> None:
        """A ledger of a newer version is not opened, migrated or taken down: it could be damaged."""
        ledger = SqlLedger.open(url)
        with ledger.database.write() as connection:
            connection.execute(text(f"UPDATE {version.VERSION_TABLE} SET version_num = '9999'"))
        for attempt in (
            ledger.check,
            lambda: SqlLedger.open(url),
            lambda: migrate.upgrade(url),
            lambda: migrate.downgrade(url, "base"),
            lambda: version.pending(url),
        ):
            with pytest.raises(LedgerRejected, match=rf"9999 is newer than this vecsync \({version.HEAD}\)"):
                attempt()
        ledger.close()

    def test_a_ledger_behind_is_refused_without_leave_to_migrate(self, url: str) -> None:
        """Without auto_migrate an empty database is refused, and stays empty."""
        with pytest.raises(LedgerRejected, match="run `vecsync migrate`"):
            SqlLedger.open(url, auto_migrate=False)
        assert version.current(url) is None

    def test_a_failing_migration_leaves_nothing(self, url: str) -> None:
        """A table in the way of the migration ends it, and none of its other tables stay."""
        database = Database(url)
        with database.write() as connection:
            connection.execute(text("CREATE TABLE watermark (other INTEGER)"))
        with pytest.raises(LedgerRejected):
            migrate.upgrade(url)
        assert tables(database.engine) == {"watermark"}
        database.close()

    def test_another_programs_versions_are_not_touched(self, url: str) -> None:
        """A database shared with another user of Alembic (Dagster is one) keeps that one's version."""
        database = Database(url)
        with database.write() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        SqlLedger.open(url).close()
        migrate.downgrade(url, "base")
        with database.read() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "theirs"
        database.close()

    def test_a_new_ledger_can_be_taken_down_and_up(self, url: str) -> None:
        """It is what the migrations would have made, down to the table of its version."""
        migrate.upgrade(url)
        migrate.downgrade(url, "0006")
        migrate.upgrade(url)
        assert version.current(url) == version.HEAD

    def test_an_unknown_version_is_refused(self, url: str) -> None:
        """Migrating to a version that does not exist is an error that names the ledger, and changes nothing."""
        with pytest.raises(NotFound, match="no such version"):
            migrate.upgrade(url, "0815")
        assert version.current(url) is None

    def test_a_status_is_one_of_four(self, url: str) -> None:
        """The database itself refuses a status that is none."""
        ledger = SqlLedger.open(url)
        confirm(ledger, A, ["d1"])
        with pytest.raises(IntegrityError), ledger.database.engine.begin() as connection:
            connection.execute(index_state.update().values(status="done"))
        ledger.close()


def test_an_sqlite_file_is_set_up_by_one_at_a_time(tmp_path: Path) -> None:
    """While somebody else sets the file up, opening it waits, and then finds it ready or does it itself."""
    file = tmp_path / "ledger.sqlite"
    opening = threading.Thread(target=lambda: SqlLedger.open(f"sqlite:///{file}").close())
    with FileLock(f"{file}.lock"):
        opening.start()
        opening.join(0.3)
        assert version.current(f"sqlite:///{file}") is None
    opening.join()
    assert version.current(f"sqlite:///{file}") == version.HEAD


def test_the_head_is_the_newest_migration() -> None:
    """The version that a ledger is compared with is that of the last migration."""
    assert ScriptDirectory.from_config(migrate._config()).get_current_head() == version.HEAD


def test_keys_sort_bytewise_on_postgresql(postgres_database: str) -> None:
    """Point ids, and all that is part of a key, have the collation C whatever the server's locale."""
    migrate.upgrade(postgres_database)
    database = Database(postgres_database)
    collations = text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE collation_name = 'C'"
        " AND table_schema = current_schema()"
    )
    with database.read() as connection:
        found = {(table, column) for table, column in connection.execute(collations)}
    database.close()
    keys = {(table.name, key.name) for table in metadata.tables.values() for key in table.primary_key}
    numbers = {("invalid_record", "id"), ("index_state", "number")}
    others = {("index_state", name) for name in ("collection", "document_id", "point_id", "tenant_id")}
    assert found >= (keys - numbers) | others


@pytest.mark.parametrize("url", ["mysql://user:hunter2@host/db", "postgresql+psycopg2://u:hunter2@h/d", "hunter2"])
def test_other_databases_are_refused(url: str) -> None:
    """A URL of something else is a configuration error that does not repeat its password."""
    with pytest.raises(ConfigError) as caught:
        SqlLedger.open(url)
    assert "hunter2" not in str(caught.value)
