"""Whether a provider is still the model that made the vectors of its space: on another server its name may stand for
another one, and on this machine its weights may be replaced. Nothing is asked of it as long as it comes from where it
came from before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster.embedding import Embedded, EmbeddingProvider
from vecsync_dagster.embedding.base import HasOrigin
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, SourceUnavailable, SpaceMismatch, VecsyncError
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Read
from vecsync_dagster.space import Space

if TYPE_CHECKING:
    from vecsync_dagster.sync.workspace import Workspace

__all__ = ["prove_origin", "written_texts"]

_SAME = 0.99
"""Cosine from which on two vectors of one text are one model's: arithmetic differs from machine to machine."""

_AT_ONCE = 200


def prove_origin(
    provider: EmbeddingProvider, ledger: Ledger, written: Callable[[Space], Iterable[Sequence[str]]], *, keep: bool
) -> Embedded | None:
    """Where the provider comes from elsewhere than before, one text whose vector is kept is embedded once more. Returns
    what that took. `written`: texts that may be such, of a space, some at once. With `keep` vectors are going to be
    written: the ledger learns where they come from, and where no document has any of that space it forgets its own.

    Raises SpaceMismatch where it is another model, or where documents have vectors and none can be compared; and the
    errors of provider and sources.
    """
    if not isinstance(provider, HasOrigin):
        return None
    space, origin = provider.space, provider.origin
    known = ledger.origin_of(space)
    if known == origin:
        return None
    took, anew = None, False
    if known is not None:
        found = _kept(provider, ledger, written(space))
        if found is not None:
            took = provider.embed_documents([found[0]])
            if _cosine(found[1], took.vectors[0]) < _SAME:
                raise _mismatch(space, provider, known, "makes other ones")
        elif _has_documents(ledger, space):
            why = "cannot be compared: no configured source has a text any more that was embedded then"
            raise _mismatch(space, provider, known, why)
        else:
            anew = True
    if keep:
        ledger.keep_origin(space, origin, anew=anew)
    return took


def _kept(
    provider: EmbeddingProvider, ledger: Ledger, written: Iterable[Sequence[str]]
) -> tuple[str, NDArray[np.float32]] | None:
    """One of these texts, prepared, and its vector."""
    for texts in written:
        texts_now = [provider.prepare(text).text for text in texts]
        prepared = {hashlib.sha256(text.encode()).hexdigest(): text for text in texts_now}
        for text_hash, vector in ledger.vectors(provider.space, list(prepared)).items():
            return prepared[text_hash], vector
    return None


def _has_documents(ledger: Ledger, space: Space) -> bool:
    """Also in collections that left the configuration."""
    return any(
        next(ledger.points(entity, collection, tenant, chunk=1), None)
        for entity, collection in ledger.collections()
        if ledger.space_of(collection) == space
        for tenant in ledger.with_rows(entity, collection)
    )


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.dot(one, other)) / lengths if lengths else float(np.array_equal(one, other))


def _mismatch(space: Space, provider: HasOrigin, known: str, why: str) -> SpaceMismatch:
    return SpaceMismatch(
        f"the kept vectors of {space} {provider.since(known)} {why}. Vectors of two models are never mixed. "
        f"{provider.way_back}; or, to change the model, give it another `model` name and its collections new names, "
        "or drop them first (`vecsync drop COLLECTION --force`)",
        space=str(space),
        before=known,
        now=provider.origin,
    )


def written_texts(workspace: Workspace, space: Space) -> Iterator[list[str]]:
    """The texts of records that have documents in the space, as the sources have them now, some at once; nothing stays
    open in between. Raises what kept a source from answering, once nobody wanted any of the others'."""
    failed: VecsyncError | None = None
    for entity, config in workspace.config.entities.items():
        collections = [name for name in config.collections if workspace.ledger.space_of(name) == space]
        places = [(name, tenant) for name in collections for tenant in workspace.ledger.with_rows(entity, name)]
        for collection, tenant in places:
            try:
                yield from _texts(workspace, entity, collection, tenant)
            except (LedgerUnavailable, LedgerRejected):
                raise
            except VecsyncError as error:
                failed = error
                if isinstance(error, SourceUnavailable):
                    break
    if failed is not None:
        why = f"the model of {space} may be another one, and to compare its vectors texts are read again"
        raise type(failed)(f"{why}: {failed}", **failed.fields) from failed


def _texts(workspace: Workspace, entity: str, collection: str, tenant: str) -> Iterator[list[str]]:
    builder = DocumentBuilder(entity, workspace.entity(entity), tenant, [collection])
    for points in workspace.ledger.points(entity, collection, tenant, chunk=_AT_ONCE):
        wanted = Read(tenant, ids=[point.db_id for point in points])
        pages = list(workspace.source(entity).read(wanted, _AT_ONCE))  # to its end: that closes the transaction
        texts = [text.text for page in pages for text in builder.build(page.records)[collection].documents]
        if texts:
            yield texts
