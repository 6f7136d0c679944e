"""The formats of an export: each writes documents, some at a time, into a file of bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, Literal

import orjson

__all__ = ["ExportFormat", "csv_cell", "writer_of"]

ExportFormat = Literal["jsonl", "csv", "parquet"]
Documents = Sequence[dict[str, Any]]
Write = Callable[[Documents], None]

# The last four are = + - @ in full width.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")
_OWN = ("entity", "type", "dbId", "tenantId", "scope", "isGlobal")


def writer_of(format_: ExportFormat, file: IO[bytes], payload_fields: Sequence[str]) -> AbstractContextManager[Write]:
    """The writer of a format; leaving its block writes what has to stand at the end."""
    match format_:
        case "jsonl":
            return _jsonl(file)
        case "csv":
            return _csv(file, (*_OWN, *payload_fields))
        case "parquet":
            return _parquet(file)


@contextmanager
def _jsonl(file: IO[bytes]) -> Iterator[Write]:
    def write(documents: Documents) -> None:
        file.write(b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in documents))

    yield write


@contextmanager
def _csv(file: IO[bytes], fields: Sequence[str]) -> Iterator[Write]:
    """One column for each key of the metadata; lists and objects are JSON, and so are true and false."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(["id", "collection", "text", *fields])

    def write(documents: Documents) -> None:
        for document in documents:
            values = (_cell(document["metadata"].get(field)) for field in fields)
            writer.writerow(map(csv_cell, [document["id"], document.get("collection"), document["text"], *values]))

    yield write
    text.detach()


def csv_cell(value: Any) -> Any:
    """The value with an apostrophe in front where a spreadsheet would run it as a formula
    (https://owasp.org/www-community/attacks/CSV_Injection)."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _cell(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, (bool, list, dict)) else value


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Write]:
    """Columns id, collection, text, and the metadata as JSON: its fields may have any type in any row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("id", "collection", "text")
    columns = [pa.field(name, pa.string(), nullable=name == "collection") for name in names]
    schema = pa.schema([*columns, pa.field("metadata", pa.string(), metadata={b"vecsync": b"json"})])
    with pq.ParquetWriter(file, schema) as parquet:

        def write(documents: Documents) -> None:
            rows = [{**document, "metadata": orjson.dumps(document["metadata"]).decode()} for document in documents]
            parquet.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))

        yield write
