"""Records to documents: one batch of records becomes, for each collection, documents and rejections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from vecsync_dagster.config.models import CollectionConfig, EntityConfig
from vecsync_dagster.documents.columns import CleanBatch, Cleaner, Problem, Records
from vecsync_dagster.documents.hashing import content_hasher, payload_hash, point_id, record_hashes
from vecsync_dagster.documents.render import Template, is_empty
from vecsync_dagster.identity import Key
from vecsync_dagster.numbers import steady
from vecsync_dagster.stores.base import CONTENT_HASH, GLOBAL, PAYLOAD_HASH

__all__ = ["Document", "DocumentBatch", "DocumentBuilder", "Rejection", "document_id"]


# Not frozen: a frozen one of eight fields takes longer to make than both of its hashes.
@dataclass(slots=True)
class Document:
    """A record rendered for one collection. `payload` is complete: reserved keys and both hashes. `db_key`: see
    `identity.Key.native`."""

    document_id: str
    db_id: str
    entity: str
    payload: dict[str, Any]
    content_hash: str
    payload_hash: str
    _values: tuple[Any, ...] = dataclasses.field(repr=False)
    _template: Template = dataclasses.field(repr=False, compare=False)
    record_hash: str | None = dataclasses.field(default=None, compare=False)
    db_key: str | None = dataclasses.field(default=None, compare=False)
    _point_id: str = dataclasses.field(default="", repr=False, compare=False)

    @property
    def key(self) -> Key:
        return Key(self.db_id, self.db_key)

    @property
    def text(self) -> str:
        """Rendered when asked for: most documents of most runs are unchanged and need none."""
        return self._template.render(dict(zip(self._template.fields, self._values, strict=True)))

    @property
    def point_id(self) -> str:
        """Made when it is first asked for, as the text is."""
        if not self._point_id:
            self._point_id = point_id(self.entity, self.document_id)
        return self._point_id

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Names of the fields that its text is made of."""
        return self._template.fields

    @property
    def text_values(self) -> tuple[Any, ...]:
        """Their values."""
        return self._values


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that became no document. `error` names the field, not its value; `record` is the record
    itself, for invalid_records.jsonl only."""

    db_id: str | None
    document_id: str | None
    code: str
    field: str | None
    error: str
    record: dict[str, Any] = dataclasses.field(repr=False)
    db_key: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    documents: list[Document]
    rejections: list[Rejection]


def document_id(tenant: str, kind: str, db_id: str) -> str:
    """`<scope>-<type>-<db id>`: `global-material-5`, `tenant-work-<uuid>`."""
    return f"{_scope(tenant)}-{kind}-{db_id}"


def is_document_id(identity: str, tenant: str, db_id: str) -> bool:
    """Whether the record has this id, or had it when its entity had another `type`."""
    before, _, kind = identity.removesuffix(f"-{db_id}").partition("-")
    return identity.endswith(f"-{db_id}") and before == _scope(tenant) and kind != ""


def _scope(tenant: str) -> str:
    return "global" if tenant == GLOBAL else "tenant"


class DocumentBuilder:
    """Documents of one entity for one tenant."""

    def __init__(
        self,
        entity_name: str,
        entity: EntityConfig,
        tenant: str,
        collections: Sequence[str],
        limits: Mapping[str, int | None] | None = None,
    ) -> None:
        """`limits`: by collection, where texts are cut otherwise than its model does by itself. Records are looked at
        again where that changes."""
        kind = entity.type or entity_name
        self._cleaner = Cleaner(entity_name, entity, owned=tenant != GLOBAL)
        self._key = entity.key
        self._prefix = document_id(tenant, kind, "")
        cut = {name: f" max_tokens {limit}" for name, limit in (limits or {}).items() if limit}
        self._settings = {name: (entity.fingerprint(name) + cut.get(name, "")).encode() for name in collections}
        self._metadata = _metadata(entity_name, kind, tenant)
        self._collections = {
            name: _Collection(entity.collections[name], ", ".join(entity.key), self._metadata) for name in collections
        }

    def read(self, batch: pa.RecordBatch) -> Records:
        """The batch as Python values. Raises ConfigError if the configuration names a field that the records do
        not have."""
        return self._cleaner.read(batch)

    def ids(self, records: Records) -> list[str | None]:
        """The document id of each record; None where it has no usable id of its own."""
        of_many = records.of_many()
        ids = enumerate(records.ids(self._key))
        return [None if db_id is None or row in of_many else self._prefix + db_id for row, db_id in ids]

    def id_of(self, db_id: str) -> str:
        return self._prefix + db_id

    def record_hashes(self, records: Records) -> dict[str, list[str]]:
        """For each collection a hash of each record: where it is equal, so are both hashes of its document, and
        it was valid. A tenth of the work of making the document."""
        raw = records.raw()
        return {name: record_hashes(settings, raw) for name, settings in self._settings.items()}

    def build(self, batch: pa.RecordBatch) -> dict[str, DocumentBatch]:
        """For each collection its documents and rejections; together as many as there are records.

        Raises ConfigError as `read` does.
        """
        records = self.read(batch)
        return self.documents(records, self.record_hashes(records))

    def documents(
        self,
        records: Records,
        hashes: Mapping[str, Sequence[str]],
        wanted: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, DocumentBatch]:
        """As `build`, for collections that need some rows only (`wanted`, in order); none for those not in it."""
        everything = range(len(records))
        wanted = dict.fromkeys(self._collections, everything) if wanted is None else wanted
        rows = sorted(set().union(*wanted.values())) if wanted else []
        batch = self._cleaner.clean(records.some(rows))
        place = {row: at for at, row in enumerate(rows)}
        payloads = {
            c.payload_fields: _Payloads(self._metadata, c.payload_fields, batch) for c in self._collections.values()
        }
        built: dict[str, DocumentBatch] = {}
        for name, some in wanted.items():
            collection = self._collections[name]
            record_hash = {place[row]: hashes[name][row] for row in some}
            built[name] = collection.build(batch, payloads[collection.payload_fields], record_hash)
        return built


def _metadata(entity_name: str, kind: str, tenant: str) -> dict[str, Any]:
    """What every document's payload begins with; `id` and `dbId` are the document's own."""
    is_global = tenant == GLOBAL
    return {
        "id": document_id(tenant, kind, ""),
        "entity": entity_name,
        "type": kind,
        "dbId": "",
        "tenantId": None if is_global else tenant,
        "scope": "global" if is_global else "tenant",
        "isGlobal": is_global,
    }


class _Payloads:
    """Of a batch's records, made once for all collections that have the same fields in them."""

    def __init__(self, metadata: dict[str, Any], fields: tuple[str, ...], batch: CleanBatch) -> None:
        self._metadata = metadata
        self._fields = fields
        self._values = list(batch.rows(fields))
        self._made: dict[int, tuple[dict[str, Any], str]] = {}

    def of(self, row: int, db_id: str) -> tuple[dict[str, Any], str]:
        """The payload, but for the hashes in it, and its own hash."""
        if row not in self._made:
            payload = self._metadata.copy()
            payload["id"] += db_id
            payload["dbId"] = db_id
            payload.update(zip(self._fields, map(_steady, self._values[row]), strict=True))
            self._made[row] = payload, payload_hash(payload)
        return self._made[row]


def _steady(value: Any) -> Any:
    """The value with such floats only as a store gives back as they are."""
    kind = value.__class__
    if kind is float:
        return steady(value)
    if kind is list:
        return list(map(_steady, value))
    return {key: _steady(one) for key, one in value.items()} if kind is dict else value


class _Collection:
    """What is the same for all documents of one collection and tenant."""

    def __init__(self, config: CollectionConfig, identity: str, metadata: dict[str, Any]) -> None:
        self._id = identity
        self._template = Template(config.parts)
        self.payload_fields = config.payload
        self._hash = content_hasher(config.parts)
        self._entity: str = metadata["entity"]
        self._prefix: str = metadata["id"]
        fields = ", ".join(self._template.fields)
        self._no_text = Problem(self._template.fields[0], f"the text is empty: none of {fields} has a value")

    def build(self, batch: CleanBatch, payloads: _Payloads, wanted: Mapping[int, str]) -> DocumentBatch:
        """`wanted`: rows of the batch, with the hashes of their records."""
        built = DocumentBatch([], [])
        rows = list(zip(batch.ids, batch.rows(self._template.fields), strict=True))
        for row, record_hash in wanted.items():
            db_id, texts = rows[row]
            problem = batch.problems.get(row)
            if problem is None and all(map(is_empty, texts)):
                problem = self._no_text
            if problem is None and db_id is not None:
                try:
                    document = self._document(db_id, texts, payloads.of(row, db_id), record_hash)
                    document.db_key = batch.own_keys[row]
                    built.documents.append(document)
                except MemoryError:
                    raise
                except Exception as error:  # noqa: BLE001 (whatever it is, it is this record's)
                    problem = Problem(self._id, f"no document can be made of the record ({type(error).__name__})")
            if problem is not None:
                rejection = self._rejection(db_id, problem, batch.record(row), batch.own_keys[row])
                # What is nobody's has no document here, not even a failed one.
                built.rejections.append(replace(rejection, document_id=None) if row in batch.of_many else rejection)
        return built

    def _document(
        self, db_id: str, texts: tuple[Any, ...], made: tuple[dict[str, Any], str], record_hash: str
    ) -> Document:
        content = self._hash(texts)
        shared, hashed = made
        payload = shared | {CONTENT_HASH: content, PAYLOAD_HASH: hashed}
        identity = payload["id"]
        return Document(identity, db_id, self._entity, payload, content, hashed, texts, self._template, record_hash)

    def _rejection(self, db_id: str | None, problem: Problem, record: dict[str, Any], db_key: str | None) -> Rejection:
        identity = None if db_id is None else self._prefix + db_id
        return Rejection(db_id, identity, "VALIDATION_ERROR", problem.field, problem.reason, record, db_key)
