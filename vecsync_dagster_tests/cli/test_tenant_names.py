"""Tenants by their names: shown beside the id, taken in place of it, and never in the way of a sync."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import (
    HARBOUR,
    HOUSES,
    MORAVA,
    change_rows,
    config_of,
    held,
    tree,
    vecsync,
)

NAMES = {HOUSES: "Северный дом", MORAVA: "Morava Fasády", HARBOUR: "Harbour Fit-Out"}


def sync(config: Path, *what: str) -> int:
    return vecsync("sync", *what, "--no-record", "--config", config).code


def shown(config: Path) -> dict[str, str]:
    """Names by tenant, as `status` has them."""
    partitions = vecsync("status", "--json", "--config", config).json["partitions"]
    return {one["tenant"]: one["tenant_name"] for one in partitions if one["tenant_name"]}


def test_names_are_shown_beside_ids(asked: Path) -> None:
    """In tables the name comes first and the id is whole; JSON has both; a record's page too."""
    assert shown(asked) == NAMES
    for command in (["status"], ["status", "--entity", "works", "--id", "3091"], ["tenants"]):
        assert f"Morava Fasády ({MORAVA})" in vecsync(*command, "--config", asked).out
    assert f"works of Harbour Fit-Out ({HARBOUR}): 1 of 13" in vecsync("status", "--config", asked).err
    rejected = vecsync("invalid", "--json", "--config", asked).json["records"]
    assert {one["tenant"]: one["tenant_name"] for one in rejected} == {"global": "", **NAMES}
    assert f"Harbour Fit-Out ({HARBOUR})" in vecsync("invalid", "--config", asked).out


def test_a_retry_says_whose_documents_it_tried(config: Path, synced: Path) -> None:
    """In its table, in JSON, and in the message of a failure."""
    with closing(sqlite3.connect(synced / "state" / "ledger.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE index_state SET status = 'failed', attempt_hash = 'tried', error_code = 'QDRANT_UNAVAILABLE', "
            "next_attempt_at = '2026-01-01' WHERE collection = 'works' AND tenant_id = ?",
            (MORAVA,),
        )
    with held(synced):
        again = vecsync("retry", "--no-record", "--config", config)
    assert f"Morava Fasády ({MORAVA})" in again.out
    assert f"failed: works of Morava Fasády ({MORAVA}): QDRANT_LOCKED" in again.err
    again = vecsync("retry", "--no-record", "--json", "--config", config)
    assert {one["tenant_name"] for one in again.json["partitions"]} == {NAMES[MORAVA]}


def test_a_narrow_table_has_short_ids(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns the name does and the id is short; where there are but lists, it is whole, on a line of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = vecsync("status", "--config", asked).out
    assert "(2222…2222)" in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "50")
    lines = vecsync("status", "--config", asked).out.splitlines()
    assert f"tenant        {'Morava Fasády':36}" in lines
    assert f"              {MORAVA}" in lines


def test_two_tenants_of_one_name_stay_apart(config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that would look alike when they are short are whole; the name alone means neither of them."""
    monkeypatch.setenv("COLUMNS", "130")
    other = f"1111{HOUSES[4:-4]}1111".replace("4111", "4112")
    change_rows(synced, "UPDATE works SET tenant_id = ? WHERE id = (SELECT max(id) FROM works)", other)
    change_rows(synced, "INSERT INTO firms VALUES (?, ?)", other, NAMES[HOUSES])
    assert sync(config, "works") == 0
    table = vecsync("status", "--config", config).out
    assert (HOUSES in table, other in table, MORAVA in table) == (True, True, False)
    ran = vecsync("status", "--tenant", NAMES[HOUSES], "--entity", "works", "--config", config)
    assert (ran.code, f"2 tenants are called {NAMES[HOUSES]}; give the id: {HOUSES}, {other}" in ran.err) == (2, True)
    assert sync(config, "tenant", NAMES[HOUSES], "--entity", "works") == 2


def test_a_name_does_for_the_id(asked: Path) -> None:
    """`status` and `invalid` take a tenant's name as its id; a name that nobody has is no tenant."""
    by_name, by_id = (
        vecsync("status", "--tenant", tenant, "--json", "--config", asked).json for tenant in (NAMES[MORAVA], MORAVA)
    )
    assert by_name == by_id
    assert [one["tenant"] for one in by_name["partitions"]] == [MORAVA, MORAVA]
    found = [vecsync("invalid", "--json", "--tenant", tenant, "--config", asked) for tenant in (NAMES[MORAVA], MORAVA)]
    assert found[0] == found[1]
    assert found[0].code == 0
    ran = vecsync("status", "--tenant", "Morava", "--config", asked)
    assert (ran.code, "no tenant Morava in" in ran.err) == (2, True)


def test_documents_are_shown_by_id_alone(asked: Path) -> None:
    """`search` and `export` take no name, and say whose it is."""
    told = f"; a tenant {MORAVA} is called that"
    ran = vecsync("search", "barva", "--collection", "works", "--tenant", NAMES[MORAVA], "--json", "--config", asked)
    assert (ran.code, ran.out) == (2, "")
    assert f"{NAMES[MORAVA]} is no tenant's id, and a search takes no names{told}" in ran.err
    ran = vecsync("export", "--tenant", NAMES[MORAVA], "--config", asked)
    assert (ran.code, ran.out) == (2, "")
    assert f"no tenant {NAMES[MORAVA]} in the source of materials, works{told}" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ["sync", "tenant"],
        ["sync", "materials", "--id", "1001", "--tenant"],
        ["status", "--tenant"],
        ["export", "--tenant"],
        ["search", "paint", "--collection", "works", "--tenant"],
    ],
    ids=lambda words: words[0],
)
def test_an_unknown_tenant_is_answered_with_near_names(asked: Path, words: list[str]) -> None:
    """In each command, with the command that lists all of them."""
    command = f"`vecsync tenants --config {asked}`"
    for typed, meant in (
        ("Harbor Fit-Out", f"; did you mean {NAMES[HARBOUR]} ({HARBOUR})? {command} lists all"),
        (f"{MORAVA[:-1]}3", f"did you mean {NAMES[MORAVA]} ({MORAVA})"),
        ("nobody", f"; {command} lists them"),
    ):
        ran = vecsync(*words, typed, "--config", asked)
        assert (ran.code, f"NOT_FOUND: no tenant {typed} in" in ran.err, meant in ran.err) == (2, True, True), ran.err


@pytest.mark.parametrize("called", ["acme", " acme\n"], ids=["same", "blanks"])
def test_an_id_is_no_name_wherever_it_is_known(config: Path, synced: Path, called: str) -> None:
    """A tenant that calls itself by another's id is never taken for it: not where that one is in the other entity
    alone, nor before it was ever synced."""
    change_rows(synced, "UPDATE firms SET name = ? WHERE id = ?", called, MORAVA)
    assert sync(config, "all") == 0
    assert shown(config)[MORAVA] == "acme"
    change_rows(synced, "UPDATE works SET tenant_id = 'acme' WHERE id = 3091")
    for command in (["status", "--entity", "materials"], ["invalid", "--entity", "materials"]):
        ran = vecsync(*command, "--tenant", called, "--json", "--config", config)
        assert (ran.code, MORAVA in ran.out) == (2, False), command
    assert sync(config, "tenant", called, "--entity", "materials") == 2
    ran = vecsync("search", "barva", "--collection", "materials", "--tenant", "acme", "--json", "--config", config)
    assert (ran.code, ran.out, f"a tenant {MORAVA} is called that" in ran.err) == (2, "", True)
    assert vecsync("export", "--entity", "materials", "--tenant", "acme", "--config", config).code == 2


def test_a_name_that_may_be_an_id_is_none(config: Path, synced: Path) -> None:
    """Where a source cannot be asked whether it is an id, a name is refused, and the id of who has it is told."""
    database = synced / "estimating.sqlite"
    database.rename(synced / "away.sqlite")
    ran = vecsync("status", "--tenant", NAMES[MORAVA], "--config", config)
    assert (ran.code, f"give the id: {MORAVA}" in ran.err) == (2, True)
    assert vecsync("status", "--tenant", MORAVA, "--config", config).code == 0


def test_a_name_that_one_entity_gives_means_the_tenant_in_all(config: Path, synced: Path) -> None:
    """`sync tenant NAME` syncs the tenant in every entity, also in those whose configuration has no names."""
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(", name: {table: firms, id: id, column: name}", "", 1), encoding="utf-8")
    ran = vecsync("sync", "tenant", NAMES[MORAVA], "--json", "--no-record", "--config", config)
    assert ran.code == 0
    assert {(one["entity"], one["tenant"], one["tenant_name"]) for one in ran.json["partitions"]} == {
        ("materials", MORAVA, ""),
        ("works", MORAVA, NAMES[MORAVA]),
    }


def test_a_sync_by_name(fresh: Path) -> None:
    """`sync tenant NAME` syncs that tenant, also as the first thing that is ever done; the id of another one wins."""
    assert sync(fresh, "tenant", NAMES[MORAVA]) == 0
    assert set(shown(fresh)) == {MORAVA}
    change_rows(fresh.parent, "UPDATE firms SET name = ? WHERE id = ?", HOUSES, MORAVA)
    assert sync(fresh, "tenant", HOUSES) == 0
    assert set(shown(fresh)) == {HOUSES, MORAVA}
    assert sync(fresh, "works", "--id", "3080", "--tenant", NAMES[HOUSES]) == 0


def test_a_changed_name_is_seen_and_changes_nothing_else(config: Path, synced: Path) -> None:
    """The next sync over all tenants shows the new name, of a column the next full one; another name, or another place
    for it, embeds nothing, writes nothing and needs no full read."""
    assert sync(config, "all") == 0
    before = tree(synced / "state" / "qdrant")
    change_rows(synced, "UPDATE firms SET name = 'Morava s.r.o.' WHERE id = ?", MORAVA)
    change_rows(synced, "UPDATE firms SET name = ' ' WHERE id = ?", HARBOUR)
    ran = vecsync("sync", "all", "--no-record", "--json", "--config", config).json
    assert shown(config) == {HOUSES: NAMES[HOUSES], MORAVA: "Morava s.r.o."}
    read = ran["totals"]["fetched"]
    text = config.read_text(encoding="utf-8").replace("name: {table: firms, id: id, column: name}", "name: tenant_id")
    config.write_text(text, encoding="utf-8")
    ran = vecsync("sync", "all", "--no-record", "--json", "--config", config).json
    assert (ran["totals"]["fetched"], ran["totals"]["embedded"], ran["totals"]["upserted"]) == (read, 0, 0)
    assert shown(config) == {HOUSES: NAMES[HOUSES], MORAVA: "Morava s.r.o."}
    assert sync(config, "all", "--full") == 0
    assert shown(config) == {tenant: tenant for tenant in NAMES}
    config.write_text(text.replace(", name: tenant_id", ""), encoding="utf-8")
    assert sync(config, "all") == 0
    assert shown(config) == {}
    assert tree(synced / "state" / "qdrant") == before


def test_a_look_asks_for_names_of_new_tenants_alone(config: Path, synced: Path) -> None:
    """What sensors do every minute reads names only where a tenant is new; what is about to sync all reads them again.
    Nothing is called like everybody's records."""
    other = "44444444-4444-4444-8444-444444444444"
    change_rows(synced, "UPDATE firms SET name = 'Morava s.r.o.' WHERE id = ?", MORAVA)
    change_rows(synced, "INSERT INTO firms VALUES (?, 'Fourth'), ('global', 'Everybody')", other)
    with Workspace(config_of(synced)) as workspace:

        def known() -> dict[str, str]:
            return {tenant: name for (_, tenant), name in workspace.ledger.tenant_names("works").items()}

        workspace.call_the_roll("works")
        assert known() == NAMES
        change_rows(synced, "UPDATE works SET tenant_id = ? WHERE id = 3091", other)
        change_rows(synced, "UPDATE works SET tenant_id = 'global' WHERE id = 3092")
        workspace.call_the_roll("works")
        assert known() == {**NAMES, other: "Fourth"}
        workspace.believable_tenants("works")
        assert known()[MORAVA] == "Morava s.r.o."


def test_names_that_cannot_be_read_are_asked_for_once(
    config: Path, synced: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What sensors do every minute neither asks nor warns again; the next sync over all tenants does."""
    other = "44444444-4444-4444-8444-444444444444"
    change_rows(synced, "ALTER TABLE firms RENAME TO companies")
    change_rows(synced, "UPDATE works SET tenant_id = ? WHERE id = 3091", other)

    def look() -> int:
        caplog.clear()
        with Workspace(config_of(synced)) as workspace:
            workspace.call_the_roll("works")
        return caplog.text.count("names of tenants were not read")

    assert [look(), look()] == [1, 0]
    change_rows(synced, "ALTER TABLE companies RENAME TO firms")
    change_rows(synced, "INSERT INTO firms VALUES (?, 'Fourth')", other)
    assert sync(config, "works") == 0
    assert shown(config) == {**NAMES, other: "Fourth"}


def test_names_that_cannot_be_read_are_a_warning(config: Path, synced: Path) -> None:
    """Without the table everything is synced, the names known before stay, and `check` says what is wrong."""
    with closing(sqlite3.connect(synced / "estimating.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE firms RENAME TO companies")
    ran = vecsync("sync", "all", "--no-record", "--config", config)
    assert ran.code == 0
    assert "entities.materials.tenancy.name.table: there is no table or view 'firms'" in ran.err
    assert shown(config) == NAMES
    checked = vecsync("check", "--json", "--config", config)
    [probe] = [one for one in checked.json["checks"] if one["part"] == "names of works"]
    assert (checked.code, probe["state"]) == (1, "FAIL")
    assert "there is no table or view 'firms'" in probe["message"]


def test_check_says_what_it_found_of_names(config: Path, synced: Path) -> None:
    """How many tenants have a name, one of them, and that some have none."""
    change_rows(synced, "UPDATE firms SET name = '' WHERE id <> ?", MORAVA)
    checks = vecsync("check", "--json", "--config", config).json["checks"]
    [probe] = [one for one in checks if one["part"] == "names of works"]
    assert (probe["state"], probe["message"]) == ("WARN", "1 of 3 tenants has a name, such as 'Morava Fasády'")


def test_dagster_shows_names(config: Path) -> None:
    """Materializations and checks of a partition say the tenant's name; the worst of all has it beside the key."""
    assert vecsync("sync", "tenant", HARBOUR, "--entity", "works", "--full", "--config", config).code == 0
    health = dg.AssetCheckKey(dg.AssetKey(["works", "health"]), "validation")
    grid = dg.AssetCheckKey(dg.AssetKey(["works", "checks"]), "validation")
    with open_instance(config_of(config.parent)) as instance:
        [made] = instance.fetch_materializations(dg.AssetKey(["works", "export"]), limit=5).records
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key([health, grid])
    assert made.asset_materialization is not None
    evaluated = found[grid].evaluation
    assert evaluated is not None
    for metadata in (made.asset_materialization.metadata, evaluated.metadata):
        assert metadata["tenant_name"].value == NAMES[HARBOUR]
    worst = found[health].evaluation
    assert worst is not None
    assert f"works|{HARBOUR} (Harbour Fit-Out): 1 of 13 records rejected" in (worst.description or "")


def test_the_name_goes_with_the_tenant(config: Path, synced: Path) -> None:
    """Of a tenant that is removed nothing is left; `drop` of all that an entity had forgets its names."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    assert sync(config, "tenant", MORAVA, "--entity", "works", "--full", "--allow-removals") == 0
    ledger = synced / "state" / "ledger.sqlite"
    assert kept(ledger) == {("materials", one) for one in NAMES} | {("works", HOUSES), ("works", HARBOUR)}
    text = config.read_text(encoding="utf-8")
    config.write_text(text[: text.index("  works:")] + text[text.index("# How text becomes") :], encoding="utf-8")
    assert list(config_of(synced).entities) == ["materials"]
    assert vecsync("drop", "works", "--yes", "--config", config).code == 0
    assert kept(ledger) == {("materials", one) for one in NAMES}


def kept(ledger: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(ledger)) as connection:
        return set(connection.execute("SELECT entity, tenant_id FROM tenant_name"))


def test_a_name_is_no_setting_of_documents(config: Path) -> None:
    """Fingerprints do not know of names: a state of an entity without them goes on as it was."""
    named = config_of(config.parent).entities["works"]
    text = ", name: {table: firms, id: id, column: name}"
    config.write_text(config.read_text(encoding="utf-8").replace(text, ""), encoding="utf-8")
    plain = config_of(config.parent).entities["works"]
    assert plain.tenancy is not None
    assert plain.tenancy.name is None
    assert (plain.fingerprint("works"), plain.read_fingerprint()) == (
        named.fingerprint("works"),
        named.read_fingerprint(),
    )
