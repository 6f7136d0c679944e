"""What a server refuses as too large arrives in smaller requests, and one document that is too large fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.world import ENTITY, World, config_of

pytestmark = pytest.mark.usefixtures("no_waiting")

LONG = "x" * 20_000


@pytest.fixture
def server() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


def world_of(folder: Path, server: QdrantRest, max_request_mb: float) -> World:
    store = {"type": "qdrant", "url": server.url, "timeout_s": 20, "max_request_mb": max_request_mb}
    source = {"type": "sqlite", "path": "source.db"}
    return World(f"sqlite:///{folder / 'source.db'}", config_of(folder, source=source, store=store))


def large(world: World, server: QdrantRest, too_large: int) -> None:
    """Thirty records of 20 kB each, and a server that takes 100 kB."""
    server.max_body, server.too_large = 100_000, too_large
    world.insert({"id": n, "code": LONG, "name": f"n{n}", "tenant_id": "a"} for n in range(30))


@pytest.mark.parametrize("too_large", [400, 413])
def test_a_request_that_is_too_large_is_sent_in_smaller_ones(
    tmp_path: Path, server: QdrantRest, too_large: int
) -> None:
    """The server's limit is smaller than the setting: vectors and payloads are halved until it takes them."""
    world = world_of(tmp_path, server, max_request_mb=16)
    large(world, server, too_large)
    [first] = world.sync("a", mode="full")
    world.update(*range(30), price="5")
    [second] = world.sync("a", mode="full")
    assert [r.figures.failed for r in (first, second)] == [0, 0]
    assert (first.ok, first.figures.upserted, second.ok, second.figures.payload_only) == (True, 30, True, 30)
    assert max(server.body_sizes) > server.max_body
    world.assert_exact()


@pytest.mark.parametrize("too_large", [400, 413])
def test_points_are_looked_for_and_removed_in_smaller_requests(
    tmp_path: Path, server: QdrantRest, too_large: int
) -> None:
    """Ids alone can be too many for a server, or for a proxy before it."""
    world = world_of(tmp_path, server, max_request_mb=16)
    world.insert({"id": n, "tenant_id": "a"} for n in range(90))
    world.sync("a", mode="full")
    world.update(*range(90), price="5")
    world.delete(*range(40))
    server.max_body, server.too_large = 1_000, too_large
    server.body_sizes.clear()
    [result] = world.sync("a", mode="full", allow_removals=True)
    assert (result.ok, result.figures.payload_only, result.figures.removed) == (True, 50, 40), result.error
    assert max(server.body_sizes) > server.max_body
    world.assert_exact()


def test_a_smaller_bound_makes_smaller_requests(tmp_path: Path, server: QdrantRest) -> None:
    """With `max_request_mb` below the server's limit nothing is refused."""
    world = world_of(tmp_path, server, max_request_mb=0.09)
    large(world, server, 413)
    world.sync("a", mode="full")
    world.update(*range(30), price="5")
    [result] = world.sync("a", mode="full")
    assert result.ok
    assert max(server.body_sizes) <= 90_000
    world.assert_exact()


@pytest.mark.parametrize("too_large", [400, 413])
@pytest.mark.parametrize("change", ["vectors", "payloads"])
def test_one_document_that_is_too_large_fails_alone(
    tmp_path: Path, server: QdrantRest, change: str, too_large: int
) -> None:
    """The document that the server does not take by itself is failed with its id, its size and what to change; those
    around it are written."""
    world = world_of(tmp_path, server, max_request_mb=16)
    large(world, server, too_large)
    if change == "payloads":
        world.sync("a", mode="full")
    world.update(*range(30), price="5")
    world.update(13, code="x" * 120_000)
    [result] = world.sync("a", mode="full")
    assert result.figures.failed == 1
    with world.workspace() as workspace:
        failed = workspace.ledger.records(ENTITY, [ENTITY], status="failed")
    assert [record.db_id for record in failed] == ["13"]
    assert failed[0].collections[ENTITY].error_code == "QDRANT_REJECTED"
    error = failed[0].collections[ENTITY].last_error or ""
    assert [told in error for told in ("alone takes 0.12 MB", f"({too_large})", "max_request_size_mb")] == [True] * 3
    stored = world.stored()
    assert sum(payload["price"] == 5 for payload in stored.values()) == 29
    world.update(13, code="short")
    assert world.sync("a", mode="full")[0].ok
    world.assert_exact()


def test_a_wrong_key_is_no_fault_of_the_documents(tmp_path: Path, server: QdrantRest) -> None:
    """What the store refuses of every document is one request and a failed run, not one request for each document."""
    world = world_of(tmp_path, server, max_request_mb=16)
    world.insert({"id": n, "name": f"n{n}", "tenant_id": "a"} for n in range(30))
    server.fail(status=403, times=999, path_contains="PUT /collections/works/points")
    [result] = world.sync("a", mode="full")
    assert result.error is not None
    assert result.error.code == "QDRANT_REJECTED"
    assert sum(r.method == "PUT" and r.path.endswith("/works/points") for r in server.requests) == 1
