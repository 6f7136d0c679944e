"""What is decided about a document, for every state that its ledger row may be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.hashing import attempt_hash
from vecsync_dagster.ledger.base import LedgerRow
from vecsync_dagster.sync.changes import Change, Kind, decide
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster_tests.documents.records import document
from vecsync_dagster_tests.properties import a_property

TENANT, SPACE = "t1", "hash/words/384/cosine"
LATER = datetime(2026, 3, 1, tzinfo=UTC)
NOW = document(tenant=TENANT)
OTHER_TEXT = document(tenant=TENANT, name="Beta")
OTHER_PRICE = document(tenant=TENANT, price=6)
SYNCED = LedgerRow(
    number=1,
    document_id=NOW.document_id,
    tenant=TENANT,
    space=SPACE,
    status="synced",
    content_hash=NOW.content_hash,
    payload_hash=NOW.payload_hash,
    attempt_hash=None,
    retry_count=0,
    next_attempt_at=None,
    field_hashes=None,
    seen=False,
    key=NOW.key,
)
THIS_ATTEMPT = attempt_hash(NOW.content_hash, NOW.payload_hash)
OTHER_ATTEMPT = attempt_hash(OTHER_TEXT.content_hash, OTHER_TEXT.payload_hash)
NEVER: dict[str, Any] = {"content_hash": None, "payload_hash": None}
OLD_TEXT: dict[str, Any] = {"content_hash": OTHER_TEXT.content_hash, "payload_hash": OTHER_TEXT.payload_hash}
DUE: dict[str, Any] = {"status": "failed", "attempt_hash": THIS_ATTEMPT, "retry_count": 2, "next_attempt_at": LATER}
PERMANENT = {**DUE, "retry_count": 6, "next_attempt_at": None}
FAILED_AS_ANOTHER = {**DUE, "attempt_hash": OTHER_ATTEMPT}
REJECTED = {**NEVER, "status": "failed", "attempt_hash": ""}


def decided(row: LedgerRow | None, *, retry_permanent: bool = False, doubted: bool = False) -> Change:
    rows = {} if row is None else {row.document_id: row}
    [change] = decide([NOW], rows, tenant=TENANT, space=SPACE, retry_permanent=retry_permanent, doubted=doubted)
    return change


CASES: list[tuple[str, dict[str, Any] | None, Kind]] = [
    ("never seen", None, Kind.NEW),
    ("as confirmed", {}, Kind.UNCHANGED),
    ("pending: seen, never stored", {**NEVER, "status": "pending"}, Kind.NEW),
    ("another text", OLD_TEXT, Kind.CHANGED),
    ("another payload", {"payload_hash": OTHER_PRICE.payload_hash}, Kind.PAYLOAD_ONLY),
    ("another tenant", {"tenant": "t2"}, Kind.CHANGED),
    ("another tenant and text", {**OLD_TEXT, "tenant": "t2"}, Kind.CHANGED),
    ("another space", {"space": "openai/m/1536/cosine"}, Kind.CHANGED),
    ("another space and payload", {"space": "o/m/1/dot", "payload_hash": "0" * 16}, Kind.CHANGED),
    ("stale, and good again as it was", {"status": "stale"}, Kind.UNCHANGED),
    ("stale, and good again with another text", {**OLD_TEXT, "status": "stale"}, Kind.CHANGED),
    ("failed at first", {**NEVER, **DUE}, Kind.RETRY),
    ("failed as changed", {**OLD_TEXT, **DUE}, Kind.RETRY),
    ("failed in its payload alone", {**DUE, "payload_hash": "0" * 16}, Kind.RETRY),
    ("failed at first, changed since", {**NEVER, **FAILED_AS_ANOTHER}, Kind.NEW),
    ("failed as changed, changed again", {**FAILED_AS_ANOTHER, "content_hash": "0" * 16}, Kind.CHANGED),
    ("failed as changed, changed back", FAILED_AS_ANOTHER, Kind.RETRY),
    ("rejected before, valid now", REJECTED, Kind.NEW),
    ("permanent", {**OLD_TEXT, **PERMANENT}, Kind.UNCHANGED),
    ("permanent, changed since", {**NEVER, **PERMANENT, "attempt_hash": OTHER_ATTEMPT}, Kind.NEW),
    ("permanent, changed back", {**PERMANENT, "attempt_hash": OTHER_ATTEMPT}, Kind.RETRY),
]


@pytest.mark.parametrize(("case", "row", "kind"), CASES, ids=[case for case, _, _ in CASES])
def test_every_state(case: str, row: dict[str, Any] | None, kind: Kind) -> None:
    """What is done about a document, by what its row says."""
    assert decided(None if row is None else replace(SYNCED, **row)).kind is kind


@pytest.mark.parametrize("row", [{**NEVER, **PERMANENT}, {**OLD_TEXT, **PERMANENT}, PERMANENT])
def test_permanent_failures_are_tried_again_when_asked(row: dict[str, Any]) -> None:
    """What somebody asks for by name is tried again although a run leaves it alone."""
    assert decided(replace(SYNCED, **row)).kind is Kind.UNCHANGED
    assert decided(replace(SYNCED, **row), retry_permanent=True).kind is Kind.RETRY


@pytest.mark.parametrize(("case", "row", "kind"), CASES, ids=[case for case, _, _ in CASES])
def test_fault_07_nothing_unconfirmed_counts_as_done(case: str, row: dict[str, Any] | None, kind: Kind) -> None:
    """A document is unchanged only if the store confirmed just this text and payload in this space and
    partition, or if its retries are used up."""
    known = None if row is None else replace(SYNCED, **row)
    confirmed = known is not None and (known.content_hash, known.payload_hash, known.space, known.tenant) == (
        NOW.content_hash,
        NOW.payload_hash,
        SPACE,
        TENANT,
    )
    given_up = known is not None and known.status == "failed" and known.next_attempt_at is None
    assert decided(known).kind is not Kind.UNCHANGED or confirmed or given_up


def test_a_moved_record() -> None:
    """A record that moved to this tenant is written here, whole: the other tenant's run may be writing it too."""
    there = document(tenant="t2")
    row = replace(SYNCED, tenant="t2", content_hash=there.content_hash, payload_hash=there.payload_hash)
    assert decided(row).kind is Kind.CHANGED
    failed_there = replace(
        row,
        status="failed",
        attempt_hash=attempt_hash(OTHER_TEXT.content_hash, document(tenant="t2", name="Beta").payload_hash),
    )
    assert decided(failed_there).kind is Kind.RETRY


@pytest.mark.parametrize(("case", "row", "kind"), CASES, ids=[case for case, _, _ in CASES])
def test_where_a_run_did_not_finish_no_vector_is_trusted(case: str, row: dict[str, Any] | None, kind: Kind) -> None:
    """A payload alone is not written where the vector beside it may be another text's; all else is as ever."""
    wanted = Kind.CHANGED if kind is Kind.PAYLOAD_ONLY else kind
    assert decided(None if row is None else replace(SYNCED, **row), doubted=True).kind is wanted


@pytest.mark.parametrize(("row", "count"), [(None, 0), ({}, 0), (DUE, 2), (PERMANENT, 6), (FAILED_AS_ANOTHER, 0)])
def test_retries_are_counted_for_one_version(row: dict[str, Any] | None, count: int) -> None:
    """Failed attempts of an earlier version of a document do not count against this one."""
    assert decided(None if row is None else replace(SYNCED, **row)).retry_count == count


STATES = st.one_of(st.none(), *(st.just(row) for _, row, _ in CASES))


@a_property
@given(st.lists(STATES, max_size=12), st.booleans())
def test_figures_add_up(states: list[dict[str, Any] | None], retry_permanent: bool) -> None:
    """Every document gets one change, in its order, and counting the changes accounts for every document."""
    documents = [document(tenant=TENANT, id=n) for n in range(len(states))]
    rows = {
        d.document_id: replace(SYNCED, document_id=d.document_id, **state)
        for d, state in zip(documents, states, strict=True)
        if state is not None
    }
    changes = decide(documents, rows, tenant=TENANT, space=SPACE, retry_permanent=retry_permanent)
    assert [change.document for change in changes] == documents
    assert [change.row for change in changes] == [rows.get(d.document_id) for d in documents]
    figures = Figures(fetched=len(documents))
    for change in changes:
        setattr(figures, change.kind, getattr(figures, change.kind) + 1)
    assert figures.fetched == (
        figures.new + figures.changed + figures.payload_only + figures.unchanged + figures.retry + figures.invalid
    )
    assert figures.removed == 0
