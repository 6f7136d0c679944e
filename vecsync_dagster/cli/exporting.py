"""Documents straight from the source, streamed into a file or to stdout in memory of one page."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vecsync_dagster.cli import output
from vecsync_dagster.cli.formats import ExportFormat, writer_of
from vecsync_dagster.cli.running import Wanted, wanted_entities
from vecsync_dagster.cli.tenants import require_tenant
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import Document, DocumentBatch, DocumentBuilder
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.private import user_umask
from vecsync_dagster.sources.base import Read
from vecsync_dagster.stores.base import CONTENT_HASH, DOCUMENT_ID, GLOBAL, PAYLOAD_HASH
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.absence import is_ruled_out

__all__ = ["Export", "write_export"]

_NOT_METADATA = {DOCUMENT_ID, CONTENT_HASH, PAYLOAD_HASH}
_CHUNK = 500


class Export:
    """What is to be exported; `rejected` counts the records on the way that were not valid.

    Raises NotFound for names that do not exist.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        entity: str | None = None,
        collection: str | None = None,
        scope: Literal["global", "tenant"] | None = None,
        tenant: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> None:
        self.rejected = 0
        self._workspace = workspace
        self._scope = scope
        self._tenant = tenant
        self._bounds = (offset, None if limit is None else offset + limit)
        wanted = wanted_entities(workspace, Wanted(entity=entity, collection=collection))
        known = (one for name in wanted for one in workspace.source(name).tenants())
        require_tenant(workspace, tenant, known, f"the source of {', '.join(wanted)}")
        self._collections = {
            name: [c for c in workspace.entity(name).collections if collection in (None, c)] for name in wanted
        }

    @property
    def payload_fields(self) -> list[str]:
        """Every configured payload field of the documents, each once."""
        return list(
            dict.fromkeys(
                field
                for name, collections in self._collections.items()
                for collection in collections
                for field in self._workspace.entity(name).collections[collection].payload
            )
        )

    @property
    def names_collections(self) -> bool:
        """Whether documents say which collection they are of."""
        return any(len(collections) > 1 for collections in self._collections.values())

    @contextmanager
    def documents(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Each document as {id, text, metadata}, in a stable order. Raises the source's errors."""
        # Closed here and now, not by the garbage collector: the source holds a connection open.
        with closing(self._documents()) as documents:
            yield islice(documents, *self._bounds)

    def _documents(self) -> Generator[dict[str, Any], None, None]:
        for name, collections in self._collections.items():
            source, entity = self._workspace.source(name), self._workspace.entity(name)
            for tenant in self._tenants(name, entity):
                builder = DocumentBuilder(name, entity, tenant, collections)
                for page in source.read(Read(tenant), self._workspace.config.sync.page):
                    yield from self._page(builder.build(page.records))

    def _page(self, batches: dict[str, DocumentBatch]) -> Iterator[dict[str, Any]]:
        self.rejected += len({id(r.record) for batch in batches.values() for r in batch.rejections})
        for collection, batch in batches.items():
            for document in batch.documents:
                yield _as_dict(document, collection if self.names_collections else None)

    def _tenants(self, name: str, entity: EntityConfig) -> Sequence[str]:
        if self._tenant is not None:
            return [self._tenant]
        shared = [] if is_ruled_out(entity, GLOBAL) else [GLOBAL]
        own = [] if self._scope == "global" else [t for t in self._workspace.source(name).tenants() if t != GLOBAL]
        return own if self._scope == "tenant" else [*shared, *own]


def write_export(export: Export, format_: ExportFormat, path: Path | None) -> int:
    """Write every document, to stdout where `path` is None; returns how many. Raises OutputUnwritable."""
    count = 0
    with (
        _destination(path) as file,
        writer_of(format_, file, export.payload_fields) as write,
        export.documents() as documents,
        _counter(path) as tell,
    ):
        while chunk := list(islice(documents, _CHUNK)):
            write(chunk)
            count += len(chunk)
            tell(count)
    return count


def _as_dict(document: Document, collection: str | None) -> dict[str, Any]:
    metadata = {key: value for key, value in document.payload.items() if key not in _NOT_METADATA}
    place = {} if collection is None else {"collection": collection}
    return {"id": document.document_id, **place, "text": document.text, "metadata": metadata}


@contextmanager
def _destination(path: Path | None) -> Iterator[IO[bytes]]:
    """stdout, or a file that appears whole under its name when the block ends without an error."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            draft = Path(file.name)
            yield file
        draft.chmod(0o666 & ~user_umask())
        draft.replace(path)
    except OSError as error:
        raise OutputUnwritable(
            f"{path}: cannot be written: {error.strerror or type(error).__name__}", path=str(path)
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


@contextmanager
def _counter(path: Path | None) -> Iterator[Callable[[int], None]]:
    """Tells people on a terminal how far it is, unless the documents themselves go there."""
    console = output.stderr()
    quiet = not console.is_terminal or (path is None and sys.stdout.isatty())
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} documents"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("export", total=None)

        def tell(count: int) -> None:
            progress.update(task, completed=count)

        yield tell
