"""What a record that the ledger has under an old key is called today, where the tenant's column is a part of the key
now, is one no more, or has changed its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vecsync_dagster.identity import Key, key_parts, key_text

__all__ = ["keys_today"]


def keys_today(key: Key, columns: Sequence[str], tenant_column: str | None, tenant: str | None) -> list[Key]:
    """The keys that it may have: its own, and those whose other columns say the same. `columns`: those of the key of
    today; `tenant`: what the tenant's column says."""
    place = columns.index(tenant_column) if tenant_column in columns else None
    others = len(columns) - (place is not None)
    found = {str(key): key}
    own = key_parts(key, len(columns))
    if place is not None and own is not None and own[place] == tenant:
        return [key]  # it is one of today
    for rest in _without_tenant(key, others, tenant) if others else ():
        parts = rest if place is None else [*rest[:place], tenant, *rest[place:]]
        text = parts[0] if len(parts) == 1 else key_text(parts)
        if text is not None:
            found.setdefault(text, Key(text))
    return list(found.values())


def _without_tenant(key: Key, others: int, tenant: str | None) -> Iterator[list[str | None]]:
    """What the other columns say, if the tenant's column was no part of the key, or was one, in any place."""
    plain = key_parts(key, others)
    if plain is not None:
        yield list(plain)
    parts = key_parts(key, others + 1) or ()
    for place, part in enumerate(parts):
        if part == tenant:
            yield [*parts[:place], *parts[place + 1 :]]
