"""What a record that the ledger has under an old key is called today, where the tenant's column is a part of the key
now, is one no more, or has changed its place.

Of a tenant's records that column says the tenant. Of everybody's it may say anything, so the source is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from vecsync_dagster.identity import Key, key_parts, key_text
from vecsync_dagster.sources.base import FindsByRest, Rest

__all__ = ["keys_today", "records_today"]

_ANYTHING: Final = object()
"""What the tenant's column said, where it was no part of the key."""


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


def records_today(
    source: FindsByRest, scope: str, keys: Iterable[Key], columns: Sequence[str], tenant_column: str
) -> Mapping[str, list[Rest]]:
    """The live records that each of these keys may have been of, whatever the tenant's column says of them; and others
    that have the key of one of these. `columns`: those of the key of today."""
    others = sum(name != tenant_column for name in columns)
    wanted = {str(key): list(_rests(key, others)) for key in keys} if others else {}
    rests = list(dict.fromkeys(rest for parts in wanted.values() for rest, _ in parts))
    found: dict[str, list[Rest]] = defaultdict(list)
    for one in source.by_rest(scope, tenant_column, rests) if rests else ():
        found[one.rest].append(one)
    alike = tenant_column not in columns  # those of one rest have one key
    today: dict[str, list[Rest]] = {}
    for key, parts in wanted.items():
        met = ((found.get(rest, []), said) for rest, said in parts)
        own = ((some, [one for one in some if said is _ANYTHING or said == one.part]) for some, said in met)
        today[key] = [one for some, mine in own if mine for one in (some if alike else mine)]
    return today


def _rests(key: Key, others: int) -> Iterator[tuple[str, object]]:
    """What the other columns may say, and what the tenant's column said then."""
    if key_parts(key, others) is not None:
        yield str(key), _ANYTHING
    parts = key_parts(key, others + 1) or ()
    for place, part in enumerate(parts):
        rest = [*parts[:place], *parts[place + 1 :]]
        text = rest[0] if others == 1 else key_text(rest)
        if text is not None:
            yield text, part
