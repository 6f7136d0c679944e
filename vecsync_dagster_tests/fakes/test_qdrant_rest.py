"""The fake Qdrant server answers a real client as the real server does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest

VECTORS = models.VectorParams(size=2, distance=models.Distance.DOT)
FIRST, SECOND = "00000000-0000-4000-8000-000000000001", "f0000000-0000-4000-8000-000000000002"


@pytest.fixture
def rest() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


@pytest.fixture
def client(rest: QdrantRest) -> Iterator[QdrantClient]:
    client = QdrantClient(url=rest.url, check_compatibility=False)
    client.create_collection("c", VECTORS)
    points: list[tuple[int | str, str]] = [(SECOND, "A"), (7, "A"), (FIRST, "B")]
    new = [models.PointStruct(id=i, vector=[1.0, float(n)], payload={"t": t}) for n, (i, t) in enumerate(points)]
    client.upsert("c", new)
    yield client
    client.close()


def test_reads(client: QdrantClient) -> None:
    """Collections, points, counts, facets, searches and ordered scrolling work through the real client."""
    assert client.info().title == "qdrant - vector search engine"
    assert [c.name for c in client.get_collections().collections] == ["c"]
    assert client.collection_exists("c")
    assert not client.collection_exists("d")
    assert client.count("c").count == 3
    assert {hit.value: hit.count for hit in client.facet("c", "t").hits} == {"A": 2, "B": 1}
    assert client.retrieve("c", [7], with_vectors=True)[0].vector == [1.0, 1.0]
    assert [p.id for p in client.query_points("c", query=[0.0, 1.0], limit=2).points] == [FIRST, 7]
    page, following = client.scroll("c", limit=2)
    assert ([p.id for p in page], following) == ([7, FIRST], SECOND)
    assert [p.id for p in client.scroll("c", offset=following)[0]] == [SECOND]


def test_payload_operations(client: QdrantClient) -> None:
    """Setting adds keys, overwriting replaces them, alone and in a batch."""
    client.set_payload("c", {"x": 1}, [7])
    assert client.retrieve("c", [7])[0].payload == {"t": "A", "x": 1}
    client.overwrite_payload("c", {"y": 2}, [7])
    assert client.retrieve("c", [7])[0].payload == {"y": 2}


def test_missing_point_in_a_payload_operation(client: QdrantClient) -> None:
    """A payload operation with a missing point is 404 after the others were written."""
    with pytest.raises(UnexpectedResponse, match="No point with id 99") as caught:
        client.overwrite_payload("c", {"y": 2}, [99, 7])
    assert caught.value.status_code == 404
    assert client.retrieve("c", [7])[0].payload == {"y": 2}


@pytest.mark.parametrize(
    ("status", "call"),
    [
        (404, lambda c: c.count("d")),
        (404, lambda c: c.upsert("d", [models.PointStruct(id=1, vector=[1.0, 2.0])])),
        (404, lambda c: c.delete_payload("c", ["t"], [7])),
        (409, lambda c: c.create_collection("c", VECTORS)),
        (400, lambda c: c.upsert("c", [models.PointStruct(id=1, vector=[1.0, 2.0, 3.0])])),
        (400, lambda c: c.upsert("c", [models.PointStruct(id="not a uuid", vector=[1.0, 2.0])])),
    ],
)
def test_refusals(client: QdrantClient, status: int, call: Callable[[QdrantClient], object]) -> None:
    """What is unknown is 404, what exists is 409, what makes no sense is 400."""
    with pytest.raises(UnexpectedResponse) as caught:
        call(client)
    assert caught.value.status_code == status
    assert client.count("c").count == 3


def test_write_without_wait_is_only_queued(rest: QdrantRest, client: QdrantClient) -> None:
    """A write that does not wait is acknowledged, and read only later."""
    answer = client.delete("c", [7], wait=False)
    assert answer.status == models.UpdateStatus.ACKNOWLEDGED
    assert client.count("c").count == 3
    rest.settle()
    assert client.count("c").count == 2


def test_requests_are_kept(rest: QdrantRest, client: QdrantClient) -> None:
    """The log has what arrived, in order, refused requests too."""
    rest.requests.clear()
    rest.fail(status=503, path_contains="count")
    with pytest.raises(UnexpectedResponse):
        client.count("c")
    client.get_aliases()
    assert rest.requests == [("POST", "/collections/c/points/count"), ("GET", "/aliases")]
