"""`vecsync export` and `vecsync tenants`: what the source has, in pages and formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vecsync_dagster_tests.cli.program import HOUSES, MORAVA, change_rows, replace_in_config, tree, vecsync


def exported(config: Path, *arguments: str) -> list[dict[str, Any]]:
    ran = vecsync("export", *arguments, "--config", config)
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def test_an_export_has_every_valid_document(fresh: Path) -> None:
    """All documents of all entities and tenants, each with id, text and metadata; nothing is synced for it."""
    before = tree(fresh.parent)
    documents = exported(fresh)
    assert len(documents) == len({d["id"] for d in documents}) == 272
    assert all(set(d) == {"id", "text", "metadata"} for d in documents)
    wanted = {"tenantId", "type", "dbId", "unit", "isGlobal", "scope"}
    assert all(wanted <= d["metadata"].keys() for d in documents)
    assert not {"contentHash", "payloadHash", "id"} & documents[0]["metadata"].keys()
    assert tree(fresh.parent) == before


@pytest.mark.parametrize(
    ("arguments", "scopes", "tenants", "count"),
    [
        (["--entity", "materials"], {"global", "tenant"}, 4, 155),
        (["--entity", "works", "--scope", "global"], {"global"}, 1, 69),
        (["--scope", "tenant"], {"tenant"}, 3, 115),
        (["--tenant", MORAVA], {"tenant"}, 1, 38),
        (["--tenant", "global"], {"global"}, 1, 157),
    ],
)
def test_scope_tenant_and_entity(fresh: Path, arguments: list[str], scopes: set[str], tenants: int, count: int) -> None:
    """An export is of one scope, tenant and entity, or of all."""
    metadata = [d["metadata"] for d in exported(fresh, *arguments)]
    assert len(metadata) == count
    assert {m["scope"] for m in metadata} == scopes
    assert len({m["tenantId"] for m in metadata}) == tenants


def test_pages_put_together_are_the_whole(fresh: Path) -> None:
    """limit and offset cut stable pages, across tenants and entities."""
    whole = [d["id"] for d in exported(fresh)]
    pages = [[d["id"] for d in exported(fresh, "--limit", "90", "--offset", str(n))] for n in range(0, 360, 90)]
    assert [len(page) for page in pages] == [90, 90, 90, 2]
    assert [identity for page in pages for identity in page] == whole


def test_csv_and_parquet_hold_the_same(fresh: Path, tmp_path: Path) -> None:
    """All three formats hold the same documents."""
    documents = exported(fresh)
    table, parquet = tmp_path / "out.csv", tmp_path / "out.parquet"
    assert vecsync("export", "--format", "csv", "--output", table, "--config", fresh).code == 0
    assert vecsync("export", "--format", "parquet", "--output", parquet, "--config", fresh).code == 0
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["name"]) for row in rows] == [
        (d["id"], d["text"], d["metadata"]["name"]) for d in documents
    ]
    read = pq.read_table(parquet).to_pylist()
    assert [{**r, "metadata": json.loads(r["metadata"])} for r in read] == [
        {**d, "collection": None} for d in documents
    ]


def test_a_document_of_several_collections_says_which(fresh: Path) -> None:
    """Where an entity feeds several collections a document names its own, and --collection picks one."""
    replace_in_config(
        fresh,
        '        text: "{name} {category} {unit}"\n',
        '        text: "{name} {category} {unit}"\n'
        '      phases:\n        text: "{phase} {section}"\n        payload: [phase]\n'
        '      names:\n        text: "{name}"\n',
    )
    text = fresh.read_text(encoding="utf-8")
    fresh.write_text(
        text.replace('        text: "{name}"\n        payload:', '        text: "{name}"\n#'), encoding="utf-8"
    )
    documents = exported(fresh, "--entity", "works", "--scope", "global")
    assert {d["collection"] for d in documents} == {"works", "phases", "names"}
    assert "collection" not in exported(fresh, "--collection", "phases", "--limit", "1")[0]


def test_a_failed_export_leaves_no_file(fresh: Path, tmp_path: Path) -> None:
    """A file appears whole or not at all; what was there before stays."""
    change_rows(fresh.parent, "DROP TABLE works")
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    others = set(tmp_path.iterdir())
    ran = vecsync("export", "--output", output, "--config", fresh)
    assert ran.code == 1
    assert "SOURCE_ERROR" in ran.err
    assert output.read_text() == "before"
    assert set(tmp_path.iterdir()) == others


def test_an_output_that_cannot_be_written_is_one_line(fresh: Path, tmp_path: Path) -> None:
    """A folder that is not there is an error that names the file."""
    ran = vecsync("export", "--output", tmp_path / "no" / "out.jsonl", "--config", fresh)
    assert ran.code == 1
    assert ran.err.startswith("error: OUTPUT_UNWRITABLE: ")


@pytest.mark.parametrize("arguments", [["--format", "parquet"], ["--scope", "global", "--tenant", MORAVA]])
def test_wrong_usage(fresh: Path, arguments: list[str]) -> None:
    """Parquet on a terminal, and a tenant's global records, make no sense."""
    assert vecsync("export", *arguments, "--config", fresh).code == 2


def test_tenants_are_listed_with_their_records(fresh: Path) -> None:
    """Every tenant of every entity, with the number of its records in the source."""
    listed = vecsync("tenants", "--json", "--config", fresh).json
    records = {row["tenant"]: row["records"] for row in listed["tenants"]}
    assert listed["count"] == len(records) == 4
    assert records["global"] == {"materials": 89, "works": 69}
    assert records[HOUSES] == {"materials": 28, "works": 20}
    assert HOUSES in vecsync("tenants", "--entity", "works", "--config", fresh).out
