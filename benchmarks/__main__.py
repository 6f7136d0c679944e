"""`python -m benchmarks`: runs everything, prints one table, writes the plot."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.plot import svg
from benchmarks.replay import replay
from benchmarks.scenarios import Pair, growth, kept, killed, local_model, lost, partitions, phases, tenants
from benchmarks.table import markdown
from benchmarks.workload import WORKS, Row, products, works, write_table
from vecsync_dagster_tests.replay import DATA

PLOT = Path(__file__).parent / "growth.svg"
NAMES = ("products", "large-products", "works", "partitions", "tenants", "model", "growth", "replay")


def main() -> None:
    arguments = _arguments()
    chosen = arguments.only or NAMES
    results: dict[str, list[list[Pair]]] = {}
    for name in chosen:
        repetitions = 1 if arguments.quick else arguments.repetitions
        for number in range(1 if name == "growth" else repetitions):
            print(f"{name}: repetition {number + 1}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="vecsync-benchmark-") as folder:
                measured = list(_measured(name, Path(folder), number, arguments))
            if not measured:
                print(f"{name}: left out, its data is not there (see benchmarks/README.md)", file=sys.stderr)
                break
            for workload, pairs in measured:
                results.setdefault(workload, []).append(pairs)
    text = f"{_machine()}\n\n{markdown(results)}"
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    if "growth" in chosen and not arguments.quick:
        PLOT.write_text(_plot(results), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="vecsync beside its floor")
    parser.add_argument("--quick", action="store_true", help="small tables, once: only to see that all of it runs")
    parser.add_argument("--large", action="store_true", help="also 1,000,000 records (growth)")
    parser.add_argument("--only", action="append", choices=NAMES, help="only this; may be given several times")
    parser.add_argument("--repetitions", type=int, default=5, help="of everything but growth (default 5)")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    return parser.parse_args()


def _measured(name: str, folder: Path, seed: int, arguments: argparse.Namespace) -> Iterator[tuple[str, list[Pair]]]:
    quick = arguments.quick
    if name == "products":
        yield from _table(folder, seed, list(products(2_000 if quick else 20_000)))
    elif name == "large-products":
        yield from _table(folder, seed, list(products(4_000 if quick else 109_253)))
    elif name == "works" and WORKS.exists():
        yield from _table(folder, seed, list(works()), "works, ")
    elif name == "partitions":
        count = 20 if quick else 200
        yield f"{count * 100:,} products", list(partitions(folder, count, 100, seed))
    elif name == "tenants":
        count = 50 if quick else 1_000
        yield f"{count:,} tenants of 10", list(tenants(folder, count, 10))
    elif name == "model":
        yield "products", list(local_model(folder, 64 if quick else 300, seed))
    elif name == "replay" and DATA.exists():
        yield "software, 12 months", list(replay(folder, seed, months=2 if quick else 11))
    elif name == "growth":
        for rows in _sizes(arguments):
            (folder / str(rows)).mkdir()
            yield f"growth, {rows:,} products", list(growth(folder / str(rows), rows))


def _sizes(arguments: argparse.Namespace) -> list[int]:
    if arguments.quick:
        return [1_000, 2_000]
    return [10_000, 100_000] + ([1_000_000] if arguments.large else [])


def _table(folder: Path, seed: int, rows: Sequence[Row], kind: str = "products, ") -> Iterator[tuple[str, list[Pair]]]:
    pairs: list[Pair] = []
    for scenario in (killed, lost, kept, phases):
        source = folder / f"{scenario.__name__}.db"
        write_table(source, rows)
        pairs += scenario(folder / scenario.__name__, source, len(rows), seed)
    yield f"{kind}{len(rows):,}", pairs


def _plot(results: dict[str, list[list[Pair]]]) -> str:
    seconds: dict[str, list[tuple[float, float]]] = {}
    memory: dict[str, list[tuple[float, float]]] = {}
    for workload, [pairs, *_] in results.items():
        if workload.startswith("growth"):
            for pair in pairs:
                for who, one in (("vecsync", pair.vecsync), ("floor", pair.floor)):
                    if one is not None:
                        records = float(pair.vecsync.fetched)
                        seconds.setdefault(f"{who}: {pair.phase}", []).append((records, one.wall_s))
                        memory.setdefault(f"{who}: {pair.phase}", []).append((records, one.peak_mib))
    return svg({"seconds over records": seconds, "peak MiB over records": memory})


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    system = f"Python {platform.python_version()}, {platform.system()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {system}"


if __name__ == "__main__":
    main()
