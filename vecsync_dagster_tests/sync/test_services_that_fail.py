"""Provider, ledger and source fail in every way they can, in the middle of a run with all kinds of work.

After each: an error with its code, nothing removed or reported that is not so, and one clean run makes
everything right without paying for a text twice (beyond the batch in flight where an answer was lost).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import pytest

from vecsync_dagster.errors import LedgerUnavailable
from vecsync_dagster.sync import SyncOptions
from vecsync_dagster_tests.fakes.openai_server import Fault
from vecsync_dagster_tests.sync.failing_services import BATCH, MANY, Services, befall, codes
from vecsync_dagster_tests.world import ENTITY

pytestmark = pytest.mark.usefixtures("no_waiting")


# -- the provider --------------------------------------------------------------------------------------
class Case(NamedTuple):
    fault: Fault
    code: str


CASES = [
    Case("rate_limit", "EMBEDDING_RATE_LIMIT"),
    Case("server_error", "EMBEDDING_UNAVAILABLE"),
    Case("unavailable", "EMBEDDING_UNAVAILABLE"),
    Case("hang", "EMBEDDING_TIMEOUT"),
    Case("cut", "EMBEDDING_UNAVAILABLE"),
    Case("too_few", "EMBEDDING_UNAVAILABLE"),
    Case("nan", "EMBEDDING_UNAVAILABLE"),
    Case("wrong_size", "EMBEDDING_UNAVAILABLE"),
    Case("quota", "EMBEDDING_MISCONFIGURED"),
]


@pytest.mark.in_turn
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_the_provider_fails(services: Services, case: Case) -> None:
    """The run fails with the provider's code, its rows too; the payloads were written all the same, and what was
    answered before is not asked for again."""
    services.work()
    services.provider.fail(None)  # the first batch goes through
    services.provider.fail(case.fault, times=MANY)
    with services.world.impatient("provider") if case.fault == "hang" else nullcontext():
        result = services.sync()
    services.provider.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == case.code
    assert codes(services) == {case.code}
    assert result.figures.upserted <= BATCH
    services.assert_right_after_one_clean_run()


@pytest.mark.in_turn
@pytest.mark.parametrize("fault", ["server_error", "cut", "nan"])
def test_the_provider_fails_once(services: Services, fault: Fault) -> None:
    """What passes at the second attempt is no failure at all."""
    services.work()
    services.provider.fail(fault)
    assert services.sync().ok
    services.assert_right_after_one_clean_run()


def test_the_provider_answers_out_of_order(services: Services) -> None:
    """Vectors that come in another order than the texts still end at their own texts."""
    services.work()
    services.provider.fail("out_of_order", times=MANY)
    assert services.sync().ok
    services.assert_right_after_one_clean_run()
    with services.world.workspace() as workspace:
        provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
        for n in (11, 15, 101, 125):
            name = f"иначе {n}" if n < 100 else f"Работа {n}"
            [best] = workspace.store("main").search(ENTITY, provider.embed_query(f"{name} шт"), "acme", limit=1)
            assert best.payload["dbId"] == str(n)


# -- the ledger's database -----------------------------------------------------------------------------
MOMENTS = [
    ("store", "upsert", 2),
    ("store", "set_payload", 1),
    ("store", "delete", 1),
    ("ledger", "keep_vectors", 1),
    ("ledger", "confirm", 1),
    ("ledger", "recognise", 1),
    ("ledger", "forget", 1),
    ("ledger", "rows", 1),
]


def sync_with(services: Services, moment: tuple[str, str, int], event: Callable[[], None]) -> None:
    """A full run in which something happens after the nth call of a method of the store or of the ledger."""
    owner, method, nth = moment
    with services.world.workspace() as workspace:
        [selection] = workspace.select([ENTITY], ["acme"])
        called = workspace.store("main") if owner == "store" else workspace.ledger
        befall(called, method, event, nth=nth, after=True)
        workspace.sync(selection, SyncOptions(mode="full"))


@pytest.mark.in_turn
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_the_ledger_goes_away(services: Services, moment: tuple[str, str, int]) -> None:
    """The run fails with LEDGER_UNAVAILABLE. Nothing is lost and one batch at most is paid for again."""
    services.work()
    with pytest.raises(LedgerUnavailable) as caught:
        sync_with(services, moment, services.ledger.go)
    services.ledger.come_back()
    assert caught.value.code == "LEDGER_UNAVAILABLE"
    services.assert_right_after_one_clean_run(lost=BATCH)


@pytest.mark.parametrize("moment", [MOMENTS[n] for n in (0, 4, 7)], ids=lambda moment: "-".join(map(str, moment)))
def test_the_ledgers_server_restarts(remote: Services, moment: tuple[str, str, int]) -> None:
    """Back at once, and yet the run fails: its hold on the partition was lost with its connections. The next full run
    looks at all of it again."""
    remote.work()

    def restart() -> None:
        remote.ledger.go()
        remote.ledger.come_back()

    with pytest.raises(LedgerUnavailable):
        sync_with(remote, moment, restart)
    with remote.world.workspace() as workspace:
        assert workspace.ledger.unfinished(ENTITY, ENTITY, "acme")
    remote.assert_right_after_one_clean_run(lost=BATCH)


def test_a_ledger_file_that_is_free_again_in_time_is_waited_for(
    local: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's lock delays a run, as long as it is shorter than the time-out; the run is a good one."""
    monkeypatch.setenv("LEDGER_URL", f"{local.ledger_url}?timeout=60")
    local.work()
    frees: list[threading.Timer] = []

    def lock_for_a_while() -> None:
        local.ledger.go()
        frees.append(threading.Timer(0.3, local.ledger.come_back))
        frees[0].start()

    sync_with(local, ("store", "upsert", 2), lock_for_a_while)
    frees[0].join()
    local.assert_right_after_one_clean_run()


def test_the_source_goes_away(remote: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that cannot be reached is a failed partition with its code, and nothing is removed."""
    remote.work()
    right = os.environ["SOURCE_URL"]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens: connections are refused
        monkeypatch.setenv("SOURCE_URL", f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d")
        result = remote.sync()
    monkeypatch.setenv("SOURCE_URL", right)
    assert result.error is not None
    assert result.error.code == "SOURCE_UNAVAILABLE"
    assert len(remote.world.stored()) == 40
    remote.assert_right_after_one_clean_run()
