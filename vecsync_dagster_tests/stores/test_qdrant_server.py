"""The server store over HTTP: every fault of a network ends in the right error or is survived."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import stamina
from qdrant_client import QdrantClient, models

from vecsync_dagster.errors import (
    SpaceMismatch,
    StoreForeign,
    StoreRateLimited,
    StoreRejected,
    StoreTimeout,
    StoreUnavailable,
    VecsyncError,
)
from vecsync_dagster.space import Space
from vecsync_dagster.stores import qdrant_server
from vecsync_dagster.stores.qdrant_errors import LONGEST_WAIT_S, backoff
from vecsync_dagster.stores.qdrant_server import QdrantServerStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.stores.engines import SPACE, Server, point, uid

NAME = "materials"
SECRET = "secret brick"  # short: pydantic cuts long values in its messages
ATTEMPTS = 3


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """As many attempts as configured, without the pauses between them."""
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


@pytest.fixture
def rest() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


@pytest.fixture
def store(rest: QdrantRest) -> Iterator[QdrantServerStore]:
    store = QdrantServerStore(rest.url, timeout_s=30, attempts=ATTEMPTS)
    store.ensure_collection(NAME, SPACE)
    store.upsert(NAME, [point(1, "A", text=SECRET), point(2, "A")])
    rest.requests.clear()
    yield store
    store.close()


@pytest.fixture
def client(rest: QdrantRest) -> Iterator[QdrantClient]:
    client = QdrantClient(url=rest.url, check_compatibility=False)
    yield client
    client.close()


CALLS: dict[str, tuple[str, Callable[[QdrantServerStore], object]]] = {
    "upsert": ("/points", lambda s: s.upsert(NAME, [point(1, "A", text=SECRET)])),
    "set_payload": ("/points/batch", lambda s: s.set_payload(NAME, [point(1, "A", text=SECRET)])),
    "delete": ("/points/delete", lambda s: s.delete(NAME, "A", [uid(1)])),
    "delete_foreign": ("/points/delete", lambda s: s.delete_foreign(NAME, [uid(1)])),
    "count": ("/points/count", lambda s: s.count(NAME)),
    "scan": ("/points/scroll", lambda s: list(s.scan(NAME))),
    "retrieve": ("/points", lambda s: s.retrieve(NAME, [uid(1)])),
    "search": ("/points/query", lambda s: s.search(NAME, np.ones(4, np.float32), "A")),
    "pinned_space": ("/aliases", lambda s: s.pinned_space(NAME)),
}
each_call = pytest.mark.parametrize(("path", "call"), CALLS.values(), ids=CALLS)


class TestFaults:
    @each_call
    def test_every_call_survives_transient_faults(
        self, rest: QdrantRest, store: QdrantServerStore, path: str, call: Callable[[QdrantServerStore], object]
    ) -> None:
        """Every call survives fewer faults than it has attempts, and raises after the last one."""
        rest.fail(status=503, times=ATTEMPTS - 1, path_contains=path)
        call(store)
        rest.fail(status=503, times=ATTEMPTS, path_contains=path)
        with pytest.raises(StoreUnavailable):
            call(store)

    @pytest.mark.parametrize(
        ("status", "error", "code"),
        [
            (408, StoreTimeout, "QDRANT_TIMEOUT"),
            (429, StoreRateLimited, "QDRANT_RATE_LIMIT"),
            (500, StoreUnavailable, "QDRANT_UNAVAILABLE"),
            (502, StoreUnavailable, "QDRANT_UNAVAILABLE"),
            (503, StoreUnavailable, "QDRANT_UNAVAILABLE"),
            (504, StoreUnavailable, "QDRANT_UNAVAILABLE"),
        ],
    )
    def test_transient_answer_is_tried_again(
        self, rest: QdrantRest, store: QdrantServerStore, status: int, error: type[VecsyncError], code: str
    ) -> None:
        """Each status that may pass is tried again, and ends in its own code."""
        rest.fail(status=status, times=ATTEMPTS - 1)
        assert store.count(NAME) == 2
        rest.fail(status=status, times=ATTEMPTS)
        with pytest.raises(error, match=str(status)) as caught:
            store.count(NAME)
        assert caught.value.code == code

    def test_attempts_do_not_multiply(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A call that always fails is sent `attempts` times, not more: the client adds none of its own."""
        rest.fail(status=429, times=99, retry_after=1)
        with pytest.raises(StoreRateLimited):
            store.count(NAME)
        assert len(rest.requests) == ATTEMPTS

    @each_call
    @pytest.mark.parametrize("status", [400, 404])
    def test_refused_call_raises(
        self,
        rest: QdrantRest,
        store: QdrantServerStore,
        path: str,
        call: Callable[[QdrantServerStore], object],
        status: int,
    ) -> None:
        """A refusal is StoreRejected, for readers too: it never looks like an empty collection."""
        rest.fail(status=status, path_contains=path, times=qdrant_server.LOOKS)
        with pytest.raises(StoreRejected, match=str(status)):
            call(store)

    def test_only_404_means_no_such_collection(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A reader of a collection that does not exist still raises what else went wrong."""
        rest.fail(status=403, path_contains="/count")
        with pytest.raises(StoreRejected, match="403"):
            store.count("works")
        assert store.count("works") == 0

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 409, 413, 422])
    def test_refusal_is_not_tried_again(self, rest: QdrantRest, store: QdrantServerStore, status: int) -> None:
        """What would fail again is sent once."""
        rest.fail(status=status, times=99)
        with pytest.raises(StoreRejected, match=str(status)) as caught:
            store.upsert(NAME, [point(1, "A")])
        assert caught.value.code == "QDRANT_REJECTED"
        assert len(rest.requests) == 1

    @pytest.mark.parametrize(("header", "seconds"), [(7, 7.0), ("0", 0.0), (None, None), ("soon", None)])
    def test_rate_limit_carries_retry_after(
        self, rest: QdrantRest, store: QdrantServerStore, header: int | str | None, seconds: float | None
    ) -> None:
        """What a 429 says about waiting is on the error; a header that says nothing usable is no other error."""
        rest.fail(status=429, times=ATTEMPTS, retry_after=header)
        with pytest.raises(StoreRateLimited) as caught:
            store.count(NAME)
        assert caught.value.retry_after_s == seconds

    @pytest.mark.parametrize(
        ("header", "seconds"), [("2.5", 2.5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-1", 0.0), ("soon", None)]
    )
    def test_unavailable_carries_retry_after(
        self, rest: QdrantRest, store: QdrantServerStore, header: str, seconds: float | None
    ) -> None:
        """A 503 may say when to come back: in seconds or as a date."""
        rest.fail(status=503, times=ATTEMPTS, retry_after=header)
        with pytest.raises(StoreUnavailable) as caught:
            store.count(NAME)
        assert caught.value.retry_after_s == seconds

    def test_server_that_hangs_is_a_timeout(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """No answer within the time limit is QDRANT_TIMEOUT, whatever was called."""
        hasty = QdrantServerStore(rest.url, timeout_s=1, attempts=1)
        rest.hang(20, path_contains="/points")
        with pytest.raises(StoreTimeout, match="materials") as caught:
            hasty.count(NAME)
        assert caught.value.code == "QDRANT_TIMEOUT"
        hasty.close()

    def test_call_survives_a_server_that_hangs_once(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """The next attempt after a time-out does the work."""
        hasty = QdrantServerStore(rest.url, timeout_s=3, attempts=2)
        rest.hang(20, path_contains="/points")
        assert hasty.count(NAME) == 2
        hasty.close()

    def test_refused_connection_is_unavailable(self) -> None:
        """Nobody listening is QDRANT_UNAVAILABLE, for calls and for the connection test."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            store = QdrantServerStore(f"http://127.0.0.1:{free.getsockname()[1]}", attempts=2)
            for call in (lambda: store.count(NAME), lambda: store.ensure_collection(NAME, SPACE), store.check):
                with pytest.raises(StoreUnavailable) as caught:
                    call()
                assert caught.value.code == "QDRANT_UNAVAILABLE"
            store.close()

    def test_write_whose_answer_was_lost_is_repeated(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A connection cut after the write: the next attempt writes the same again, once in the store."""
        rest.cut_after_write(path_contains="/points")
        store.upsert(NAME, [point(3, "A")])
        rest.cut_after_write(path_contains="/points/batch")
        assert store.set_payload(NAME, [point(3, "B"), point(4, "B")]) == [uid(4)]
        assert (store.count(NAME), store.count(NAME, "B")) == (3, 1)
        rest.cut_after_write(path_contains="/points/delete")
        store.delete(NAME, "B", [uid(3)])
        assert store.count(NAME) == 2

    def test_lost_answer_without_another_attempt_is_unavailable(self, rest: QdrantRest) -> None:
        """With one attempt a cut connection is an error, although the write was done."""
        store = QdrantServerStore(rest.url, attempts=1)
        store.ensure_collection(NAME, SPACE)
        rest.cut_after_write()
        with pytest.raises(StoreUnavailable):
            store.upsert(NAME, [point(1, "A")])
        assert store.count(NAME) == 1
        store.close()

    @pytest.mark.parametrize("path", [SPACE.physical_name(NAME), "/index", "/collections/aliases"])
    def test_collection_whose_creation_was_cut_is_created(self, rest: QdrantRest, path: str) -> None:
        """ensure_collection survives a lost answer in each of its steps, the 409 of its own creation too."""
        store = QdrantServerStore(rest.url, attempts=2)
        rest.cut_after_write(path_contains=path)
        store.ensure_collection(NAME, SPACE)
        store.upsert(NAME, [point(1, "A")])
        assert store.count(NAME) == 1
        store.close()

    def test_failed_page_is_not_the_end_of_a_scan(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A scan whose second page fails raises."""
        pages = store.scan(NAME, batch=1)
        assert len(next(pages)) == 1
        rest.fail(status=503, times=ATTEMPTS, path_contains="/scroll")
        with pytest.raises(StoreUnavailable):
            next(pages)

    def test_vanished_collection_is_not_the_end_of_a_scan(self, store: QdrantServerStore, client: QdrantClient) -> None:
        """A collection that somebody drops between two pages is an error, not an empty page."""
        pages = store.scan(NAME, batch=1)
        assert len(next(pages)) == 1
        client.delete_collection(SPACE.physical_name(NAME))
        with pytest.raises(StoreRejected, match="404"):
            next(pages)

    def test_queued_write_does_not_count(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A write that the server only queued is a time-out, not a success."""
        rest.stall(times=ATTEMPTS, path_contains="/points")
        with pytest.raises(StoreTimeout, match="wait_timeout"):
            store.upsert(NAME, [point(3, "A")])
        assert store.count(NAME) == 2

    def test_answer_that_makes_no_sense_is_unavailable(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A 200 that is not Qdrant's, as a proxy may send it, is tried again and then QDRANT_UNAVAILABLE."""
        rest.fail(status=200, times=ATTEMPTS, message=SECRET)
        with pytest.raises(StoreUnavailable, match="cannot be understood"):
            store.count(NAME)
        assert len(rest.requests) == ATTEMPTS


class TestBackoff:
    """What stamina is told: a pure function."""

    def test_only_transient_errors_are_tried_again(self) -> None:
        """Terminal errors, and errors that are not ours, end the call."""
        assert backoff(StoreUnavailable("x", service="QDRANT")) is True
        assert backoff(StoreRejected("x", service="QDRANT")) is False
        assert backoff(KeyError("x")) is False

    def test_retry_after_is_the_pause(self) -> None:
        """Seconds from the server are waited for; more than a minute is left to whoever plans the next run."""
        assert backoff(StoreRateLimited("x", service="QDRANT", retry_after_s=3.0)) == 3.0
        assert backoff(StoreRateLimited("x", service="QDRANT", retry_after_s=LONGEST_WAIT_S + 1)) is False


class TestPrivacy:
    @pytest.mark.parametrize("status", [200, 400, 429, 500])
    def test_errors_and_logs_carry_no_text(
        self, rest: QdrantRest, store: QdrantServerStore, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        """Neither the error with its whole chain nor the log of retries holds what was sent or answered."""
        caplog.set_level(logging.DEBUG, logger="stamina")
        rest.fail(status=status, times=99, message=SECRET)
        with pytest.raises(VecsyncError) as caught:
            store.upsert(NAME, [point(1, "A", text=SECRET)])
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in caplog.text
        assert "upsert 1 point" in str(caught.value)

    def test_api_key_is_sent_and_never_shown(self) -> None:
        """A wrong key ends in an error that names the setting, not the key."""
        with QdrantRest(api_key="right") as rest:
            for key, good in (("right", True), ("wrong-key", False)):
                store = QdrantServerStore(rest.url, api_key=key, attempts=1)
                with pytest.warns(UserWarning, match="insecure connection"):
                    store.ensure_collection(NAME, SPACE) if good else self._refused(store)
                store.close()

    @staticmethod
    def _refused(store: QdrantServerStore) -> None:
        for call in (store.check, lambda: store.count(NAME)):
            with pytest.raises(StoreRejected, match="api_key") as caught:
                call()
            assert "wrong-key" not in "".join(traceback.format_exception(caught.value))


class TestCollections:
    def test_filtered_fields_are_indexed(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """Each field a filter uses has a keyword index, the tenant's as the tenant key."""
        physical = SPACE.physical_name(NAME)
        assert {name for name, _ in rest.indexes} == {physical}
        assert {key for _, key in rest.indexes} == {"tenantId", "scope", "id", "entity", "dbId"}
        for (_, key), schema in rest.indexes.items():
            assert isinstance(schema, models.KeywordIndexParams)
            assert schema.is_tenant is (True if key == "tenantId" else None)

    def test_creation_that_was_cut_short_is_finished(self, rest: QdrantRest, client: QdrantClient) -> None:
        """A physical collection without its indexes and alias is completed, its points stay."""
        physical = SPACE.physical_name(NAME)
        client.create_collection(physical, models.VectorParams(size=4, distance=models.Distance.COSINE))
        client.upsert(physical, [models.PointStruct(id=uid(1), vector=[1.0, 0.0, 0.0, 0.0], payload={})])
        store = QdrantServerStore(rest.url)
        store.ensure_collection(NAME, SPACE)
        assert store.count(NAME) == 1
        assert (physical, "tenantId") in rest.indexes
        store.close()

    @pytest.mark.parametrize("behind_an_alias", [True, False])
    def test_strangers_collection_is_neither_read_nor_changed(
        self, rest: QdrantRest, client: QdrantClient, behind_an_alias: bool
    ) -> None:
        """One that vecsync did not make, by this name or behind an alias of it, is refused in every call."""
        theirs = "theirs" if behind_an_alias else NAME
        client.create_collection(theirs, models.VectorParams(size=SPACE.dimensions, distance=models.Distance.COSINE))
        client.upsert(
            theirs, [models.PointStruct(id=uid(1), vector=[1.0] * SPACE.dimensions, payload={"wiki": "page"})]
        )
        if behind_an_alias:
            alias = models.CreateAlias(collection_name=theirs, alias_name=NAME)
            client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        store = QdrantServerStore(rest.url)
        calls = [lambda s: s.ensure_collection(NAME, SPACE), *(call for _, call in CALLS.values())]
        for call in calls:
            with pytest.raises(StoreForeign, match="which vecsync did not make") as caught:
                call(store)
            assert caught.value.every_document
        assert client.count(theirs).count == 1
        prefixed = QdrantServerStore(rest.url, prefix="our_")
        prefixed.ensure_collection(NAME, SPACE)
        assert prefixed.count(NAME) == 0
        for one in (store, prefixed):
            one.close()

    def test_an_alias_that_was_switched_is_followed_nowhere(
        self, rest: QdrantRest, store: QdrantServerStore, client: QdrantClient
    ) -> None:
        """Once it is known to lead elsewhere nothing is written there, and a drop leaves it."""
        client.create_collection("theirs", models.VectorParams(size=SPACE.dimensions, distance=models.Distance.COSINE))
        switched: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=NAME)),
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="theirs", alias_name=NAME)),
        ]
        client.update_collection_aliases(switched)
        with pytest.raises(StoreForeign, match="leads to the collection theirs"):
            store.ensure_collection(NAME, SPACE)
        for _, call in CALLS.values():
            with pytest.raises(StoreForeign):
                call(store)
        store.drop_collection(NAME)
        assert [alias.collection_name for alias in client.get_aliases().aliases] == ["theirs"]
        assert [one.name for one in client.get_collections().collections] == ["theirs"]
        assert client.count("theirs").count == 0

    def test_a_drop_takes_no_collection_that_is_only_called_alike(
        self, store: QdrantServerStore, client: QdrantClient
    ) -> None:
        """A copy with a date, and what somebody else made."""
        others = [f"{NAME}__backup-20261129", f"{NAME}__wiki-deadbeef", f"{NAME}__", f"our_{NAME}"]
        for name in others:
            client.create_collection(name, models.VectorParams(size=4, distance=models.Distance.COSINE))
        store.drop_collection(NAME)
        assert sorted(one.name for one in client.get_collections().collections) == sorted(others)

    def test_named_vectors_are_refused(self, rest: QdrantRest, client: QdrantClient) -> None:
        """A collection of our name that somebody made anew."""
        physical = SPACE.physical_name(NAME)
        client.create_collection(physical, {"dense": models.VectorParams(size=4, distance=models.Distance.COSINE)})
        alias = models.CreateAlias(collection_name=physical, alias_name=NAME)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        store = QdrantServerStore(rest.url)
        with pytest.raises(StoreRejected, match="named vectors"):
            store.upsert(NAME, [point(1, "A")])
        store.close()

    def test_recreated_collection_has_its_new_size(
        self, rest: QdrantRest, store: QdrantServerStore, client: QdrantClient
    ) -> None:
        """After somebody dropped a collection, ensure_collection may make it in another space."""
        client.delete_collection(SPACE.physical_name(NAME))
        store.ensure_collection(NAME, Space("hash", "words", 2))
        store.upsert(NAME, [point(1, "A", [1, 0])])
        assert store.count(NAME) == 1

    def test_large_upserts_are_split(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """A bad vector at the end of several requests stops all of them."""
        store = QdrantServerStore(rest.url, max_request_bytes=5_000)
        store.upsert(NAME, [point(n, "B") for n in range(25)])
        assert [seen.method for seen in rest.requests if seen.path.endswith("/points")].count("PUT") > 2
        assert store.count(NAME, "B") == 25
        with pytest.raises(StoreRejected, match=uid(24)):
            store.upsert(NAME, [*(point(n, "C") for n in range(24)), point(24, "C", [1, 0])])
        assert store.count(NAME, "C") == 0
        store.close()

    @pytest.mark.parametrize("text", ["x" * 900, "\u00e4\u4e2d\U0001f600" * 100, '"\\\n\x01' * 200])
    @pytest.mark.parametrize("dimensions", [2, 900])
    def test_no_request_is_larger_than_its_bound(self, rest: QdrantRest, text: str, dimensions: int) -> None:
        """Vectors, payloads and ids go in requests of at most `max_request_bytes`, whatever the text and the size."""
        bound = 60_000
        store = QdrantServerStore(rest.url, max_request_bytes=bound)
        store.ensure_collection("wide", Space("hash", "words", dimensions))
        numbers = -np.random.default_rng(1).random(dimensions, np.float32)
        points = [point(n, "A", numbers / np.float32(1e7), text=text) for n in range(200)]
        store.upsert("wide", points)
        assert store.set_payload("wide", [*points, point("gone", "A")]) == [uid("gone")]
        store.delete("wide", "A", [uid(n) for n in range(3000)])
        assert store.count("wide") == 0
        assert bound * 0.7 < max(rest.body_sizes) <= bound
        store.close()

    def test_one_point_that_is_larger_than_the_bound_goes_alone(self, rest: QdrantRest) -> None:
        """It is sent by itself, and so are the smaller ones before and after it sent."""
        store = QdrantServerStore(rest.url, max_request_bytes=2_000)
        store.ensure_collection("wide", SPACE)
        store.upsert("wide", [point(1, "A"), point(2, "A", text="x" * 5_000), point(3, "A")])
        assert store.count("wide") == 3
        store.close()

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (400, "Payload error: JSON payload (9 bytes) is larger than allowed (limit: 8 bytes)."),
            (400, "Payload error: JSON payload has exceeded limit (8 bytes)."),
            (400, "Bad request: Condition size limit reached (9 > 8). Help: Reduce the size of your condition."),
            (413, ""),
        ],
    )
    def test_a_request_that_is_too_large_is_halved(
        self, rest: QdrantRest, store: QdrantServerStore, status: int, message: str
    ) -> None:
        """In each of the ways in which a server says so, or a proxy before it."""
        rest.fail(status=status, message=message, path_contains="/delete")
        store.delete(NAME, "A", [uid(n) for n in range(4)])
        assert (len(rest.requests), store.count(NAME)) == (3, 0)

    def test_a_request_that_is_refused_for_another_reason_is_sent_once(
        self, rest: QdrantRest, store: QdrantServerStore
    ) -> None:
        """A smaller one would be refused as well."""
        rest.fail(status=400, times=99)
        ids = [uid(n) for n in range(100)]
        for call in (lambda: store.delete(NAME, "A", ids), lambda: store.retrieve(NAME, ids)):
            rest.requests.clear()
            with pytest.raises(StoreRejected):
                call()
            assert len(rest.requests) == 1

    def test_a_limit_that_was_met_is_kept(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """Behind a proxy that takes a hundred ids: what is refused is asked for once, not again for each page."""
        ids = [uid(n) for n in range(1000)]
        store.upsert(NAME, [point(n, "A") for n in range(1000)])
        rest.max_body = 4_200

        def refused() -> int:
            found = sum(size > rest.max_body for size in rest.body_sizes)
            rest.body_sizes.clear()
            return found

        refused()
        assert len(store.retrieve(NAME, ids)) == 1000
        assert 1 <= refused() <= 5
        store.delete_foreign(NAME, ids)
        assert 1 <= refused() <= 5
        assert store.count(NAME) == 0

    def test_answers_are_kept_to_about_the_bound(self, rest: QdrantRest) -> None:
        """Long payloads are asked for in smaller pages, short ones in pages as large as the caller's."""
        bound = 300_000
        store = QdrantServerStore(rest.url, max_request_bytes=bound)
        store.ensure_collection("wide", SPACE)
        store.upsert("wide", [point(n, "A", text="x" * 3_000) for n in range(400)])
        rest.answer_sizes.clear()
        assert sum(len(page) for page in store.scan("wide")) == 400
        assert len(store.retrieve("wide", [uid(n) for n in range(400)])) == 400
        assert max(rest.answer_sizes) < bound * 1.1
        assert len(rest.answer_sizes) < 14
        store.close()

    @pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 405, 406, 407, 409, 410, 421, 423, 425, 451])
    def test_a_refusal_of_everything_is_told_from_one_of_a_document(
        self, rest: QdrantRest, store: QdrantServerStore, status: int
    ) -> None:
        """A wrong key or address is about every document, a request that it does not take about those in it."""
        for answer in (status, 400, 413, 422):
            rest.fail(status=answer)
            with pytest.raises(StoreRejected) as caught:
                store.upsert(NAME, [point(1, "A")])
            assert caught.value.every_document is (answer == status)

    def test_check_is_a_single_attempt(self, rest: QdrantRest, store: QdrantServerStore) -> None:
        """The connection test names the version, and tells of a fault at once."""
        assert store.check() == f"Qdrant 1.20.0 at {rest.url}, 1 collections"
        rest.requests.clear()
        rest.fail(status=503, times=9)
        with pytest.raises(StoreUnavailable):
            store.check()
        assert len(rest.requests) == 1


def test_a_collection_made_anew_is_found_by_a_store_that_stays_open(
    store: QdrantServerStore, rest: QdrantRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that runs for days looks at it again."""
    Server(rest).make_anew(SPACE.physical_name(NAME), NAME, Space("hash", "words", 8))
    monkeypatch.setattr(qdrant_server, "_LOOK_AGAIN_S", 0.0)
    with pytest.raises(SpaceMismatch, match="takes vectors of 8 dimensions"):
        store.ensure_collection(NAME, SPACE)
