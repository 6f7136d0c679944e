"""What every ledger remembers of the source, and of failed documents."""

from __future__ import annotations

from dataclasses import replace

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Listener, Seen
from vecsync_dagster.sources.base import Fingerprint
from vecsync_dagster_tests.ledger.samples import DAY, ENTITY, MINUTE, NOON, SPACE, A, B, Clock

SEEN = Seen(NOON, "settings", Fingerprint(3, 1_000_000, "12"))


class StatesContract:
    def test_what_was_seen_comes_back(self, ledger: SqlLedger) -> None:
        """Of each partition the last that was seen, with or without a fingerprint; of no other entity."""
        ledger.set_seen(*A, SEEN)
        ledger.set_seen(*B, replace(SEEN, fingerprint=None))
        ledger.set_seen("works", "works", "tenant-a", SEEN)
        later = replace(SEEN, at=NOON + MINUTE, fingerprint=Fingerprint(4))
        ledger.set_seen(*A, later)
        assert ledger.seen(ENTITY) == {A[1:]: later, B[1:]: replace(SEEN, fingerprint=None)}
        assert ledger.seen("nothing") == {}

    def test_a_doubt_stays_until_a_full_run_that_began_after_it(self, ledger: SqlLedger, clock: Clock) -> None:
        """Not one that was under way; of that partition alone, and not of one that was never seen."""
        clock.now = NOON + MINUTE
        for place in (A, B):
            ledger.set_seen(*place, SEEN)
        ledger.doubt(*A)
        ledger.doubt(ENTITY, "materials", "unknown")
        doubted = replace(SEEN, doubted_at=clock.now)
        assert ledger.seen(ENTITY) == {A[1:]: doubted, B[1:]: SEEN}
        assert (ledger.doubted(ENTITY), ledger.doubted("another")) == ({A[1:]: clock.now}, {})
        for full, at in ((True, NOON), (False, NOON + 2 * MINUTE)):
            ledger.set_seen(*A, replace(SEEN, at=at), full=full)
            assert ledger.seen(ENTITY)[A[1:]] == replace(doubted, at=at)
        last = replace(SEEN, at=NOON + MINUTE)
        ledger.set_seen(*A, last, full=True)
        assert ledger.seen(ENTITY) == {A[1:]: last, B[1:]: SEEN}

    def test_names_of_tenants_come_back(self, ledger: SqlLedger) -> None:
        """Of each tenant the last name, also where it is empty; of no other entity. Some or all can be forgotten."""
        many = {f"t{number}": f"Firm {number}" for number in range(1200)}
        ledger.set_tenant_names(ENTITY, many)
        ledger.set_tenant_names("works", {"t1": "Other"})
        ledger.set_tenant_names(ENTITY, {"t1": "Firma «Один»", "t2": ""})
        assert ledger.tenant_names(ENTITY) == {
            (ENTITY, tenant): {"t1": "Firma «Один»", "t2": ""}.get(tenant, name) for tenant, name in many.items()
        }
        assert [ledger.tenant_name(ENTITY, tenant) for tenant in ("t1", "t2", "t1200")] == ["Firma «Один»", "", ""]
        ledger.forget_tenant_names(ENTITY, [tenant for tenant in many if tenant != "t1"])
        assert ledger.tenant_names() == {(ENTITY, "t1"): "Firma «Один»", ("works", "t1"): "Other"}
        ledger.forget_tenant_names(ENTITY)
        assert ledger.tenant_names() == {("works", "t1"): "Other"}
        ledger.forget_entity("works")
        assert ledger.tenant_names() == {}

    def test_who_listens_is_known_until_they_end(self, ledger: SqlLedger, clock: Clock) -> None:
        """Of each entity who said so last, and what keeps them from hearing; also of one that died."""
        ledger.listens({ENTITY: None, "works": "SOURCE_UNAVAILABLE: away"}, NOON)
        clock.now += MINUTE
        ledger.listens({ENTITY: None}, NOON)
        ledger.listens({}, NOON)
        assert ledger.listeners() == {
            ENTITY: Listener(NOON, clock.now, None),
            "works": Listener(NOON, clock.now - MINUTE, "SOURCE_UNAVAILABLE: away"),
        }
        ledger.listens_no_more([ENTITY, "nothing"], NOON - DAY)
        assert ledger.listeners().keys() == {ENTITY, "works"}, "another process has said since that it listens"
        ledger.listens_no_more([ENTITY, "nothing"], NOON)
        assert ledger.listeners().keys() == {"works"}
        assert [ledger.forget_listeners(NOON), ledger.forget_listeners(NOON + MINUTE)] == [0, 1]
        assert ledger.listeners() == {}
        ledger.listens({"works": None}, NOON)
        ledger.forget_entity("works")
        assert ledger.listeners() == {}

    def test_a_collection_keeps_its_space_where_another_entity_has_it(self, ledger: SqlLedger) -> None:
        """What is forgotten of the entity that fed it first takes nothing from the other one."""
        for heir, left in (("works", SPACE), (None, None)):
            ledger.pin_space(ENTITY, "shared", SPACE)
            ledger.forget_collection(ENTITY, "shared", heir)
            assert ledger.space_of("shared") == left
            assert (("works", "shared") in ledger.collections()) is (heir is not None)
            ledger.forget_collection("works", "shared")

    def test_a_dropped_partition_was_never_seen(self, ledger: SqlLedger) -> None:
        """Dropping forgets what was seen of that partition alone."""
        for place in (A, B):
            ledger.set_seen(*place, SEEN)
        ledger.drop_partition(*A)
        assert ledger.seen(ENTITY) == {B[1:]: SEEN}
