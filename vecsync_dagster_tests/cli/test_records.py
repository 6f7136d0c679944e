"""Single records on the command line: status with badges, sync by id, retry; on an entity with four collections."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vecsync_dagster.cli import retrying
from vecsync_dagster.cli.recordpages import Totals, letters_of
from vecsync_dagster_tests.cli.program import Ran, vecsync
from vecsync_dagster_tests.four import FOUR, Four, four_collections
from vecsync_dagster_tests.world import ENTITY, file_of

WORDS = {"synced", "pending", "stale", "failed"}


@contextmanager
def one_failed(folder: Path) -> Iterator[Four]:
    """Three records of everybody and one of a tenant; the first one failed in functionality."""
    with four_collections(folder) as four:
        four.now = datetime.now(UTC)
        four.insert(1, 2, 3)
        four.insert(4, tenant_id="acme")
        four.world.sync()
        four.world.update(1, code="another")
        four.store_refuses("functionality")
        four.sync()
        four.store.recover()
        yield four


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of such a world, for tests that only ask."""
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        with one_failed(folder) as four:
            yield file_of(four.world.config, folder)


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Four]:
    """Such a world of the test's own."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with one_failed(tmp_path) as four:
        yield four


@pytest.fixture
def config(four: Four, tmp_path: Path) -> Path:
    return file_of(four.world.config, tmp_path)


def run(config: Path, *arguments: str) -> Ran:
    return vecsync(*arguments, "--config", config)


# -- status --------------------------------------------------------------------------------------------
def test_badges_come_worst_first(asked: Path) -> None:
    """A letter for each collection, marked by its state, the error beside it, totals and health in per cent."""
    ran = run(asked, "status", "--entity", ENTITY)
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["functionality", "F", "4", "3", "0", "0", "1", "75.0", "%"] in lines
    assert ["tools", "T", "4", "4", "0", "0", "0", "100.0", "%"] in lines
    assert ["all", "of", "them", "4", "3", "0", "0", "1", "75.0", "%"] in lines
    shown = [line for line in lines if len(line) > 2 and line[2] in WORDS]
    assert [line[0] for line in shown] == ["1", "2", "3", "4"]
    assert shown[0][:9] == ["1", "global", "failed", "T", "F!", "U", "I", "F:", "QDRANT_REJECTED:"]
    assert shown[3][:7] == ["4", "acme", "synced", "T", "F", "U", "I"]


def test_badges_are_coloured(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Green for synced and red for failed, wherever colours can be shown."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run(asked, "status", "--entity", ENTITY).out
    assert re.search(r"\x1b\[1;32mT\x1b\[0m \x1b\[1;31mF!\x1b\[0m \x1b\[1;32mU\x1b\[0m", out)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--state", "failed"], ["1"]),
        (["--state", "synced", "--collection", "tools"], ["1", "2", "3", "4"]),
        (["--state", "failed", "--collection", "tools"], []),
        (["--tenant", "acme"], ["4"]),
        (["--id", "2"], ["2"]),
        (["--id", "global-work-2"], ["2"]),
        (["--limit", "3"], ["1", "2", "3"]),
        (["--limit", "3", "--page", "2"], ["4"]),
    ],
)
def test_filters_and_pages(asked: Path, filters: list[str], ids: list[str]) -> None:
    """By state, collection, tenant and id, in pages; JSON and CSV tell the same records."""
    state = run(asked, "status", "--entity", ENTITY, *filters, "--format", "json").json
    assert [record["id"] for record in state["records"]] == ids
    written = run(asked, "status", "--entity", ENTITY, *filters, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [(row["id"], row["collection"]) for row in rows] == [(i, c) for i in ids for c in FOUR]


def test_json_has_every_fact(asked: Path) -> None:
    """Each record with what each collection knows of it, beside what status says of the entity's partitions."""
    state = run(asked, "status", "--entity", ENTITY, "--json").json
    assert (state["overall"]["health"], state["collections"]["functionality"]["failed"], state["pages"]) == (75.0, 1, 1)
    assert {p["collection"] for p in state["partitions"]} == set(FOUR)
    facts = state["records"][0]["collections"]["functionality"]
    assert facts.pop("last_synced_at") < facts.pop("last_attempt_at") or facts["retry_count"] == 1
    assert facts.pop("next_attempt_at") is not None
    assert facts.pop("last_error")
    assert len(facts.pop("content_hash")) == 16
    assert facts == {
        "status": "failed",
        "vector_version": 1,
        "error_code": "QDRANT_REJECTED",
        "retry_count": 1,
        "modified_fields": ["code"],
        "former": None,
    }


def test_one_record_in_full(asked: Path) -> None:
    """A single record shows versions, times and what changed last, of each collection."""
    out = run(asked, "status", "--entity", ENTITY, "--id", "1").out
    assert out.startswith("1 of global: failed  T F! U I\n")
    assert "\nF: QDRANT_REJECTED: " in out
    assert re.search(r"F functionality\s+failed\s+1\s.*\scode\s", out)
    assert re.search(r"T tools\s+synced\s+1\s", out)


def test_the_entity_follows_from_what_is_asked(asked: Path) -> None:
    """A collection names its entity; where there is one entity only, a state or an id is enough."""
    for words in (["--collection", "tools"], ["--state", "failed"], ["--id", "1"]):
        assert run(asked, "status", *words, "--json").json["entity"] == ENTITY


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--entity", ENTITY, "--collection", "nothing"], 2, "there are: tools, functionality, usecases, interface"),
        (["--entity", "nothing"], 2, "no entity 'nothing'"),
        (["--entity", ENTITY, "--id", "99"], 2, "no record '99' of works in the ledger"),
        (["--entity", ENTITY, "--state", "broken"], 2, "'failed'"),
        (["--entity", ENTITY, "--limit", "101"], 2, "--limit"),
        (["--format", "csv"], 2, "give --entity"),
    ],
)
def test_wrong_words(asked: Path, arguments: list[str], code: int, message: str) -> None:
    """What does not exist is named with what does."""
    ran = run(asked, "status", *arguments)
    assert ran.code == code
    assert message in ran.err


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        (FOUR, "TFUI"),
        (["materials"], "M"),
        (["tools", "texts", "tags"], "TEA"),
        (["aa", "a", "aaa"], "A12"),
        (["my-tools", "my_texts"], "MY"),
    ],
)
def test_letters(names: list[str], letters: str) -> None:
    """Each collection has a letter of its own name where one is left, else a number; never two the same."""
    assert "".join(letters_of(names).values()) == letters


def test_health_is_never_rounded_up() -> None:
    """One failed record of ten thousand is not 100 per cent."""
    assert Totals({"synced": 9999, "failed": 1}).health == 99.9
    assert Totals({"synced": 3}).health == 100.0
    assert Totals({}).health is None


# -- sync --id -----------------------------------------------------------------------------------------
def test_sync_of_one_record(four: Four, config: Path) -> None:
    """The record named is synced in all four collections, and another changed one is left for later."""
    four.world.update(2, price="5")
    four.world.update(3, price="6")
    ran = run(config, "sync", ENTITY, "--id", "2", "--id", "1", "--no-record", "--json")
    assert ran.code == 0, ran.err
    figures = {p["collection"]: p["figures"] for p in ran.json["partitions"]}
    assert {name: (f["fetched"], f["payload_only"], f["retry"]) for name, f in figures.items()} == {
        "tools": (2, 1, 0),
        "functionality": (2, 1, 1),
        "usecases": (2, 1, 0),
        "interface": (2, 1, 0),
    }
    assert {p["dbId"]: p["price"] for p in four.world.stored("tools").values()} == {
        "1": None,
        "2": 5,
        "3": None,
        "4": None,
    }
    assert four.states()[1].overall == "synced"


def test_sync_of_a_record_that_is_gone(four: Four, config: Path) -> None:
    """It leaves all four collections; with --collection only that one; an id that nobody knows is an error."""
    four.world.delete(4)
    assert run(config, "sync", ENTITY, "--id", "4", "--collection", "tools", "--no-record").code == 0
    assert [len(four.world.stored(name)) for name in FOUR] == [3, 4, 4, 4]
    ran = run(config, "sync", ENTITY, "--id", "4", "--id", "99", "--no-record")
    assert ran.code == 2
    assert "no record '99', neither in the source nor in the ledger" in ran.err
    assert [len(four.world.stored(name)) for name in FOUR] == [3, 3, 3, 3]


def test_sync_of_an_entity_by_its_name(asked: Path) -> None:
    """The name of an entity stands for all of it."""
    ran = run(asked, "sync", ENTITY, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert {(p["entity"], p["tenant"]) for p in ran.json["partitions"]} == {(ENTITY, "global"), (ENTITY, "acme")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nor an entity: works"),
        (["all", "--id", "1"], "vecsync sync ENTITY --id ID"),
        ([ENTITY, "--id", "1", "--full"], "--id"),
        ([ENTITY, "--id", "1", "--limit", "5"], "--id"),
        (["global", "--entity", ENTITY, "--id", "1"], "--id"),
        ([ENTITY, "--tenant", "acme"], "--tenant"),
    ],
)
def test_wrong_usage_of_sync(asked: Path, arguments: list[str], message: str) -> None:
    """Words that do not go together are wrong usage, and nothing is synced."""
    ran = run(asked, "sync", *arguments)
    assert ran.code == 2
    assert message in re.sub(r"[\s│]+", " ", ran.err)


# -- retry ---------------------------------------------------------------------------------------------
def test_retry_tries_what_is_due(four: Four, config: Path) -> None:
    """What waits for its time is left alone and said; with --all it is tried, synced, and nothing is left."""
    four.world.update(2, code="yet another")
    four.store_refuses("functionality")
    four.now = datetime(2100, 1, 1, tzinfo=UTC)
    four.sync()
    four.store.recover()
    ran = run(config, "retry", "--no-record", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["waiting"], ran.json["permanent"]) == (2, 0)
    ran = run(config, "retry", "--all", "--no-record")
    assert ran.code == 0, ran.err
    assert ["functionality", "global", "2", "2", "0", "0", "0"] in [line.split() for line in ran.out.splitlines()]
    assert run(config, "retry", "--all", "--no-record").out == "Nothing to retry.\n"
    assert {record.overall for record in four.states().values()} == {"synced"}


def test_what_is_due_is_found_behind_what_waits(four: Four, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many documents that wait were tried longer ago."""
    four.world.update(2, code="yet another")
    four.store_refuses("functionality")
    four.sync()
    four.store.recover()
    with four.world.workspace() as workspace:
        [_, second] = workspace.ledger.failed_rows(ENTITY, ["functionality"])
        workspace.ledger.reset(ENTITY, ["functionality"], [second.document_id])
    monkeypatch.setattr(retrying, "_AT_ONCE", 1)
    ran = run(config, "retry", "--no-record", "--json")
    assert ([p["synced"] for p in ran.json["partitions"]], ran.json["waiting"]) == ([1], 1)


def test_retry_says_that_a_sync_is_still_to_be_made(four: Four, config: Path) -> None:
    """What failed is there; what the sync that failed did not come to is not, and the last run stays failed."""
    four.world.update(2, code="yet another")
    four.store_is_down("functionality")
    assert four.sync()["functionality"].error is not None
    four.store.recover()
    ran = run(config, "retry", "--all", "--no-record")
    assert ran.code == 0, ran.err
    assert "the last sync of 1 partition did not succeed" in ran.err
    four.sync()
    four.world.update(2, code="and another")
    four.store_refuses("functionality")
    four.sync()
    four.store.recover()
    ran = run(config, "retry", "--all", "--no-record")
    assert (ran.code, "did not succeed" in ran.err) == (0, False)


def test_retry_that_fails_again(four: Four, config: Path) -> None:
    """The exit code is 1, the code is named where the store as a whole failed, which counts against no document,
    and the next time is said."""
    four.store_is_down("functionality")
    ran = run(config, "retry", "--all", "--no-record")
    assert ran.code == 1
    assert "failed: functionality of global: QDRANT_UNAVAILABLE" in ran.err
    assert "1 document will be tried again" in ran.out
    assert four.states()[1].collections["functionality"].retry_count == 1


def test_retry_of_permanent_ones_needs_a_reset(four: Four, config: Path) -> None:
    """Until --reset they are only counted; with it they are tried, and only those that were meant."""
    four.world.update(2, code="yet another")
    four.store_refuses("functionality")
    for _ in range(6):
        four.sync()
        four.later(seconds=300)
    four.store.recover()
    ran = run(config, "retry", "--all", "--no-record")
    assert ran.code == 0
    assert "permanent: 2 documents without retries left; --reset" in ran.err
    assert run(config, "retry", "--reset", "--collection", "tools", "--no-record").out == "Nothing to retry.\n"
    ran = run(config, "retry", "--reset", "--entity", ENTITY, "--id", "2", "--no-record", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["reset"], [p["synced"] for p in ran.json["partitions"]]) == (1, [1])
    assert [four.states()[n].overall for n in (1, 2)] == ["failed", "synced"]
    assert failing(four) == 1
    assert "Reset: 1 document." in run(config, "retry", "--reset", "--no-record").out
    assert four.states()[1].overall == "synced"
    assert failing(four) == 0


def failing(four: Four) -> int:
    """Partitions that fail, as monitoring reads it."""
    file = four.world.config.state_folder / "sync_metrics.json"
    return int(json.loads(file.read_text(encoding="utf-8"))["health"]["failing"])


def test_a_retry_that_was_the_last_is_known_to_monitoring(four: Four, config: Path) -> None:
    """A document that becomes permanent in a retry is an error of its partition, wherever that is read."""
    four.world.update(2, code="yet another")
    four.store_refuses("functionality")
    four.now -= timedelta(hours=1)  # so that all of it is due by the clock of the command
    for _ in range(5):
        four.later(seconds=300)
        four.sync()
    assert run(config, "retry", "--all", "--no-record").code == 1
    assert run(config, "status", "--strict").code == 1
    assert failing(four) == 1


def test_retry_of_nothing_and_of_wrong_names(asked: Path) -> None:
    """An id that did not fail is nothing to try; names that do not exist are errors."""
    assert run(asked, "retry", "--id", "3", "--no-record").out == "Nothing to retry.\n"
    assert "no entity 'nothing'" in run(asked, "retry", "--entity", "nothing").err
    assert "no collection 'nothing'" in run(asked, "retry", "--collection", "nothing").err


# -- check ---------------------------------------------------------------------------------------------
def test_check_counts_failed_documents_and_lacking_records(four: Four, config: Path) -> None:
    """Failed documents and records that a collection lacks are warnings, permanent failures fail the command."""
    [(state, message)] = told_of_checks(run(config, "check", "--json"))
    assert state == "WARN"
    assert "1 warning; see `vecsync status --failed-checks`" in message
    four.insert(5)
    four.sync("tools")
    four.store_refuses("functionality")
    for _ in range(6):
        four.sync("functionality")
        four.later(seconds=300)
    four.store.recover()
    ran = run(config, "check", "--json")
    assert ran.code == 1
    [(state, message)] = told_of_checks(ran)
    assert (state, " failed" in message, "; see `vecsync status --failed-checks`" in message) == ("FAIL", True, True)


def told_of_checks(ran: Ran) -> list[tuple[str, str]]:
    return [(p["state"], p["message"]) for p in ran.json["checks"] if p["part"] == "checks of works"]
