"""What the ledger knows of a record in each of its collections, through whole syncs."""

from __future__ import annotations

from vecsync_dagster_tests.four import FOUR, MANY, Four

SYNCED = ("synced",) * 4


def test_a_new_record_is_synced_in_all_four(four: Four) -> None:
    """Each collection has its own text, hash and first vector."""
    four.insert(1)
    four.sync()
    assert four.statuses(1) == SYNCED
    states = four.states()[1].collections.values()
    assert {state.vector_version for state in states} == {1}
    assert len({state.content_hash for state in states}) == 4
    assert {(state.retry_count, state.error_code, state.last_error) for state in states} == {(0, None, None)}
    assert {state.last_synced_at for state in states} == {state.last_attempt_at for state in states} == {four.now}


def test_a_rename_is_the_first_collections_business_alone(four: Four) -> None:
    """Another name makes one vector anew; the other three are not touched, and each knows what changed in it."""
    four.insert(1)
    four.sync()
    before = four.now
    four.later(hours=1)
    four.world.update(1, name="renamed")
    four.sync()
    tools, *others = four.states()[1].collections.values()
    assert (tools.vector_version, tools.modified_fields, tools.last_synced_at) == (2, ("name",), four.now)
    assert {(o.vector_version, o.modified_fields, o.last_synced_at) for o in others} == {(1, None, before)}


def test_a_price_is_payload_in_all_four(four: Four) -> None:
    """Another price makes no vector; each collection says that the price changed, also after a change of another."""
    four.insert(1)
    four.sync()
    four.world.update(1, name="renamed")
    four.sync()
    embedded = len(four.provider.asked)
    four.world.update(1, price="12,50")
    four.sync()
    assert len(four.provider.asked) == embedded
    states = four.states()[1].collections
    assert {state.modified_fields for state in states.values()} == {("price",)}
    assert [state.vector_version for state in states.values()] == [2, 1, 1, 1]


def test_what_is_no_change_is_no_modified_field(four: Four) -> None:
    """Letter case and white space around a text change nothing, so they are not said to."""
    four.insert(1)
    four.sync()
    four.world.update(1, name="  NAME 1 ")
    four.sync()
    assert {state.modified_fields for state in four.states()[1].collections.values()} == {None}


def test_fault_07_a_change_that_failed_is_not_taken_for_done(four: Four) -> None:
    """The new hash is not stored while the text is not embedded: the next attempt embeds it, and only then is the
    record synced. Until then it is failed, with what changed."""
    four.insert(1)
    four.sync()
    old = four.states()[1].collections["tools"].content_hash
    four.world.update(1, name="renamed")
    four.provider.fail("server_error", times=MANY)
    four.sync()
    failed = four.states()[1].collections["tools"]
    assert (failed.status, failed.content_hash, failed.vector_version) == ("failed", old, 1)
    assert (failed.error_code, failed.retry_count, failed.modified_fields) == ("EMBEDDING_UNAVAILABLE", 0, ("name",))
    four.provider.recover()
    four.sync()
    synced = four.states()[1].collections["tools"]
    assert (synced.status, synced.retry_count, synced.vector_version) == ("synced", 0, 2)
    assert synced.modified_fields == ("name",)
    assert synced.content_hash != old
    assert four.provider.answered.count("renamed") == 1
    four.world.assert_exact("tools")


def test_fault_09_the_overall_status_is_of_all_collections(four: Four) -> None:
    """A run that touches one collection does not make a record synced that failed in another."""
    four.insert(1)
    four.sync()
    four.world.update(1, code="other")
    four.store_is_down("functionality")
    four.sync()
    four.store.recover()
    assert four.statuses(1) == ("synced", "failed", "synced", "synced")
    four.world.update(1, name="renamed")
    assert four.sync("tools")["tools"].ok
    assert four.states()[1].overall == "failed"
    four.sync("functionality")
    assert four.states()[1].overall == "synced"


def test_errors_hold_no_text(four: Four) -> None:
    """What the provider and the store say may repeat the text; what the ledger keeps does not, and is not long."""
    four.insert(1)
    four.sync()
    secret = "geheim " * 300
    four.world.update(1, name=f"{secret}FORBIDDEN", code=secret)
    four.store.fail(status=400, times=MANY, path_contains="functionality/points", message=f"bad point {secret}")
    four.sync()
    states = four.states()[1].collections
    assert [state.error_code for state in states.values()] == ["EMBEDDING_REJECTED", "QDRANT_REJECTED", None, None]
    told = [state.last_error for state in states.values() if state.last_error is not None]
    assert len(told) == 2
    assert not any("geheim" in error or len(error) > 1000 for error in told)


def test_a_retry_of_a_payload_makes_no_other_vector(four: Four) -> None:
    """A price that failed at first is no reason to count another vector."""
    four.insert(1)
    four.sync()
    four.world.update(1, price="7")
    four.store_is_down("usecases")
    four.sync()
    four.store.recover()
    four.sync()
    assert four.statuses(1) == SYNCED
    assert {state.vector_version for state in four.states()[1].collections.values()} == {1}
    for collection in FOUR:
        four.world.assert_exact(collection)
