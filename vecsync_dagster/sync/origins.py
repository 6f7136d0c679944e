"""Whether a provider is still the model that made the vectors of its space: on another server its name may stand for
another one. Nothing is asked of it as long as it comes from where it came from before."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster.embedding import Embedded, EmbeddingProvider
from vecsync_dagster.embedding.base import HasOrigin
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, SpaceMismatch, VecsyncError
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Read
from vecsync_dagster.space import Space

if TYPE_CHECKING:
    from vecsync_dagster.sync.workspace import Workspace

__all__ = ["prove_origin", "written_texts"]

_log = logging.getLogger(__name__)
_SAME = 0.99
"""Cosine from which on two vectors of one text are one model's: arithmetic differs from machine to machine."""

_TENANTS, _RECORDS = 20, 100
_AT_ONCE = 50


def prove_origin(
    provider: EmbeddingProvider, ledger: Ledger, written: Callable[[Space], Iterable[str]]
) -> Embedded | None:
    """Where the provider comes from elsewhere than before, one text whose vector is kept is embedded once more. Returns
    what that took. `written`: such texts, of a space. Where there is none, no vector of the space is kept either.

    Raises SpaceMismatch where it is another model, and the errors of provider and sources.
    """
    if not isinstance(provider, HasOrigin):
        return None
    space, origin = provider.space, provider.origin
    known = ledger.origin_of(space)
    took = None
    if known not in (None, origin):
        texts = iter(written(space))
        first = next(texts, None)
        found = None if first is None else _kept(provider, ledger, chain([first], texts))
        if found is None:
            if first is not None:
                _log.warning("%s: vectors come from %s now, and no kept one can be compared", space, _host(origin))
            ledger.forget_vectors(space)
        else:
            took = provider.embed_documents([found[0]])
            if _cosine(found[1], took.vectors[0]) < _SAME:
                raise _mismatch(space, str(known), origin)
    if known != origin:
        ledger.keep_origin(space, origin)
    return took


def _kept(provider: EmbeddingProvider, ledger: Ledger, texts: Iterable[str]) -> tuple[str, NDArray[np.float32]] | None:
    """One of these texts, prepared, and its vector."""
    left = iter(texts)
    while some := list(islice(left, _AT_ONCE)):
        texts_now = [provider.prepare(text).text for text in some]
        prepared = {hashlib.sha256(text.encode()).hexdigest(): text for text in texts_now}
        for text_hash, vector in ledger.vectors(provider.space, list(prepared)).items():
            return prepared[text_hash], vector
    return None


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.dot(one, other)) / lengths if lengths else float(np.array_equal(one, other))


def _mismatch(space: Space, known: str, origin: str) -> SpaceMismatch:
    before, now = _host(known), _host(origin)
    where = f"at {now}" if now != before else f"at another path of {now}"
    return SpaceMismatch(
        f"the kept vectors of {space} came from {before}, and the model of that name {where} makes other ones: vectors "
        "of two models are never mixed. Set the former `base_url` again; or, to change the model, give it another "
        "`model` name and its collections new names, or `vecsync drop` the collections first",
        space=str(space),
        before=before,
        now=now,
    )


def _host(origin: str) -> str:
    return origin.partition(" ")[0]


def written_texts(workspace: Workspace, space: Space) -> Iterator[str]:
    """Texts of records that are as they were when their vectors of the space were written, some of each collection.
    Raises what kept a source from answering, once nobody wanted any of the others'."""
    failed: VecsyncError | None = None
    for entity, config in workspace.config.entities.items():
        for collection in config.collections:
            if workspace.ledger.space_of(collection) != space:
                continue
            for tenant in workspace.ledger.tenants(entity, collection)[:_TENANTS]:
                try:
                    yield from _texts(workspace, entity, collection, tenant)
                except (LedgerUnavailable, LedgerRejected):
                    raise
                except VecsyncError as error:
                    failed = error
    if failed is not None:
        raise failed


def _texts(workspace: Workspace, entity: str, collection: str, tenant: str) -> Iterator[str]:
    points = next(workspace.ledger.points(entity, collection, tenant, chunk=_RECORDS), [])
    held = {point.document_id: point.content_hash for point in points}
    if not held:
        return
    builder = DocumentBuilder(entity, workspace.entity(entity), tenant, [collection])
    for page in workspace.source(entity).read(Read(tenant, ids=[point.db_id for point in points]), _RECORDS):
        for document in builder.build(page.records)[collection].documents:
            if held.get(document.document_id) == document.content_hash:
                yield document.text
