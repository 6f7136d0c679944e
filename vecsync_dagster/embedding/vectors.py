"""The last check of vectors before anybody may use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable

__all__ = ["check_vectors"]

_MANY = 20
"""So many texts side by side have no words that the model knows only where it is the model's fault."""


def check_vectors(vectors: NDArray[np.float32], texts: int, dimensions: int, model: str) -> NDArray[np.float32]:
    """The vectors themselves if there is a finite one of the right size for each text, and none of zeros, which nobody
    would ever find.

    Raises EmbeddingUnavailable otherwise: nonsense once may be sense the next time; and EmbeddingRejected where it is
    a text's own doing, as of one without any word that the model knows. Both have the other texts' vectors.
    """
    if vectors.shape != (texts, dimensions):
        raise EmbeddingUnavailable(
            f"{model}: expected {texts} vectors of {dimensions} dimensions, received the shape {vectors.shape}; "
            "if the model has other dimensions, set `dimensions`",
            model=model,
            expected=(texts, dimensions),
            received=vectors.shape,
        )
    finite = np.isfinite(vectors).all(axis=1)
    sound = {int(row): vectors[row] for row in np.flatnonzero(finite & vectors.any(axis=1))}
    zeros = np.flatnonzero(~vectors.any(axis=1))
    if len(zeros) == texts >= _MANY:
        raise EmbeddingUnavailable(f"{model}: all {texts} vectors are zeros", model=model)
    if len(zeros):
        refused = EmbeddingRejected(f"{model}: the vector is all zeros", model=model, index=int(zeros[0]))
        refused.answered = sound
        raise refused
    if not finite.all():
        broken = texts - int(np.count_nonzero(finite))
        error = EmbeddingUnavailable(f"{model}: {broken} of {texts} vectors are not finite", model=model, broken=broken)
        error.answered = sound
        raise error
    return vectors
