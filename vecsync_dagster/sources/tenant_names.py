"""Names of tenants, as people call them: one line of what the source holds, not too long."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

__all__ = ["FEW", "READ", "greatest", "readable"]

LONGEST: Final = 60
FEW: Final = 100
"""The rows of so many tenants are looked up one tenant at a time, where the names are a column of records."""
READ: Final = 200
"""So many characters are asked of the source: more than are shown, as some may be left out."""


def readable(text: str) -> str:
    """The text without control characters and needless blanks, cut where it is too long; empty where none is left."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"


def greatest(found: Iterable[tuple[str | None, str]], wanted: Container[str]) -> dict[str, str]:
    """Of each wanted tenant its name; where rows of one tenant differ, the one that sorts last. `found` may be endless:
    no more is kept than is wanted."""
    names: dict[str, str] = {}
    for tenant, text in found:
        if tenant is not None and tenant in wanted and (name := readable(text)) > names.get(tenant, ""):
            names[tenant] = name
    return names
