"""Whose an id is. Where the ledger has it as another record's, the source is asked whether that one is still there:
a record that moved is taken over, one that merely has the same id is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import Document, DocumentBuilder, Rejection
from vecsync_dagster.documents.columns import Cleaner
from vecsync_dagster.identity import Key, differ
from vecsync_dagster.ledger.base import REPEATED, Ledger
from vecsync_dagster.sources.base import FindsRepeated, Read, Source
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.target import Target

__all__ = [
    "NOT_UNIQUE",
    "Claim",
    "as_found",
    "at_source",
    "buried",
    "contested",
    "firsts",
    "is_in",
    "live",
    "refusal",
    "repeated",
]

NOT_UNIQUE = "ID_NOT_UNIQUE"
_SAMPLE, _SAMPLE_OF_TENANT = 90, 10


@dataclass(frozen=True, slots=True)
class Claim:
    """A document whose id the ledger has as that of another record: its tenant and key."""

    document: Document
    tenant: str
    key: Key


def some_keys(ledger: Ledger, entity: str, config: EntityConfig) -> list[tuple[str, Key]]:
    """Tenants and keys of some of the documents that are synced: a few of each tenant, and of everybody's only where no
    tenant has any."""
    found: list[tuple[str, Key]] = []
    for collection in config.collections:
        for tenant in sorted(ledger.with_rows(entity, collection), key=GLOBAL.__eq__):
            if len(found) >= _SAMPLE or (tenant == GLOBAL and found):
                break
            points = next(iter(ledger.points(entity, collection, tenant, chunk=_SAMPLE_OF_TENANT)), [])
            found += [(tenant, point.db_id) for point in points]
    return found[:_SAMPLE]


def live(target: Target, source: Source, tenant: str, keys: Iterable[str]) -> set[Key | tuple[str, str | None]]:
    """Which of these records the source has: their keys, by text alone and with their own notation."""
    return at_source(target.entity, target.config, source, tenant, keys, target.settings.page)


def at_source(
    entity: str, config: EntityConfig, source: Source, tenant: str, keys: Iterable[str], size: int
) -> set[Key | tuple[str, str | None]]:
    """The same, where there is no target."""
    cleaner = Cleaner(entity, config)
    found: set[Key | tuple[str, str | None]] = set()
    for page in source.read(Read(tenant, ids=list(keys)), size):
        records = cleaner.read(page.records)
        for text, native in zip(records.ids(config.key), records.own_keys(), strict=True):
            if text is not None:
                found |= {Key(text), (text, native)}
    return found


def buried(target: Target, source: Source, keys: Iterable[str]) -> list[str]:
    """The keys of those of the partition's records that the source has, and itself calls gone."""
    read = Read(target.tenant, ids=list(keys), dead=True)
    return [key for page in source.read(read, target.settings.page) for key in page.tombstones]


def firsts(target: Target, source: Source, keys: Mapping[str, str]) -> dict[str, Document]:
    """Where several live records of the tenant have the id of one of these documents (document id -> key), by that id:
    the document of the first good one, in the order of a full read. Nothing is asked of a source that lets no two
    records have one id."""
    if not isinstance(source, FindsRepeated) or source.unique():
        return {}
    t = target
    builder = DocumentBuilder(t.entity, t.config, t.tenant, [t.collection])
    times: Counter[str | None] = Counter()
    found: dict[str, Document] = {}
    for page in source.read(Read(t.tenant, ids=list(keys.values())), t.settings.page) if keys else ():
        times.update(builder.ids(builder.read(page.records)))
        for document in builder.build(page.records)[t.collection].documents:
            found.setdefault(document.document_id, document)
    return {identity: document for identity, document in found.items() if times[identity] > 1}


def contested(target: Target, source: Source, claims: Sequence[Claim]) -> list[Claim]:
    """Those of which both records are there now; one look-up for each tenant."""
    both: list[Claim] = []
    for tenant in sorted({claim.tenant for claim in claims}):
        some = [claim for claim in claims if claim.tenant == tenant]
        theirs = live(target, source, tenant, [claim.key for claim in some])
        both += [claim for claim in some if is_in(claim.key, theirs)]
    ours = live(target, source, target.tenant, [claim.document.key for claim in both]) if both else set()
    return [claim for claim in both if is_in(claim.document.key, ours)]


def is_in(key: Key, found: set[Key | tuple[str, str | None]]) -> bool:
    return (key if key.native is None else (str(key), key.native)) in found


def as_found(key: Key, found: set[Key | tuple[str, str | None]]) -> Key:
    """The key as the source has it, where its type is not known: that of the one record with this text. As it is where
    several have it."""
    natives = {one[1] for one in found if isinstance(one, tuple) and one[0] == key} if key.native is None else set()
    return Key(key, *natives) if len(natives) == 1 else key


def refusal(target: Target, claim: Claim) -> Rejection:
    """Its own row, if it has one, is not known by the id: that is the other record's."""
    names = ", ".join(target.config.key)
    if claim.tenant == target.tenant:
        error = _of_two_types(names)
    else:
        error = (
            f"{claim.tenant} and {target.tenant} both have a record with this id, that of {claim.tenant} is synced; "
            f"name all fields that tell the records apart, as in id: [{_suggested(target)}]"
        )
    return Rejection(claim.document.db_id, None, NOT_UNIQUE, names, error, claim.document.payload)


def repeated(target: Target, key: Key, record: dict[str, Any], taken: Key | None) -> Rejection:
    """Of two of the tenant's records with one id, the one that is not synced; `taken`: the other one's key."""
    names = ", ".join(target.config.key)
    if taken is not None and differ(taken, key):
        return Rejection(str(key), None, NOT_UNIQUE, names, _of_two_types(names), record)
    return Rejection(str(key), None, "VALIDATION_ERROR", names, REPEATED, record)


def _of_two_types(names: str) -> str:
    return f"the source has two records whose {names} has this text, of different types; the other one is synced"


def _suggested(target: Target) -> str:
    tenancy = target.config.tenancy
    columns = ([] if tenancy is None else [tenancy.column]) + list(target.config.key)
    return ", ".join(dict.fromkeys(columns))
