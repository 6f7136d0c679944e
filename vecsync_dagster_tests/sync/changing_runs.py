"""What happens while the settings change: runs that fail or do not, looks for tenants, drops; and what holds then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions
from vecsync_dagster.sync.dropping import drop, leaving, leftovers
from vecsync_dagster.sync.options import STAGES
from vecsync_dagster_tests.sync.any_run import CALLS, ERRORS
from vecsync_dagster_tests.sync.any_run_places import COLLECTIONS, ENTITY
from vecsync_dagster_tests.sync.changing_settings import FIRMS, SETTINGS, TEXTS, Changing, KeyedDocuments
from vecsync_dagster_tests.sync.fates import Crash, Fate, Fated

__all__ = ["Runs"]

FULL = SyncOptions(mode="full", allow_removals=True)


class Runs(Changing):
    def play(self) -> None:
        for _ in range(8):
            self.change("insert")
        if self.random.random() < 0.8:
            self._run_all(FULL)
        for _ in range(self.random.randint(2, 5)):
            for _ in range(self.random.choice([0, 1, 2, 3])):
                self.change()
            if self.random.random() < 0.6:
                self._configure(self.random.sample([*SETTINGS, "id", "type", "tenancy"], self.random.choice([1, 1, 2])))
            for _ in range(self.random.choice([1, 2, 3])):
                self._do_something()
        self.put_right()

    # -- runs --------------------------------------------------------------------------------------
    def _do_something(self) -> None:
        match self.random.choice(["run", "run", "run", "all", "all", "look", "drop"]):
            case "run":
                self._run(self.random.choice([GLOBAL, *FIRMS]), self._options(), self.random.random() < 0.35)
            case "all":
                self._open()
                options = self.random.choice([FULL, SyncOptions(mode="full"), SyncOptions(mode="incremental")])
                self._run_all(options, failing=self.random.random() < 0.2)
            case "look":
                self._look()
            case _:
                self._drop_leftovers()

    def _options(self) -> SyncOptions:
        pick, chance = self.random.choice, self.random.random
        ids = [self._text(row) for row in self.rows.values()] + [str(n) for n in range(1, 8)]
        return SyncOptions(
            mode=pick(["full", "full", "incremental", None]),
            ids=tuple(self.random.sample(ids, 2)) if chance() < 0.25 else None,
            retry=chance() < 0.3,
            limit=pick([None] * 8 + [1]),
            allow_removals=chance() < 0.5,
            dry_run=chance() < 0.05,
            stages=pick([STAGES] * 6 + [("export",), STAGES[1:]]),
        )

    def _run_all(self, options: SyncOptions, *, failing: bool = False) -> None:
        """As the command line does: without tenants whose disappearance is not believed; all of them by hand."""
        tenants, lost = self.workspace.believable_tenants(ENTITY)
        if options.allow_removals:
            tenants = self.workspace.tenants(ENTITY)
        self._told(f"all: {tenants} {lost and lost.missing}")
        for selection in self.workspace.in_order(self._selection(tenant) for tenant in tenants):
            self._run(selection.tenant, options, failing)

    def _selection(self, tenant: str) -> Selection:
        return Selection(ENTITY, tenant, tuple(self.entity.collections))

    def _look(self) -> None:
        """As the tenants sensor does."""
        traces = self.workspace.traces(ENTITY) - {GLOBAL}
        roll = self.workspace.call_the_roll(ENTITY, traces)
        missing = self.workspace.look_for_missing(ENTITY, roll, traces)
        doomed = [tenant for tenant, one in missing.items() if one.confirmed(self.place.ledger.now())]
        self._told(f"look: missing {sorted(missing)}, gone {doomed}")
        for tenant in doomed:
            self._run(tenant, SyncOptions(mode="full", tenant_gone=True))

    def _drop_leftovers(self) -> None:
        for one in leftovers(self.workspace, ENTITY):
            if one.scope is None:
                self._told(f"drop {one.collection}")
                drop(self.workspace, leaving(self.workspace, one.collection))
                assert not self._points(one.collection)
                assert not self.place.ledger.documents(ENTITY, one.collection)

    def _run(self, tenant: str, options: SyncOptions, failing: bool = False) -> list[PartitionResult] | None:
        """None where it crashed, or could not begin."""
        pick = self.random.choice
        where = pick(["store", "store", "provider", "ledger", "names"]) if failing else ""
        fate = Fate(lambda: None)
        if where in CALLS:
            fate = Fate(lambda: None, CALLS[where], pick([1, 2, 3]), pick(["crash", "failure"]), pick([True, False]))
        self.paid.refused = pick("AB") if where == "names" else ""
        met = {one: lambda real, one=one: Fated(real, CALLS[one], fate, ERRORS[one][0]) for one in CALLS}
        if where in CALLS:
            self._take_part(
                met["ledger"](self.place.ledger) if where == "ledger" else self.place.ledger,
                {n: met["store"](s) if where == "store" else s for n, s in self.place.stores.items()},
                met["provider"](self.paid) if where == "provider" else self.paid,
            )
        self._told(f"run {tenant} {options} failing {where or None}")
        self.torn = self.torn or where == "store"
        before, points = self._held(followed=True), {c: self._points(c) for c in self.entity.collections}
        paid = Counter(self.paid.texts)
        results: list[PartitionResult] | None = None
        try:
            results = self.workspace.sync(self._selection(tenant), options)
        except (Crash, VecsyncError) as error:
            self._told(f"  {error!r}")
            if not failing:
                raise
        finally:
            self._take_part(self.place.ledger, self.place.stores, self.paid)
            self.paid.refused = ""
        for one in results or []:
            figures = {name: value for name, value in one.figures.as_dict().items() if value}
            self._told(f"  {one.collection} {one.mode} {one.outcome} {one.error!r} {figures} {one.note}")
        for collection, was in points.items():
            for point, payload in self._points(collection).items():
                if was.get(point) != payload:
                    self.written[collection, point] = self._now()
        lost = before - self._held(followed=False)
        assert not lost, f"live at the source, and removed: {sorted(lost)}"
        self._assert_paid(tenant, paid, unsure=where in ("ledger", "provider") or results is None)
        if results is not None and not failing:
            self._after_a_clean_run(tenant, options, results)
        return results

    def _assert_paid(self, tenant: str, before: Counter[str], *, unsure: bool) -> None:
        """Each text once, unless nobody has it any more since a tenant went, or the answer was lost on its way."""
        if unsure:
            for text in self.paid.texts - before:
                del self.paid.texts[text]
        twice = {text for text, times in self.paid.texts.items() if times > 1}
        assert not twice, f"paid again: {twice}"
        if tenant not in self._live().values():
            there = {self._text_of(c, payload) for c in COLLECTIONS for payload in self._points(c).values()}
            for text in self.paid.texts.keys() - there:
                del self.paid.texts[text]

    def _text_of(self, collection: str, payload: Mapping[str, Any]) -> str:
        said = {name: "" if payload[name] is None else payload[name] for name in ("name", "code", "unit")}
        return TEXTS[collection].format(**said).strip()

    # -- what holds --------------------------------------------------------------------------------
    def _after_a_clean_run(self, tenant: str, options: SyncOptions, results: Sequence[PartitionResult]) -> None:
        whole = not options.partial and not options.dry_run and options.stages == STAGES
        if not whole or any(one.error is not None for one in results):
            return
        live = self._live()
        mine = {price for price, owner in live.items() if owner == tenant}
        same = {price for prices in self._same_key().values() for price in prices}
        full = all(one.mode == "full" for one in results)
        if full and options.allow_removals:
            self.clashed -= mine - same
        for collection in self.entity.collections:
            points = self._points(collection)
            for price in mine - same - (set() if full else self.clashed):
                document = self._document(price, collection)
                if document is not None:
                    assert points.get(document.point_id) == dict(document.payload), (collection, price, "is not there")
            if full and options.allow_removals:
                # What a store took, and nobody heard of, may be known as a former owner's: see `put_right`.
                known = {p.point_id for page in self.place.ledger.points(ENTITY, collection, tenant) for p in page}
                theirs = {i: p for i, p in points.items() if (p["tenantId"] or GLOBAL) == tenant and i in known}
                self.written |= {(collection, point): self._now() for point in theirs}
                self._assert_owned(collection, theirs, mine, same)

    def _assert_owned(self, collection: str, points: Mapping[str, Any], mine: set[str], same: set[str]) -> None:
        """Each point is that of a record that is there, or of one that cannot be stored: of that, one at most."""
        rest = {p: self._document(p, collection) for p in mine}
        good = {document.point_id for price, document in rest.items() if document is not None and price not in same}
        bad = [price for price, document in rest.items() if document is None or price in same]
        left = [payload for point, payload in points.items() if point not in good]
        for payload in left:
            numbers = {str(self.rows[price]["id"]) for price in bad} | {*bad}
            assert numbers & {*payload["dbId"].split("/"), payload["price"]}, (collection, payload)
        assert len(left) <= len(bad), (collection, left, bad)

    def put_right(self) -> None:
        """One clean full run of each tenant; one more once all records are good; and one that has nothing to do."""
        self._open()
        self._told("at the end")
        self._run_all(FULL)
        if self.torn:
            # A record moved, the store's answer to the new owner was lost, and the type changed: the point is an orphan
            # once the former owner's run has forgotten it, and goes with the next full run of the new one.
            self._run_all(FULL)
        self._assert_exact()
        for price in sorted(self.rows):
            if self.rows[price]["name"] is None:
                self._put({**self.rows[price], "name": "A"})
        while clash := self._same_key():
            self._drop(next(iter(clash.values()))[0])
        self._open()
        self._run_all(FULL)
        self._assert_exact()
        for tenant in self.workspace.tenants(ENTITY):
            for one in self._run(tenant, FULL) or []:
                assert one.ok, one
                assert not one.figures.touched, one
        if self.mongo and self.settings["writeback"]:
            self._assert_written_back()

    def _assert_exact(self) -> None:
        live = self._live()
        one_of = {price: key for key, prices in self._same_key().items() for price in prices}
        for collection in self.entity.collections:
            points = self._points(collection)
            documents = {price: self._document(price, collection) for price in live}
            exact = {d.point_id: dict(d.payload) for p, d in documents.items() if d is not None and p not in one_of}
            others = {point: payload for point, payload in points.items() if point not in exact}
            assert {point: points.get(point) for point in exact} == exact
            bad = [price for price, document in documents.items() if document is None]
            for key in {*one_of.values()}:
                some = [d for p, d in documents.items() if d is not None and one_of.get(p) == key]
                there = [point for point, payload in others.items() if payload["dbId"] == key]
                several = list(one_of.values()).count(key)  # each may have one of former settings
                assert len(there) in range(len(some) == several, several + 1), (collection, key, there)
            allowed = len(bad) + len(one_of)
            assert len(others) <= allowed, (collection, others)
            for page in [{(p["tenantId"] or GLOBAL, p["price"]) for p in others.values()}]:
                strays = {one for one in page if one[1] in live and live[one[1]] != one[0]}
                assert not strays, (collection, strays)
            ledger = {
                p.point_id: (p.tenant, p.content_hash, p.payload_hash)
                for some_points in self.place.ledger.points(ENTITY, collection)
                for p in some_points
            }
            assert ledger == {
                point: (p["tenantId"] or GLOBAL, p["contentHash"], p["payloadHash"]) for point, p in points.items()
            }
            for document in filter(None, (d for p, d in documents.items() if p not in one_of)):
                vector = self.paid.embed_query(document.text)
                tenant = document.payload["tenantId"] or GLOBAL
                found = self.place.stores[collection].search(collection, vector, tenant, limit=30)
                assert {hit.point_id: hit.score for hit in found}[document.point_id] > 0.999, document.text

    def _assert_written_back(self) -> None:
        """Each live record says that it is synced, and where; nothing else says anything."""
        if self.off:
            for tenant in self.workspace.tenants(ENTITY):
                self.workspace.write_back(ENTITY, tenant, backfill=True)
        live, said = self._live(), {}
        for document in cast("KeyedDocuments", self.place.table).documents.find():
            told = document.get("syncMetadata")
            said[str(document["_id"])] = told and (
                told["overallStatus"],
                {name: one["contentHash"] for name, one in told["collections"].items()},
            )
        expected: dict[str, Any] = dict.fromkeys(self.rows)
        for price in live:
            made = {name: self._document(price, name) for name in self.entity.collections}
            expected[price] = ("synced", {name: one and one.content_hash for name, one in made.items()})
        assert said == expected
