"""The last export of each partition's records, as Parquet on disk.

A snapshot is what a stage reads when `export` is not selected, and what people look at in a notebook. It
appears whole or not at all: written to a temporary file of its writer's own, renamed at the end. Who writes holds the
right to sync the tenant, so what others left there is of runs that are no more, and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from vecsync_dagster.documents.validation import clean_any
from vecsync_dagster.errors import OutputUnwritable, PartitionBusy, SourceRejected
from vecsync_dagster.identity import Key, native_of
from vecsync_dagster.private import private_file, private_folder
from vecsync_dagster.sources.base import Cursor, Page
from vecsync_dagster.unreadable import json_or_reason, pylist

if TYPE_CHECKING:
    import pandas as pd  # half a second of every command's start

__all__ = ["Snapshot", "SnapshotWriter", "Snapshots"]

_META = b"vecsync"
_OF_WRITER = "+"
"""Behind a snapshot's name in those of the files that it is written to; no quoted name has it."""
_OF_EARLIER_VERSIONS = (".part", ".old")
_JSON = {b"vecsync": b"json"}
_PLAIN_KEY = re.compile(r"[a-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot's file says of itself. `complete`: it holds every live row of the tenant. `tombstones`: each with
    the number of rows that came before it. `since`: where its read began; `made_by`: the run; `settings`: those it was
    read by (both empty in a file of an earlier version)."""

    complete: bool
    cursor: Cursor | None
    tombstones: tuple[tuple[int, str], ...]
    rows: int
    since: Cursor | None = None
    made_by: str = ""
    settings: str = ""


class Snapshots:
    """Snapshots of all entities below one folder: `<entity>/<tenant>.parquet`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, entity: str, tenant: str) -> Path:
        # Two keys never share a file, on no file system: some ignore letter case, all limit a name's length.
        name = tenant
        if not _PLAIN_KEY.fullmatch(tenant):
            name = f"{quote(tenant, safe='')[:100]}-{hashlib.sha256(tenant.encode()).hexdigest()[:16]}"
        return self.folder / entity / f"{name}.parquet"

    def writer(
        self,
        entity: str,
        tenant: str,
        *,
        complete: bool,
        since: Cursor | None = None,
        made_by: str = "",
        settings: str = "",
    ) -> SnapshotWriter:
        about = Snapshot(complete, None, (), 0, since, made_by, settings)
        return SnapshotWriter(self.path(entity, tenant), about)

    def last_written(self, entity: str) -> datetime | None:
        """When the last snapshot of one of its tenants appeared here. Raises OutputUnwritable."""
        times = []
        for file in self._files(entity):
            with contextlib.suppress(FileNotFoundError):  # its tenant is being forgotten
                times.append(file.stat().st_mtime)
        return datetime.fromtimestamp(max(times), UTC) if times else None

    def describe(self, entity: str, tenant: str) -> Snapshot:
        """Raises SourceRejected where there is no snapshot."""
        with self._open(entity, tenant) as file:
            return _snapshot(file)

    def pages(self, entity: str, tenant: str, page: int, *, made_by: str | None = None) -> Iterator[Page]:
        """The snapshot as pages, in memory of one: rows and tombstones in the order in which they were read. Raises
        SourceRejected where there is none, PartitionBusy where it is not that of the run `made_by`."""
        with self._open(entity, tenant) as file:
            told = _snapshot(file)
            if made_by is not None and made_by != told.made_by:
                raise PartitionBusy(
                    f"the snapshot of {entity} for tenant {tenant} was replaced by another run: run this one again",
                    entity=entity,
                    tenant=tenant,
                )
            batches = _sound(file.iter_batches(batch_size=page), self.path(entity, tenant))
            yield from _in_order(batches, file.schema_arrow, told)

    def frame(self, entity: str, tenant: str) -> pd.DataFrame:
        """The snapshot's records as a DataFrame. Raises SourceRejected where there is none."""
        with self._open(entity, tenant) as file:
            batches = list(_sound(file.iter_batches(), self.path(entity, tenant)))
            frame: pd.DataFrame = pa.Table.from_batches(batches, file.schema_arrow).to_pandas()
            return frame

    def of(self, entity: str, tenants: Iterable[str]) -> set[str]:
        """Those of these tenants that have a snapshot, or what a killed run left of one. Raises OutputUnwritable."""
        names = {file.stem.partition(_OF_WRITER)[0] for file in self._files(entity)}
        return {tenant for tenant in tenants if self.path(entity, tenant).stem in names} if names else set()

    def _files(self, entity: str) -> list[Path]:
        folder = self.folder / entity
        try:
            return list(folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise OutputUnwritable(f"the snapshots {folder} cannot be read: {reason}", path=str(folder)) from error

    def drop(self, entity: str, tenant: str | None = None) -> None:
        """The snapshot of a tenant, None: of all, with what a killed run left of one. Raises OutputUnwritable."""
        folder = self.folder / entity
        with _writable(folder):
            if tenant is None:
                shutil.rmtree(folder, ignore_errors=not folder.exists())
                return
            path = self.path(entity, tenant)
            for file in (path, *_remains(path)):
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self, entity: str, tenant: str) -> Iterator[pq.ParquetFile]:
        path = self.path(entity, tenant)
        if not path.exists():
            raise SourceRejected(
                f"no snapshot of {entity} for tenant {tenant}: run its export first", entity=entity, tenant=tenant
            )
        try:
            # Files of earlier versions have no checksums, and are read as they are.
            file = pq.ParquetFile(path, page_checksum_verification=True)
        except pa.ArrowInvalid as error:
            raise _damaged(path) from error
        with file:
            yield file


class SnapshotWriter:
    """Writes pages as they come. Leaving the `with` block without an error publishes the file."""

    def __init__(self, path: Path, about: Snapshot) -> None:
        self._path = path
        own = f"{path.stem}{_OF_WRITER}{uuid.uuid4().hex}"
        self._part = path.with_name(f"{own}.part")
        self._old = path.with_name(f"{own}.old")
        self._about = about
        self._writer: pq.ParquetWriter | None = None
        self._tombstones: list[tuple[int, str]] = []
        self._cursor: Cursor | None = None
        self._rows = 0

    def write(self, page: Page) -> None:
        """Raises OutputUnwritable where the folder cannot be written or the disk is full."""
        self._rows += page.records.num_rows
        self._tombstones += [(self._rows, key) for key in page.tombstones]
        self._cursor = page.cursor or self._cursor
        if page.records.num_columns:
            with _writable(self._path):
                self._append(page.records)

    def __enter__(self) -> SnapshotWriter:
        with _writable(self._path):
            private_folder(self._path.parent)
            for file in _remains(self._path):
                file.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _writable(self._path):
            try:
                if kind is None:
                    self._publish()
                elif self._writer is not None:
                    self._writer.close()
            finally:
                self._part.unlink(missing_ok=True)
                self._old.unlink(missing_ok=True)

    def _publish(self) -> None:
        writer = self._writer or _parquet(self._part, pa.schema([]))
        writer.add_key_value_metadata({_META: self._metadata()})
        writer.close()
        self._part.replace(self._path)

    def _metadata(self) -> str:
        about = asdict(replace(self._about, cursor=self._cursor, rows=self._rows))
        return json.dumps({**about, "tombstones": [[key, native_of(key), at] for at, key in self._tombstones]})

    def _append(self, records: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = _parquet(self._part, records.schema)
        schema = _common(self._writer.schema, records.schema)
        if [_kind(field) for field in schema] != [_kind(field) for field in self._writer.schema]:
            self._rewrite(schema)
        self._writer.write_batch(_as(records, schema))

    def _rewrite(self, schema: pa.Schema) -> None:
        assert self._writer is not None  # noqa: S101 (only called once something was written)
        self._writer.close()
        self._part.replace(self._old)
        self._writer = _parquet(self._part, schema)
        with pq.ParquetFile(self._old) as file:
            for records in file.iter_batches():
                self._writer.write_batch(_as(records, schema))
        self._old.unlink()


def _remains(path: Path) -> list[Path]:
    """What writers of this snapshot that did not come to their end left of it."""
    names = path.stem + _OF_WRITER
    left = [file for file in path.parent.iterdir() if file.name.startswith(names)] if path.parent.exists() else []
    return [*left, *(path.with_suffix(suffix) for suffix in _OF_EARLIER_VERSIONS)]


def _sound(batches: Iterator[pa.RecordBatch], path: Path) -> Iterator[pa.RecordBatch]:
    """The same; a page that is not what was written is the snapshot's error."""
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        raise _damaged(path) from error


def _damaged(path: Path) -> SourceRejected:
    return SourceRejected(f"the snapshot {path} is damaged: run its export again", path=str(path))


def _in_order(batches: Iterable[pa.RecordBatch], schema: pa.Schema, told: Snapshot) -> Iterator[Page]:
    places = groupby(told.tombstones, itemgetter(0))
    dead = deque((place, tuple(key for _, key in some)) for place, some in places)
    at = 0
    for batch in batches:
        records, end = batch, at + batch.num_rows
        while dead and dead[0][0] <= end:
            place, keys = dead.popleft()
            yield Page(records.slice(0, place - at), keys, told.cursor)
            records, at = records.slice(place - at), place
        if records.num_rows:
            yield Page(records, cursor=told.cursor)
        at = end
    for _, keys in dead:
        yield Page(pa.RecordBatch.from_pylist([], schema=schema), keys, told.cursor)


def _parquet(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    private_file(path)
    return pq.ParquetWriter(path, schema, write_page_checksum=True)


def _common(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The schema that holds batches of both. A column whose type changes from batch to batch (SQLite) becomes
    text that holds JSON: in it every value stays what it was, so that a run over the snapshot decides as one
    over the source."""
    fields = []
    for field in old:
        other = new.field(field.name)
        if pa.types.is_null(field.type) or _kind(field) == _kind(other):
            fields.append(other)
        else:
            keep = pa.types.is_null(other.type)
            fields.append(field if keep else pa.field(field.name, pa.string(), metadata=_JSON))
    return pa.schema(fields)


def _as(records: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = records.column(field.name)
        if _kind(records.schema.field(field.name)) != _kind(field):
            values = _to_json(values) if _is_json(field) else values.cast(field.type)
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_json(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"vecsync") == b"json"


def _kind(field: pa.Field) -> tuple[pa.DataType, bool]:
    return field.type, _is_json(field)


def _to_json(values: pa.Array) -> pa.Array:
    return json_or_reason(pylist(values), lambda value: json.dumps(value, ensure_ascii=False, default=clean_any))


def _snapshot(file: pq.ParquetFile) -> Snapshot:
    told = json.loads(file.metadata.metadata[_META])
    cursors = {name: Cursor(**told[name]) if told.get(name) else None for name in ("cursor", "since")}
    dead = tuple(_tombstone(one, told["rows"]) for one in told["tombstones"])
    return Snapshot(**{**told, **cursors, "tombstones": dead})


def _tombstone(told: str | list[Any], rows: int) -> tuple[int, Key]:
    """Earlier versions kept the text alone, and later the key without its place: they come last."""
    text, native, at = (told, None, rows) if isinstance(told, str) else (*told, rows)[:3]
    return at, Key(text, native)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(
            f"the snapshot {path} cannot be written: {error.strerror or type(error).__name__}", path=str(path)
        ) from error
