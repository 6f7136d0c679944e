"""The source tables that are synced, and what happens to them between phases. Deterministic."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

__all__ = ["WORKS", "change_prices", "change_texts", "products", "rows_of", "works", "write_table"]

Row = tuple[int | str, str, str | None, str | None, float, str, str, str]
"""id, name, category, description, price, sku, updated_at, tenant_id"""

WORKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "works.jsonl.gz"

_COLUMNS = "id, name, category, description, price, sku, updated_at, tenant_id"
_FIRST = datetime(2024, 1, 1)  # noqa: DTZ001 (the table keeps times without a zone, as many do)
_LATER = datetime(2025, 6, 1)  # noqa: DTZ001
_WORDS = """
ocelový nerezový dřevěný hliníkový plastový pružný tichý úsporný profesionální venkovní přenosný skladem šroub
kladivo čerpadlo trubka ventil izolace zateplení kabel svítidlo dveře okno střecha podlaha obklad стальной
алюминиевый деревянный прочный бесшумный переносной наружный влагостойкий экономичный удобный насос кирпич
утеплитель краска шпатлёвка герметик крепёж плитка кабель светильник дверь окно труба клапан heavy light durable
waterproof cordless quiet adjustable compact outdoor certified professional replacement drill hammer pump valve
bracket sealant insulation cable lamp door window roof floor tile hinge screw
""".split()  # noqa: SIM905 (a word a line would be a page)
_CATEGORIES = ("Nářadí", "Stavebniny", "Osvětlení", "Инструменты", "Отделка", "Сантехника", "Fasteners", "Garden")


def products(count: int, tenants: int = 0) -> Iterator[Row]:
    """Products with texts of 100 to 150 characters, all different; `tenants` > 0: dealt to that many in turn."""
    rng = random.Random(384)
    for number in range(1, count + 1):
        words = rng.choices(_WORDS, k=13)
        yield (
            number,
            f"{words[0]} {words[1]} {number}",
            rng.choice(_CATEGORIES),
            " ".join(words[2:]),
            round(rng.uniform(1, 5000), 2),
            f"SKU-{number:07}",
            (_FIRST + timedelta(seconds=number)).isoformat(),
            f"tenant-{number % tenants:03}" if tenants else "",
        )


def works() -> Iterator[Row]:
    """The construction works of a real export, as one table without tenants."""
    with gzip.open(WORKS, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            work = {key: " ".join(v.split()) if isinstance(v, str) else v for key, v in json.loads(line).items()}
            stamp = (_FIRST + timedelta(seconds=number)).isoformat()
            yield (
                work["id"],
                work["name"],
                work["category"],
                work["unit"],
                float(number),
                work["code"] or "",
                stamp,
                "",
            )


def write_table(path: Path, rows: Iterable[Row]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        first = next(iterator := iter(rows))
        kind = "INTEGER" if isinstance(first[0], int) else "TEXT"
        connection.execute(
            f"CREATE TABLE records (id {kind} PRIMARY KEY, name TEXT, category TEXT, description TEXT, price REAL, "
            "sku TEXT, updated_at TEXT, tenant_id TEXT)"
        )
        insert = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        connection.execute(insert, first)
        while some := list(islice(iterator, 10_000)):
            connection.executemany(insert, some)
        connection.execute("CREATE INDEX records_tenant ON records (tenant_id)")


def rows_of(path: Path) -> Iterator[Row]:
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.execute(f"SELECT {_COLUMNS} FROM records ORDER BY id")


def change_texts(path: Path, seed: int) -> tuple[int, int]:
    """1 % of the texts change, of these 5 % under a time older than before, and 0.1 % of the rows go.

    Returns how many changed and how many went.
    """
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection, connection:
        ids = [i for (i,) in connection.execute("SELECT id FROM records ORDER BY id")]
        changed, gone = max(1, len(ids) // 100), max(1, len(ids) // 1000)
        chosen = rng.sample(ids, changed + gone)
        stamps = [(_FIRST if n < changed // 20 else _LATER) + timedelta(seconds=seed) for n in range(changed)]
        connection.executemany(
            "UPDATE records SET name = name || ' neu', updated_at = ? WHERE id = ?",
            [(stamp.isoformat(), i) for stamp, i in zip(stamps, chosen[:changed], strict=True)],
        )
        connection.executemany("DELETE FROM records WHERE id = ?", [(i,) for i in chosen[changed:]])
    return changed, gone


def change_prices(path: Path, seed: int) -> int:
    """The price changes on 5 % of the rows. Returns on how many."""
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection, connection:
        ids = [i for (i,) in connection.execute("SELECT id FROM records ORDER BY id")]
        chosen = rng.sample(ids, max(1, len(ids) // 20))
        stamp = (_LATER + timedelta(days=1)).isoformat()
        connection.executemany(
            "UPDATE records SET price = price + 1, updated_at = ? WHERE id = ?", [(stamp, i) for i in chosen]
        )
    return len(chosen)
