"""Incremental reads that follow MongoDB's change stream."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster.errors import SourceRejected, SourceUnavailable
from vecsync_dagster.sources import Cursor, Page, Read
from vecsync_dagster.sources.base import Losable
from vecsync_dagster.sources.mongo import MongoDbSource
from vecsync_dagster.sources.mongo_stream import token_of
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.sources.backends import ids, keys, read, time, values
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

HISTORY_LOST = 286


@pytest.fixture
def stream(mongo: MongoBackend) -> MongoBackend:
    mongo.change_stream = "always"
    mongo.create()
    return mongo


@pytest.fixture
def by_field(mongo: MongoBackend) -> MongoBackend:
    """The id is a field of its own: the stream tells a deleted document by its `_id` alone."""
    mongo.change_stream, mongo.key = "always", "id"
    mongo.create()
    return mongo


def begin(source: MongoDbSource, tenant: str = "a") -> Cursor:
    """The cursor of a full read."""
    return end(read(source, tenant))


def end(pages: list[Page]) -> Cursor:
    cursor = pages[-1].cursor
    assert cursor is not None
    return cursor


def gone(pages: list[Page]) -> list[str]:
    return sorted(key for page in pages for key in page.tombstones)


def test_a_read_from_a_token_has_what_happened_since(stream: MongoBackend) -> None:
    """New and changed documents come as they are now, each once, deleted ones as tombstones; then nothing."""
    stream.put(*({"id": key, "name": "old", "tenant_id": "a"} for key in range(5)))
    source = stream.source()
    cursor = begin(source)
    stream.change(1, name="newer")
    stream.change(1, name="newest")
    stream.drop(2)
    stream.put({"id": 7, "name": "late", "tenant_id": "a"}, {"id": 8, "tenant_id": "a"})
    stream.drop(8)
    pages = read(source, since=cursor)
    assert dict(zip(ids(pages), values(pages, "name"), strict=True)) == {"1": "newest", "7": "late"}
    assert gone(pages) == ["2", "8"]
    (quiet,) = read(source, since=end(pages))
    assert (quiet.records.num_rows, quiet.tombstones) == (0, ())
    assert tuple(quiet.records.schema.names) == source.fields()


def test_fault_14_a_deletion_is_seen_where_no_row_is_left(stream: MongoBackend) -> None:
    """A document that is gone has no time to be found by: the stream tells it, also to a source made later."""
    stream.put({"id": 1, "tenant_id": "a", "updated_at": time(1)}, {"id": 2, "tenant_id": "a", "updated_at": time(2)})
    cursor = begin(stream.source())
    stream.drop(1)
    pages = read(stream.source(), since=cursor)
    assert (ids(pages), gone(pages)) == ([], ["1"])


def test_what_is_written_during_a_full_read_is_not_lost(stream: MongoBackend) -> None:
    """The token is as old as the read's beginning."""
    stream.put(*({"id": key, "name": "old", "tenant_id": "a"} for key in range(4)))
    source = stream.source()
    pages = source.read(Read("a"), 2)
    first = next(pages)
    stream.change(0, name="new")
    stream.drop(1)
    rest = list(pages)
    changes = read(source, since=end([first, *rest]))
    assert (ids(changes), values(changes, "name"), gone(changes)) == (["0"], ["new"], ["1"])


def test_each_tenant_reads_its_own(stream: MongoBackend) -> None:
    """A document that moves is a tombstone of its old tenant and a record of its new one; nobody loses another's."""
    stream.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "b"}, {"id": 3, "is_global": True})
    source = stream.source()
    cursors = {tenant: begin(source, tenant) for tenant in ("a", "b", "global")}
    stream.change(1, tenant_id="b")
    stream.change(2, name="new")
    stream.change(3, name="new")
    told = {tenant: read(source, tenant, since=cursor) for tenant, cursor in cursors.items()}
    assert {tenant: ids(pages) for tenant, pages in told.items()} == {"a": [], "b": ["1", "2"], "global": ["3"]}
    assert gone(told["a"]) == ["1", "2", "3"]
    assert gone(told["b"]) == ["3"]
    stream.change(1, name="again")
    assert ids(read(source, "b", since=end(told["b"]))) == ["1"]


def test_approval_withdrawn_is_a_tombstone(stream: MongoBackend) -> None:
    """A document that does not pass the filter any more is gone; one that passes it now is new."""
    stream.put({"id": 1, "tenant_id": "a", "unit": "approved"}, {"id": 2, "tenant_id": "a", "unit": "pending"})
    source = stream.source(filter={"unit": "approved"})
    cursor = begin(source)
    stream.change(1, unit="rejected")
    stream.change(2, unit="approved")
    pages = read(source, since=cursor)
    assert (ids(pages), gone(pages)) == (["2"], ["1"])


def test_pages_stay_small_and_only_the_last_has_a_cursor(stream: MongoBackend) -> None:
    """Events are in no order that could be left in the middle."""
    stream.put({"id": 0, "tenant_id": "a"})
    source = stream.source()
    cursor = begin(source)
    stream.put(*({"id": key, "tenant_id": "a"} for key in range(1, 240)))
    pages = read(source, page=50, since=cursor)
    assert max(page.records.num_rows for page in pages) <= 50
    assert sorted(ids(pages), key=int) == [str(key) for key in range(1, 240)]
    assert [page.cursor is None for page in pages] == [True] * (len(pages) - 1) + [False]
    part = read(source, since=cursor, limit=3)
    assert len(ids(part)) == 3
    assert {page.cursor for page in part} == {None}


def test_times_are_not_needed(stream: MongoBackend) -> None:
    """With a stream an entity without a modification field is incremental all the same."""
    stream.put({"id": 1, "tenant_id": "a"})
    source = stream.source(updated_at=None, deleted_at=None)
    assert source.incremental
    cursor = begin(source)
    stream.change(1, name="new")
    assert values(read(source, since=cursor), "name") == ["new"]


def test_a_write_of_sync_metadata_is_no_change(stream: MongoBackend) -> None:
    """What touches `syncMetadata` alone is not read again; what touches more is."""
    stream.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "a"})
    source = stream.source()
    cursor = begin(source)
    stream.change(1, **{"syncMetadata.overallStatus": "synced"})
    stream.documents.update_one({"_id": 1}, {"$unset": {"syncMetadata.old": 1}})
    stream.change(2, **{"syncMetadata.overallStatus": "synced", "name": "new"})
    assert ids(read(source, since=cursor)) == ["2"]


# -- ids that are another field than _id ---------------------------------------------------------------
def test_changes_by_a_field_of_its_own(by_field: MongoBackend) -> None:
    """New and changed documents are found by `_id`, and told by their own id."""
    by_field.put({"id": "x", "name": "old", "tenant_id": "a"}, {"id": "y", "tenant_id": "b"})
    source = by_field.source()
    cursor = begin(source)
    by_field.change("x", name="new")
    by_field.change("y", name="new")
    by_field.put({"id": "z", "name": "late", "tenant_id": "a"})
    assert source.lost(Read("a", since=cursor)) is None
    pages = read(source, since=cursor)
    assert (ids(pages), values(pages, "name"), gone(pages)) == (["x", "z"], ["new", "late"], ["y"])


def test_a_deletion_that_nobody_can_name_asks_for_a_full_read(by_field: MongoBackend) -> None:
    """The stream tells `_id` alone: only a full read finds out which id is gone."""
    by_field.put({"id": "x", "tenant_id": "a"})
    source = by_field.source()
    cursor = begin(source)
    by_field.drop("x")
    assert "changeStreamPreAndPostImages" in (source.lost(Read("a", since=cursor)) or "")
    with pytest.raises(SourceRejected, match="run a full sync"):
        read(source, since=cursor)


def test_a_changed_id_asks_for_a_full_read(by_field: MongoBackend) -> None:
    """The old id of a document is as gone as that of a deleted one."""
    by_field.put({"id": "x", "tenant_id": "a"})
    source = by_field.source()
    cursor = begin(source)
    by_field.documents.update_one({"id": "x"}, {"$set": {"id": "x2"}})
    assert source.lost(Read("a", since=cursor)) is not None


def test_pre_images_name_what_is_gone(by_field: MongoBackend) -> None:
    """With pre-images a deleted or renamed id is a tombstone; one that was made again is not."""
    by_field.put(*({"id": key, "tenant_id": "a"} for key in ("x", "y", "z")))
    by_field.client[by_field.database].command("collMod", "materials", changeStreamPreAndPostImages={"enabled": True})
    source = by_field.source()
    cursor = begin(source)
    by_field.drop("x")
    by_field.documents.update_one({"id": "y"}, {"$set": {"id": "y2"}})
    by_field.drop("z")
    by_field.put({"id": "z", "name": "again", "tenant_id": "a"})
    assert source.lost(Read("a", since=cursor)) is None
    pages = read(source, since=cursor)
    assert (ids(pages), gone(pages)) == (["y2", "z"], ["x", "y"])


@pytest.mark.parametrize("key", [["_id.firm", "_id.no"], ["firm", "no"]], ids=str)
def test_a_key_of_several_fields_is_followed(stream: MongoBackend, key: list[str]) -> None:
    """Changed documents come with their whole key, deleted ones are tombstones by it, and so is the old key of one that
    got another; with fields outside `_id` the stream tells them by pre-images."""
    own = key[0].startswith("_id")
    if not own:
        images = {"enabled": True}
        stream.client[stream.database].command("collMod", "materials", changeStreamPreAndPostImages=images)
    parts: list[dict[str, Any]] = [
        {"firm": "x/y", "no": 1},
        {"firm": "x/y", "no": 2},
        {"firm": None, "no": 1},
        {"firm": "", "no": "1"},
    ]
    documents = [{"_id": part} if own else {"_id": n, **part} for n, part in enumerate(parts)]
    stream.put(*({**one, "name": str(n), "tenant_id": "a"} for n, one in enumerate(documents)))
    source = stream.source(id=key)
    cursor = begin(source)
    stream.documents.update_one({"name": "0"}, {"$set": {"name": "new"}})
    stream.documents.delete_many({"name": {"$in": ["1", "2"]}})
    if not own:
        stream.documents.update_one({"name": "3"}, {"$set": {"no": 7}})
    pages = read(source, since=cursor)
    assert sorted(keys(pages)) == (["x~1y/1"] if own else ["/7", "x~1y/1"])
    assert gone(pages) == (["x~1y/2", "~/1"] if own else ["/1", "x~1y/2", "~/1"])
    assert read(source, since=end(pages))[0].records.num_rows == 0


# -- lost tokens ---------------------------------------------------------------------------------------
def test_a_token_that_the_server_forgot_is_lost(stream: MongoBackend) -> None:
    """The source says so when it is asked, and a read from there is refused; a new full read begins anew."""
    stream.put({"id": 1, "tenant_id": "a"})
    source = stream.source()
    assert isinstance(source, Losable)
    cursor = begin(source)
    with failing(stream.url, "aggregate", errorCode=HISTORY_LOST):
        assert "ChangeStreamHistoryLost" in (source.lost(Read("a", since=cursor)) or "")
        with pytest.raises(SourceRejected, match=r"ChangeStreamHistoryLost.*run a full sync"):
            read(source, since=cursor)
    assert stream.source().lost(Read("a", since=begin(source))) is None


def test_a_token_of_another_server_is_lost(stream: MongoBackend) -> None:
    """A token that this server never gave is not taken for the beginning."""
    assert stream.source().lost(Read("a", since=Cursor(time(1), '{"resume": {"_data": "8200"}}'))) is not None


def test_a_collection_that_was_dropped_is_read_anew(stream: MongoBackend) -> None:
    """A new collection of the same name has other documents."""
    stream.put({"id": 1, "tenant_id": "a"})
    cursor = begin(stream.source())
    stream.documents.drop()
    stream.put({"id": 2, "tenant_id": "a"})
    assert "dropped" in (stream.source().lost(Read("a", since=cursor)) or "")


def test_a_server_that_is_away_has_not_lost_the_token(stream: MongoBackend) -> None:
    """What may be tried again does not cost a full read: the read itself fails, and may be tried again."""
    stream.put({"id": 1, "tenant_id": "a"})
    source = stream.source()
    cursor = begin(source)
    with failing(stream.url, "aggregate", closeConnection=True):
        assert source.lost(Read("a", since=cursor)) is None
        with pytest.raises(SourceUnavailable):
            read(source, since=cursor)
    (page,) = read(source, since=cursor)
    assert page.records.num_rows == 0


# -- with and without streams --------------------------------------------------------------------------
def test_a_cursor_without_a_token_goes_by_time_once(stream: MongoBackend) -> None:
    """Where streams were switched on later, the next read goes by time, and has a token to go on from."""
    stream.put({"id": 1, "tenant_id": "a", "updated_at": time(1)}, {"id": 2, "tenant_id": "a", "updated_at": time(5)})
    old = end(read(stream.source(change_stream="never")))
    source = stream.source()
    stream.put({"id": 3, "tenant_id": "a", "updated_at": time(9)})
    pages = read(source, since=old)
    assert ids(pages) == ["2", "3"]
    assert token_of(end(pages)) is not None


def test_a_cursor_with_a_token_also_has_a_time(stream: MongoBackend) -> None:
    """Where streams are switched off later, nothing is lost either."""
    stream.put({"id": 1, "tenant_id": "a", "updated_at": time(1)}, {"id": 2, "tenant_id": "a", "updated_at": time(5)})
    cursor = begin(stream.source())
    stream.change(1, updated_at=time(9))
    assert ids(read(stream.source(change_stream="never"), since=cursor)) == ["2", "1"]


def test_a_server_without_streams_is_read_by_time(mongo: MongoBackend) -> None:
    """`auto` does without on a standalone server; `always` is an error there."""
    mongo.create()
    mongo.put({"id": 1, "tenant_id": "a", "updated_at": time(1)})
    with failing(mongo.url, "aggregate", errorCode=40573):
        source = mongo.source(change_stream="auto")
        cursor = end(read(source))
        assert token_of(cursor) is None
        assert ids(read(source, since=cursor)) == ["1"]
        with pytest.raises(SourceRejected, match="40573"):
            read(mongo.source(change_stream="always"))
