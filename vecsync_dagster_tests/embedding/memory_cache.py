"""The embedding cache as a dictionary: what the ledger promises, without a database."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.space import Space

__all__ = ["MemoryCache"]


class MemoryCache:
    def __init__(self) -> None:
        self.kept: dict[tuple[Space, str], NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def vectors(self, space: Space, hashes: Sequence[str], /) -> Mapping[str, NDArray[np.float32]]:
        with self._lock:
            return {key: self.kept[space, key] for key in hashes if (space, key) in self.kept}

    def keep_vectors(
        self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None = None, /
    ) -> None:
        with self._lock:
            self.kept.update({(space, key): vector for key, vector in vectors.items()})

    def require_origin(self, space: Space, origin: str, /) -> None:
        """One process has it."""

    def origin_of(self, space: Space, /) -> str | None:
        return None
