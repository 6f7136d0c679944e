"""Words for people that several rooms say: numbers with their noun, and keys that would look like nothing."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["by_reason", "named", "number_of", "one_line", "place_of", "shown"]


def by_reason(places: Iterable[tuple[str, str]]) -> list[str]:
    """`acme, brick: the source is away`: each reason once, with all the places that have it. `places`: with their
    reasons; either may be empty."""
    told: dict[str, list[str]] = {}
    for place, reason in places:
        told.setdefault(reason, []).append(place)
    return [": ".join(filter(None, (", ".join(filter(None, some)), reason))) for reason, some in told.items()]


def number_of(count: int, one: str, many: str | None = None) -> str:
    """`1 row`, `1,200 rows`; `many` where the plural is no mere s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shown(tenant: str) -> str:
    """The tenant's key, in quotes where it would look like nothing, or like another one."""
    return tenant if tenant and tenant == tenant.strip() and tenant.isprintable() else repr(tenant)


def named(tenant: str, name: str = "") -> str:
    """`Hoffmann Bau (0b5f…)`: what people call the tenant, where they do, and its key in full."""
    return f"{name} ({shown(tenant)})" if name else shown(tenant)


def place_of(entity: str, collection: str = "", tenant: str = "", name: str = "") -> str:
    """`works, chunks of Hoffmann Bau (0b5f…)`: a partition, the entity once where its collection is called like it."""
    if not collection:
        return ", ".join(filter(None, (entity, named(tenant, name) if tenant else "")))
    where = f"{collection} of {named(tenant, name)}"
    return where if collection == entity else f"{entity}, {where}"


def one_line(text: str) -> str:
    """What comes from a tenant's key, or from a server, cannot look like another line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
