"""The last check of vectors before anybody may use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.errors import EmbeddingUnavailable

__all__ = ["check_vectors"]


def check_vectors(vectors: NDArray[np.float32], texts: int, dimensions: int, model: str) -> NDArray[np.float32]:
    """The vectors themselves if there is a finite one of the right size for each text.

    Raises EmbeddingUnavailable otherwise: nonsense once may be sense the next time.
    """
    if vectors.shape != (texts, dimensions):
        raise EmbeddingUnavailable(
            f"{model}: expected {texts} vectors of {dimensions} dimensions, received the shape {vectors.shape}; "
            "if the model has other dimensions, set `dimensions`",
            model=model,
            expected=(texts, dimensions),
            received=vectors.shape,
        )
    broken = int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
    if broken:
        raise EmbeddingUnavailable(f"{model}: {broken} of {texts} vectors are not finite", model=model, broken=broken)
    return vectors
