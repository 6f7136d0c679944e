"""Other processes write to the same server between two requests of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from qdrant_client import QdrantClient

from vecsync_dagster.errors import StoreRejected
from vecsync_dagster.stores.qdrant_server import LOOKS, QdrantServerStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.stores.engines import SPACE, point, uid

NAME = "materials"
LOOK = f"/collections/{NAME}/points"


class Racing(QdrantRest):
    """Lets another process do the next of `others` each time somebody has looked which points exist."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[QdrantClient], object]] = []

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Any:
        answer = super().answer(method, target, headers, body)
        if (method, target.partition("?")[0]) == ("POST", LOOK) and self.others:
            with closing(QdrantClient(url=self.url, check_compatibility=False)) as client:
                self.others.pop(0)(client)
        return answer


@pytest.fixture
def racing() -> Iterator[Racing]:
    with Racing() as server:
        yield server


@pytest.fixture
def store(racing: Racing) -> Iterator[QdrantServerStore]:
    store = QdrantServerStore(racing.url, attempts=1)
    store.ensure_collection(NAME, SPACE)
    store.upsert(NAME, [point(number, "A") for number in range(1, 6)])
    yield store
    store.close()


def deleting(*numbers: int) -> Callable[[QdrantClient], object]:
    return lambda client: client.delete(NAME, [uid(number) for number in numbers], wait=True)


@pytest.mark.parametrize("others", [[deleting(2)], [deleting(2), deleting(4)], [deleting(1, 2, 3, 4, 5)]])
def test_points_that_vanish_while_payloads_are_set_are_missing(
    racing: Racing, store: QdrantServerStore, others: list[Callable[[QdrantClient], object]]
) -> None:
    """They are told as missing, in the order asked for, and all that is still there has its new payload."""
    racing.others = list(others)
    missing = store.set_payload(NAME, [point(number, "A", code="new") for number in (5, 4, 3, 2, 1)])
    there = {p.point_id: p.payload.get("code") for page in store.scan(NAME) for p in page}
    assert missing == [uid(number) for number in (5, 4, 3, 2, 1) if uid(number) not in there]
    assert set(there.values()) <= {"new"}
    assert len(there) == 5 - len(missing) < 5


def test_a_point_that_comes_and_goes_for_ever_is_refused_in_the_end(racing: Racing, store: QdrantServerStore) -> None:
    """The looking is bounded: a server that always says one thing and does another is told of."""
    racing.fail(status=404, times=LOOKS, path_contains="/points/batch")
    with pytest.raises(StoreRejected, match="set 1 payloads: Qdrant answered 404"):
        store.set_payload(NAME, [point(1, "A", code="new")])
    assert sum(seen.path.endswith("/points/batch") for seen in racing.requests) == LOOKS
    assert store.set_payload(NAME, [point(1, "A", code="new")]) == []


def test_only_a_missing_point_is_looked_for_again(racing: Racing, store: QdrantServerStore) -> None:
    """Another refusal is told at once."""
    racing.fail(status=400, path_contains="/points/batch")
    with pytest.raises(StoreRejected, match="400"):
        store.set_payload(NAME, [point(1, "A", code="new")])
    assert sum(seen.path.endswith("/points/batch") for seen in racing.requests) == 1
