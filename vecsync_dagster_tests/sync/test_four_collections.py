"""One document in four collections: what each change of a tool does to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.tools import FOUR, Tools, sample, tools_config

APPROVED = 22


def synced(folder: Path, url: str, database: str, change_stream: str) -> Iterator[Tools]:
    source = {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": database, "change_stream": change_stream}
    world = Tools(url, database, tools_config(folder, database, sources={"directory": source}))
    world.insert(sample())
    world.sync()
    yield world
    world.close()


@pytest.fixture
def tools(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """The sample, synced; incremental runs follow the change stream."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    yield from synced(tmp_path, mongo_url, mongo_database, "always")


@pytest.fixture
def by_time(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """The sample, synced; incremental runs go by lastUpdated."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    yield from synced(tmp_path, mongo_url, mongo_database, "never")


def vectors(results: dict[str, PartitionResult]) -> dict[str, int]:
    return {name: result.figures.upserted for name, result in results.items() if result.figures.upserted}


def payloads(results: dict[str, PartitionResult]) -> dict[str, int]:
    return {name: result.figures.payload_only for name, result in results.items() if result.figures.payload_only}


def embedded(results: dict[str, PartitionResult]) -> int:
    return sum(result.figures.embedded for result in results.values())


def ok(results: dict[str, PartitionResult], mode: str = "incremental") -> None:
    assert set(results) == set(FOUR)
    for result in results.values():
        assert (result.outcome, result.mode, result.error) == ("success", mode, None)


def test_a_new_tool_is_in_four_collections(tools: Tools) -> None:
    """Each approved tool is in all four, with a text of its own; one read serves all four, and what several tools
    say with the same words is embedded once."""
    results = {result.collection: result for result in tools.results}
    ok(results, "full")
    assert [result.figures.new for result in tools.results] == [APPROVED] * 4
    tools.assert_exact()
    assert len({next(iter(tools.stored(name).values()))["contentHash"] for name in FOUR}) == 4
    assert tools.versions("krita") == dict.fromkeys(FOUR, 1)
    assert tools.versions("gimp") == {}
    assert len({result.run_id for result in tools.results}) == 1
    interface = results["interface"].figures
    assert interface.embedded == interface.cache_misses < interface.upserted == APPROVED


def test_a_new_name_is_one_vector(tools: Tools) -> None:
    """A rename embeds `tools` anew, and the other three are not touched at all."""
    tools.change("krita", name="Krita Studio")
    results = tools.sync()
    ok(results)
    assert (vectors(results), payloads(results)) == ({"tools": 1}, {})
    assert embedded(results) == 1
    assert tools.versions("krita") == {"tools": 2, "functionality": 1, "usecases": 1, "interface": 1}
    tools.assert_exact()


def test_each_field_makes_the_text_of_one_collection(tools: Tools) -> None:
    """What is in one text touches no other; a price sets four payloads, and embeds nothing."""
    changes: dict[str, tuple[str, object]] = {
        "functionality": ("functionality", ["Painting", "Comics"]),
        "usecases": ("industries", ["Print"]),
        "interface": ("status", "beta"),
    }
    for collection, (field, value) in changes.items():
        tools.change("krita", **{field: value})
        results = tools.sync()
        ok(results)
        assert (vectors(results), payloads(results)) == ({collection: 1}, {})
    tools.change("krita", pricing=[{"tier": "pro", "billingPeriod": "year", "price": 10}])
    results = tools.sync()
    ok(results)
    assert (vectors(results), payloads(results), embedded(results)) == ({}, dict.fromkeys(FOUR, 1), 0)
    assert tools.versions("krita") == {"tools": 1, "functionality": 2, "usecases": 2, "interface": 2}
    tools.assert_exact()


def test_order_letter_case_and_blanks_are_no_change(tools: Tools) -> None:
    """An array in another order, and the same words in another case, do nothing; nor does a second run of any mode."""
    [blender] = [tool for tool in sample() if tool["id"] == "blender"]
    tools.change(
        "blender",
        description=f"  {blender['description'].upper()} ",
        status=" Active",
        **{name: blender[name][::-1] for name in ("functionality", "industries", "userTypes", "interface")},
    )
    for mode in ("incremental", "incremental", "full"):
        results = tools.sync(mode=mode)
        ok(results, mode)
        assert (vectors(results), payloads(results), embedded(results)) == ({}, {}, 0)
    assert tools.versions("blender") == dict.fromkeys(FOUR, 1)


@pytest.mark.parametrize("way", ["tools", "by_time"])
def test_approval_withdrawn_leaves_four_collections(way: str, request: pytest.FixtureRequest) -> None:
    """A tool that loses approval is gone from all four with the next incremental run; approved again it is back."""
    tools: Tools = request.getfixturevalue(way)
    tools.change("krita", approvalStatus="rejected")
    results = tools.sync()
    ok(results)
    assert [result.figures.removed for result in results.values()] == [1] * 4
    assert tools.versions("krita") == {}
    tools.assert_exact()
    tools.change("krita", approvalStatus="approved")
    results = tools.sync()
    assert (vectors(results), embedded(results)) == (dict.fromkeys(FOUR, 1), 0)
    tools.assert_exact()


def test_fault_14_a_deleted_tool_leaves_four_collections(tools: Tools) -> None:
    """The stream tells `_id`, not `id`: a full read finds out which tool it was, and says why it was made."""
    tools.delete("krita")
    results = tools.sync()
    ok(results, "full")
    assert all("changeStreamPreAndPostImages" in result.note for result in results.values())
    assert [result.figures.removed for result in results.values()] == [1] * 4
    assert tools.versions("krita") == {}
    tools.assert_exact()
    ok(tools.sync())


def test_fault_14_with_pre_images_a_deletion_costs_no_full_read(tools: Tools) -> None:
    """Where the server tells what the document was, it is gone with the next incremental run."""
    tools.client[tools.database].command("collMod", "tools", changeStreamPreAndPostImages={"enabled": True})
    tools.delete("krita")
    results = tools.sync()
    ok(results)
    assert [result.figures.removed for result in results.values()] == [1] * 4
    tools.assert_exact()


def test_fault_14_without_a_stream_the_full_run_sees_a_deletion(by_time: Tools) -> None:
    """By time alone a deletion cannot be seen: the check of counts warns, and the full run removes it."""
    by_time.delete("krita")
    results = by_time.sync()
    ok(results)
    assert [result.figures.removed for result in results.values()] == [0] * 4
    assert all(
        check.warning and not check.passed for r in results.values() for check in r.checks if check.name == "counts"
    )
    results = by_time.sync(mode="full")
    assert [result.figures.removed for result in results.values()] == [1] * 4
    by_time.assert_exact()


def test_a_collection_that_was_left_out_catches_up(tools: Tools) -> None:
    """A collection that is synced later than the others goes on from its own place, and misses nothing."""
    tools.change("krita", name="Krita Studio", functionality=["Comics"])
    first = tools.sync(["tools"])
    assert vectors(first) == {"tools": 1}
    tools.change("blender", functionality=["Sculpting"])
    results = tools.sync()
    ok(results)
    assert vectors(results) == {"functionality": 2}
    tools.assert_exact()


def test_a_lost_change_stream_is_a_full_run_that_says_so(
    tools: Tools, mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the server has forgotten the resume token, every tool is read again, and nothing is missed."""
    tools.change("krita", name="Krita Studio")
    tools.delete("vlc")
    with failing(mongo_url, "aggregate", mode={"times": 1}, errorCode=286):
        results = tools.sync()
    ok(results, "full")
    assert all("ChangeStreamHistoryLost" in result.note for result in results.values())
    assert "ChangeStreamHistoryLost" in caplog.text
    assert vectors(results) == {"tools": 1}
    tools.assert_exact()
    tools.change("krita", name="Krita")
    ok(tools.sync())
    tools.assert_exact()
