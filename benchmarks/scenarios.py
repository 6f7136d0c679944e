"""What is measured: phases in pairs of floor and vecsync, each in a process of its own, each checked at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.child import Measured, Task
from benchmarks.processes import Wrong, assert_right, embedded_so_far, kill, lose_points, measure, wrong_points
from benchmarks.workload import change_prices, change_texts, products, write_table

__all__ = ["Pair", "growth", "kept", "killed", "local_model", "lost", "partitions", "phases", "tenants"]

IN_FLIGHT = 200 * 3  # sync.batch x sync.parallel


@dataclass(frozen=True, slots=True)
class Pair:
    """One repetition of one phase. `floor` None: the floor cannot do it. `note` is what the end was found to be."""

    phase: str
    floor: Measured | None
    vecsync: Measured
    target: float | None = None
    note: str = ""


class _Tried:
    """A source table with a state of vecsync and one of the floor."""

    def __init__(self, folder: Path, source: Path, *, floor_first: bool) -> None:
        self.source = source
        self.floor, self.vecsync = folder / "floor", folder / "vecsync"
        self._floor_first = floor_first
        for state in (self.floor, self.vecsync):
            state.mkdir(parents=True)

    def task(self, runner: str, **options: object) -> Task:
        state = self.floor if runner.startswith("floor") else self.vecsync
        return replace(Task(runner, str(self.source), str(state)), **options)  # type: ignore[arg-type]

    def pair(
        self, phase: str, target: float, runner: str = "vecsync", *, floor: str = "floor", **options: object
    ) -> Pair:
        """Measure both, one after the other; alternately the one and the other first."""
        tasks = {"floor": self.task(floor), "vecsync": self.task(runner, **options)}
        order = ("floor", "vecsync") if self._floor_first else ("vecsync", "floor")
        measured = {name: measure(tasks[name]) for name in order}
        return Pair(phase, measured["floor"], measured["vecsync"], target)

    def right(self, pair: Pair, **figures: int) -> Pair:
        """Raises Wrong unless both stores equal the source, no check failed, and both have these figures."""
        for state in (self.floor, self.vecsync):
            assert_right(f"{pair.phase}, {state.name}", self.source, state)
        for one in (pair.floor, pair.vecsync):
            if one is not None and one.failed_checks:
                raise Wrong(f"{pair.phase}: {one.failed_checks}")
        for name, wanted in figures.items():
            found = [getattr(one, name) for one in (pair.floor, pair.vecsync)]
            if found != [wanted, wanted]:
                raise Wrong(f"{pair.phase}: {name} of floor and vecsync are {found}, not {wanted}")
        return replace(pair, note="right")


def phases(folder: Path, source: Path, rows: int, seed: int) -> Iterator[Pair]:
    """a to d of a table of so many rows, which they change."""
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    yield tried.right(tried.pair("a first sync", 1.3), written=rows, embedded=rows)
    nothing = {"written": 0, "embedded": 0, "payloads": 0, "deleted": 0}
    yield tried.right(tried.pair("b nothing changed", 1.5), **nothing)
    both = tried.pair("b, both read the store back", 1.5, floor="floor_read_back", verify="identity")
    yield tried.right(both, **nothing)
    yield tried.right(tried.pair("b, vecsync alone reads it back", 1.5, verify="identity"), **nothing)
    yield tried.right(tried.pair("b, incremental", 1.5, mode="incremental"), **nothing)
    changed, gone = change_texts(source, seed)
    yield tried.right(tried.pair("c texts 1 %, deleted 0.1 %", 1.5), embedded=changed, written=changed, deleted=gone)
    priced = change_prices(source, seed)
    yield tried.right(tried.pair("d prices 5 %", 1.5), embedded=0, written=0, payloads=priced, deleted=0)


def kept(folder: Path, source: Path, rows: int, seed: int) -> Iterator[Pair]:
    """A first sync beside a floor that keeps each vector on disk before it uses it, as vecsync does."""
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    pair = tried.pair("a first sync, both keep the vectors", 1.3, floor="floor_keep")
    yield tried.right(pair, written=rows, embedded=rows)


def killed(folder: Path, source: Path, rows: int, seed: int) -> Iterator[Pair]:
    """A first sync killed (SIGKILL) at half, then a clean run."""
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    for runner in ("floor", "vecsync"):
        kill(tried.task(runner, die_after=rows // 2))
    pair = tried.right(tried.pair("killed at half, clean run", 1.5))
    again = [embedded_so_far(state) - rows for state in (tried.floor, tried.vecsync)]
    if again[1] > IN_FLIGHT:
        raise Wrong(f"after the kill {again[1]} texts were embedded twice, more than the batches in flight")
    yield replace(pair, note=f"right; texts embedded twice: floor {again[0]}, vecsync {again[1]}")


def lost(folder: Path, source: Path, rows: int, seed: int) -> Iterator[Pair]:
    """1 % of the points deleted behind its back: the next run repairs it from the cache, and so does the command."""
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    tried.pair("a first sync", 1.3)
    gone = [lose_points(state, 0.01) for state in (tried.floor, tried.vecsync)]
    phase = "1 % of the points lost, next run, both read the store back"
    pair = tried.pair(phase, 1.5, floor="floor_read_back", verify="identity")
    for one, lost in zip((pair.floor, pair.vecsync), gone, strict=True):
        checks = [] if one is None else one.failed_checks
        if not any(check.startswith("identity: ") and f"{len(lost)} missing" in check for check in checks):
            raise Wrong(f"{len(lost)} points were lost, but the checks say: {checks}")
    if set(pair.vecsync.named) != gone[1]:
        raise Wrong(f"{len(gone[1])} points were lost, but the check names {len(pair.vecsync.named)}")
    short = wrong_points(source, tried.floor)
    assert_right("repaired by the run", source, tried.vecsync)
    yield replace(pair, note=f"vecsync repairs all {len(gone[1])}; the floor counts them and stays {short} short")
    gone_again = lose_points(tried.vecsync, 0.01)
    mended = measure(tried.task("repair"))
    assert_right("repaired", source, tried.vecsync)
    if mended.embedded or mended.written != len(gone_again):
        raise Wrong(f"the repair embedded {mended.embedded} and wrote {mended.written} instead of {len(gone_again)}")
    yield Pair("1 % of the points lost, repair", None, mended, None, "right, nothing embedded")


def partitions(folder: Path, tenants: int, each: int, seed: int) -> Iterator[Pair]:
    """Many small partitions in one run; the floor is one pass over the same rows, without tenants."""
    source = folder / "tenants.db"
    write_table(source, products(tenants * each, tenants))
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    tried.right(tried.pair("first", 1.3, "partitions"))
    pair = tried.pair(f"{tenants} unchanged partitions of {each}", 1.0, "partitions")
    tried.right(pair, embedded=0, written=0)
    yield replace(pair, target=None, note="right; at most 5 s" if pair.vecsync.wall_s <= 5 else "right; OVER 5 s")


def tenants(folder: Path, count: int, each: int) -> Iterator[Pair]:
    """Many tenants under Dagster: loading, ticks, and a run over all of them unchanged after a first sync."""
    source = folder / "many.db"
    write_table(source, products(count * each, count))
    tried = _Tried(folder, source, floor_first=False)
    limits = {"definitions": 2.0, "tenants_tick": 5.0, "first_sync": None, "changes_tick": 5.0, "unchanged_run": 20.0}
    rows = count * each
    right = {
        "tenants_tick": ["asked: 1"],
        "first_sync": [f"points: {rows}"],
        "changes_tick": ["asked: 0"],
        "unchanged_run": [f"points: {rows}", f"runs: {2 * count}"],
    }
    for runner, limit in limits.items():
        measured = measure(tried.task(runner))
        if measured.failed_checks != right.get(runner, measured.failed_checks):
            raise Wrong(f"{runner}: {measured.failed_checks} is not {right[runner]}")
        note = "right"
        if limit is not None:
            note += f"; at most {limit:g} s" if measured.wall_s <= limit else f"; OVER {limit:g} s"
        yield Pair(runner.replace("_", " "), None, measured, None, note)


def local_model(folder: Path, texts: int, seed: int) -> Iterator[Pair]:
    """The floor is the model alone, at its best batch size."""
    source = folder / "texts.db"
    write_table(source, products(texts))
    tried = _Tried(folder, source, floor_first=seed % 2 == 0)
    tasks = [tried.task("model"), tried.task("model_sync")]
    alone, synced = map(measure, tasks) if seed % 2 == 0 else tuple(map(measure, tasks[::-1]))[::-1]
    rates = [f"{one.embedded / one.wall_s:.0f}/s" for one in (alone, synced)]
    yield Pair(f"local model, {texts} texts", alone, synced, 1 / 0.9, f"alone {rates[0]}, in a sync {rates[1]}")


def growth(folder: Path, rows: int) -> Iterator[Pair]:
    """First sync and unchanged pass of so many products, for the plot."""
    source = folder / "growth.db"
    write_table(source, products(rows))
    tried = _Tried(folder, source, floor_first=True)
    yield tried.right(tried.pair("a first sync", 1.3), embedded=rows)
    yield tried.right(tried.pair("b nothing changed", 1.5), embedded=0)
