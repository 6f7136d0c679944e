"""What every ledger does with vectors: the cache, and the space a collection is pinned to."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, select

from vecsync_dagster.errors import LedgerRejected, SpaceMismatch
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.tables import embedding_cache
from vecsync_dagster.space import Space
from vecsync_dagster_tests.ledger.samples import DAY, NOON, OTHER_SPACE, SPACE, Clock, names

VECTOR = np.array([0.1, -1e-30, 3.0, np.finfo(np.float32).max], dtype=np.float32)


class VectorsContract:
    def test_a_vector_comes_back_bit_by_bit(self, ledger: SqlLedger) -> None:
        """The cache gives the very float32 numbers it was given, and nobody can change them in place."""
        ledger.keep_vectors(SPACE, {"h1": VECTOR, "h2": VECTOR[::-1]})
        found = ledger.vectors(SPACE, ["h1", "h2", "unknown"])
        assert set(found) == {"h1", "h2"}
        assert found["h1"].dtype == np.float32
        assert found["h1"].tobytes() == VECTOR.tobytes()
        assert found["h2"].tobytes() == VECTOR[::-1].tobytes()
        assert not found["h1"].flags.writeable

    def test_fault_12_spaces_do_not_share_vectors(self, ledger: SqlLedger) -> None:
        """The same text in another space is another vector."""
        ledger.keep_vectors(SPACE, {"h1": VECTOR})
        assert ledger.vectors(OTHER_SPACE, ["h1"]) == {}

    def test_where_vectors_come_from_is_known_by_space(self, ledger: SqlLedger) -> None:
        """The last origin of a space is kept; its vectors can be forgotten apart from those of others."""
        assert ledger.origin_of(SPACE) is None
        for origin in ("here", "there"):
            ledger.keep_origin(SPACE, origin)
        assert (ledger.origin_of(SPACE), ledger.origin_of(OTHER_SPACE)) == ("there", None)
        ledger.keep_vectors(SPACE, {"h1": VECTOR})
        ledger.keep_vectors(OTHER_SPACE, {"h1": VECTOR})
        ledger.keep_vectors(SPACE, {"h2": VECTOR}, "there")
        with pytest.raises(SpaceMismatch):
            ledger.keep_vectors(SPACE, {"h3": VECTOR}, "here")
        with pytest.raises(SpaceMismatch):
            ledger.require_origin(SPACE, "here")
        assert set(ledger.vectors(SPACE, ["h1", "h2", "h3"])) == {"h1", "h2"}
        ledger.keep_origin(SPACE, "elsewhere", anew=True)
        ledger.require_origin(SPACE, "elsewhere")
        assert (ledger.vectors(SPACE, ["h1"]), len(ledger.vectors(OTHER_SPACE, ["h1"]))) == ({}, 1)

    def test_keeping_twice_changes_nothing(self, ledger: SqlLedger) -> None:
        """The first vector of a text stays: what points were written with is what the cache says."""
        ledger.keep_vectors(SPACE, {"h1": VECTOR})
        ledger.keep_vectors(SPACE, {"h1": VECTOR * 0, "h2": VECTOR})
        found = ledger.vectors(SPACE, ["h1", "h2"])
        assert found["h1"].tobytes() == VECTOR.tobytes()
        assert set(found) == {"h1", "h2"}

    @pytest.mark.parametrize("bad", [VECTOR[:3], VECTOR.reshape(2, 2), VECTOR * np.float32("nan")])
    def test_a_vector_of_no_use_is_not_kept(self, ledger: SqlLedger, bad: np.ndarray) -> None:
        """A wrong size or a value that is not finite is refused before anything of the call is kept."""
        with pytest.raises(LedgerRejected, match=r"not one of the space hash/words/4/cosine"):
            ledger.keep_vectors(SPACE, {"h1": VECTOR, "h2": bad})
        assert ledger.vectors(SPACE, ["h1", "h2"]) == {}

    def test_many_vectors_in_one_call(self, ledger: SqlLedger) -> None:
        """As many as a run asks for, in chunks."""
        texts = names(1203)
        ledger.keep_vectors(SPACE, dict.fromkeys(texts, VECTOR))
        assert set(ledger.vectors(SPACE, texts)) == set(texts)
        ledger.keep_vectors(SPACE, {})
        assert ledger.vectors(SPACE, []) == {}

    def test_vectors_are_found_by_their_hashes(self, ledger: SqlLedger) -> None:
        """A look into a cache that is filling up takes each vector by its key; it never reads the whole space."""
        texts = names(2000)
        ledger.keep_vectors(SPACE, dict.fromkeys(texts, VECTOR))
        asked: list[tuple[str, Any]] = []
        event.listen(ledger.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
        assert len(ledger.vectors(SPACE, texts[:200])) == 200
        [(statement, values)] = asked
        explain = "EXPLAIN QUERY PLAN " if ledger.database.dialect == "sqlite" else "EXPLAIN "
        with ledger.database.read() as connection:
            plan = [str(row) for row in connection.exec_driver_sql(explain + statement, values)]
        by_key = r"Index Cond: \(\(space = .*text_hash = |SEARCH embedding_cache .*\(space=\? AND text_hash=\?\)"
        assert [line for line in plan if re.search(by_key, line)], plan

    def test_use_is_noted_once_a_day(self, ledger: SqlLedger, clock: Clock) -> None:
        """Reading a cached vector writes only where the last use is more than a day ago."""
        ledger.keep_vectors(SPACE, {"h1": VECTOR, "h2": VECTOR})
        used = []
        for after in (timedelta(hours=1), DAY, DAY + timedelta(seconds=1), DAY + timedelta(hours=1)):
            clock.now = NOON + after
            ledger.vectors(SPACE, ["h1"])
            used.append(last_used(ledger, "h1"))
        assert used == [NOON, NOON] + [NOON + DAY + timedelta(seconds=1)] * 2
        assert last_used(ledger, "h2") == NOON

    def test_the_first_space_holds(self, ledger: SqlLedger) -> None:
        """A collection keeps the space of its first sync; another one asked for later is told which."""
        assert ledger.space_of("tools") is None
        assert ledger.pin_space("tools", "tools", OTHER_SPACE) == OTHER_SPACE
        assert ledger.pin_space("tools", "tools", SPACE) == OTHER_SPACE
        assert ledger.space_of("tools") == OTHER_SPACE
        assert ledger.space_of("usecases") is None

    def test_a_race_for_the_space_has_one_winner(self, ledger: SqlLedger) -> None:
        """Threads that pin different spaces at once all get the same one."""
        spaces = [Space("hash", f"model-{number}", 4) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            pinned = set(pool.map(lambda space: ledger.pin_space("tools", "tools", space), spaces))
        assert pinned == {ledger.space_of("tools")}


def last_used(ledger: SqlLedger, text_hash: str) -> datetime | None:
    query = select(embedding_cache.c.last_used_at).where(embedding_cache.c.text_hash == text_hash)
    with ledger.database.read() as connection:
        return connection.scalar(query)
