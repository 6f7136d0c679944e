"""The vector space of a collection. Vectors of two spaces are never mixed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from vecsync_dagster.errors import SpaceMismatch

__all__ = ["Distance", "Space", "check_space"]

Distance = Literal["cosine", "dot", "euclid"]


_READABLE = 60  # characters of a space that are in a name
_SUFFIX = re.compile(rf"((?:[A-Za-z0-9.-]*-)?[0-9]+|[A-Za-z0-9.-]{{{_READABLE}}})-[0-9a-f]{{8}}")
"""Of a physical name: provider, model and dimensions, cut where they are longer; the space's digest."""


@dataclass(frozen=True, slots=True)
class Space:
    """Provider, model, dimensions and distance; equal spaces have comparable vectors.

    `model` also carries whatever else changes a vector (prefixes, shortened dimensions), so that
    two settings of one model are two spaces.
    """

    provider: str
    model: str
    dimensions: int
    distance: Distance = "cosine"

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}/{self.dimensions}/{self.distance}"

    @classmethod
    def parse(cls, text: str) -> Space:
        """The inverse of `str(space)`; a model's name may contain slashes.

        Raises ValueError where the text is not a space.
        """
        provider, rest = text.split("/", 1)
        model, dimensions, distance = rest.rsplit("/", 2)
        if distance not in ("cosine", "dot", "euclid"):
            raise ValueError(f"not a vector space: {text!r}")
        return cls(provider, model, int(dimensions), distance)  # type: ignore[arg-type]

    @staticmethod
    def is_physical_name(name: str, collection: str) -> bool:
        """Whether it is `physical_name(collection)` of any space; not that of a collection with a longer name."""
        return name.startswith(f"{collection}__") and _SUFFIX.fullmatch(name[len(collection) + 2 :]) is not None

    def physical_name(self, collection: str) -> str:
        """The name of the physical collection that holds this space behind the alias `collection`.

        Readable, safe as a folder's name, and unique: eight hex digits of the full space end it.
        """
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.provider}-{self.model}-{self.dimensions}").strip("-")
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:8]
        return f"{collection}__{readable[:_READABLE]}-{digest}"


def check_space(collection: str, space: Space, pinned: str | None) -> None:
    """Raises SpaceMismatch where the alias leads to (`pinned`) a physical collection of another space."""
    wanted = space.physical_name(collection)
    if pinned is not None and pinned != wanted:
        raise SpaceMismatch(
            f"collection {collection} holds vectors of another space: it leads to {pinned}, "
            f"and the model that it is synced with needs {wanted}",
            collection=collection,
            pinned=pinned,
            wanted=wanted,
        )
