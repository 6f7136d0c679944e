"""What `vecsync check` tries, part by part. One part that fails keeps nobody from trying the next."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vecsync_dagster.cli.left_triggers import find_left, find_triggers
from vecsync_dagster.config.values import EnvRef
from vecsync_dagster.containment import contained
from vecsync_dagster.embedding import EmbeddingProvider, build_chain
from vecsync_dagster.errors import (
    ConfigError,
    LedgerRejected,
    LedgerUnavailable,
    SourceUnavailable,
    SpaceMismatch,
    StoreForeign,
    StoreLocked,
    VecsyncError,
)
from vecsync_dagster.sources.base import REPEATED_LIMIT, FindsRepeated, NamesTenants, Source
from vecsync_dagster.space import check_space
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.dropping import leftovers
from vecsync_dagster.sync.health import configured
from vecsync_dagster.sync.options import is_tenant
from vecsync_dagster.sync.taken import require_own_ids
from vecsync_dagster.sync.tenant_names import naming
from vecsync_dagster.words import number_of

__all__ = ["Probe", "probe_all"]

State = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Probe:
    part: str
    state: State
    message: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe_all(workspace: Workspace) -> Iterator[Probe]:
    """Every part of a configuration that is valid in itself."""
    count = len(workspace.config.entities)
    entities = "1 entity" if count == 1 else f"{count} entities"
    yield Probe("configuration", "OK", f"{entities}, in {workspace.config.folder}")
    yield from _state_folder(workspace)
    yield from _ledger(workspace)
    for entity in workspace.config.entities:
        yield from _source(workspace, entity)
    yield from _triggers(workspace)
    yield from _providers(workspace)
    yield from _stores(workspace)
    yield from _spaces(workspace)
    yield from _ids_of_others(workspace)
    yield from _alerts(workspace)
    for entity in workspace.config.entities:
        yield from _check_results(workspace, entity)
    yield from _leftovers(workspace)


def _failed(part: str, error: VecsyncError, state: State = "FAIL") -> Probe:
    return Probe(part, state, f"{error.code}: {error}")


def _state_folder(workspace: Workspace) -> Iterator[Probe]:
    folder = workspace.config.state_folder
    if not folder.exists():
        parent = next(place for place in folder.parents if place.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Probe("state folder", "OK", f"{folder} will be made by the first sync")
        else:
            yield Probe("state folder", "FAIL", f"{folder}: {parent} is not writable")
        return
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Probe("state folder", "OK", f"{folder} is writable")
    except OSError as error:
        yield Probe("state folder", "FAIL", f"{folder}: {error.strerror}")


def _ledger(workspace: Workspace) -> Iterator[Probe]:
    try:
        with contained("ledger"):
            file = workspace.config.state_folder / "ledger.sqlite"
            if workspace.config.ledger.url is None and not file.exists():
                yield Probe("ledger", "OK", f"{file} will be made by the first sync")
            else:
                yield Probe("ledger", "OK", workspace.ledger.check())
    except VecsyncError as error:
        yield _failed("ledger", error)


def _source(workspace: Workspace, entity: str) -> Iterator[Probe]:
    """Its own check also finds fields of templates, payload, required and types that no record has."""
    part = f"source of {entity}"
    try:
        with contained(part):
            source = workspace.source(entity)
            yield Probe(part, "OK", source.check())
            yield from _tenants(workspace, entity, source)
            if isinstance(source, FindsRepeated):
                yield from _ids(workspace, entity, source)
    except VecsyncError as error:
        yield _failed(part, error)


def _triggers(workspace: Workspace) -> Iterator[Probe]:
    """Those that an entity left behind: each statement on their table pays for them. And those that tell nothing."""
    try:
        with contained("triggers"):
            own = find_triggers(workspace)
            for entity in (one for one, whole in own.items() if not whole):
                message = "on its table, but not all of them are there and enabled: its changes are found by looking; "
                yield Probe(f"triggers of {entity}", "WARN", f"{message}`vecsync install-triggers` renews them")
            for _, _, left in find_left(workspace):
                on = ", ".join(left.tables) or "no table"
                message = f"still on {on}, which the entity is not on any more; `vecsync install-triggers` removes them"
                if left.entity not in own:
                    message += ". Its own table has none: its changes are found by looking"
                if left.entity not in workspace.config.entities:
                    message = f"on {on}, of an entity that is not in this vecsync.yaml; if no other one has it, "
                    message += "`vecsync install-triggers --unknown` removes them"
                yield Probe(f"triggers of {left.entity}", "WARN", message)
    except (ConfigError, SourceUnavailable):  # the sources' own checks say it
        return
    except VecsyncError as error:
        yield _failed("triggers", error, "WARN")


def _tenants(workspace: Workspace, entity: str, source: Source) -> Iterator[Probe]:
    part = f"tenants of {entity}"
    nobody = source.unassigned()
    if nobody:
        yield Probe(part, "WARN", f"records without a tenant that are not global, which no search can return: {nobody}")
    tenants = source.tenants()
    if GLOBAL in tenants:
        yield Probe(part, "WARN", "a tenant is called `global`, the name of what everybody may see: it is not synced")
    if not tenants and not source.count(GLOBAL):
        yield Probe(part, "WARN", "no live record at all: a full sync would remove all there are; is the filter right?")
    wrong = [key for key in tenants if not is_tenant(key)]
    if wrong:
        yield Probe(part, "WARN", f"tenants whose key cannot be a partition: {len(wrong)}, such as {wrong[0]!r}")
    if (namer := naming(workspace.entity(entity), source)) is not None:
        yield _names(f"names of {entity}", namer, tenants)


def _names(part: str, source: NamesTenants, tenants: Sequence[str]) -> Probe:
    """Missing ones are a warning: nothing but what people see depends on them."""
    try:
        with contained(part):
            found = source.tenant_names(tenants)
    except VecsyncError as error:
        return _failed(part, error)
    example = f", such as {found[min(found)]!r}" if found else ""
    have = "has" if len(found) == 1 else "have"
    message = f"{len(found)} of {number_of(len(tenants), 'tenant')} {have} a name{example}"
    return Probe(part, "OK" if len(found) == len(tenants) else "WARN", message)


def _ids(workspace: Workspace, entity: str, source: FindsRepeated) -> Iterator[Probe]:
    """Ids that more than one record has; and whether anybody but chance keeps them unique."""
    part = f"ids of {entity}"
    config = workspace.entity(entity)
    key = ", ".join(config.key)
    found = source.repeated()
    tenant = [] if config.tenancy is None else [config.tenancy.column]
    better = ", ".join(found.primary or dict.fromkeys([*tenant, *config.key]))
    instead = f"; name all that tell the records apart, as in id: [{better}]" if better != key else ""
    if found.count:
        many = f"{found.count} or more ids belong" if found.count >= REPEATED_LIMIT else f"{found.count} ids belong"
        many = "1 id belongs" if found.count == 1 else many
        yield Probe(part, "FAIL", f"{key}: {many} to more than one record, such as {found.example!r}{instead}")
    elif found.primary:
        yield Probe(
            part,
            "WARN",
            f"{key} is unique in all records, but the table does not see to it: its primary key is "
            f"{', '.join(found.primary)}",
        )


def _providers(workspace: Workspace) -> Iterator[Probe]:
    """One that is not available is a warning while another one is there to take its place."""
    try:
        with contained("embedding"):
            chain = build_chain(workspace.config.embedding)
    except VecsyncError as error:
        yield _failed("embedding", error)
        return
    probes = [_provider(number, provider) for number, provider in enumerate(chain, 1)]
    usable = any(probe.state == "OK" for probe in probes) or any(not provider.semantic for provider in chain)
    yield from probes
    for provider in chain:
        provider.close()
    if not usable:
        yield Probe("embedding", "FAIL", "no provider of embedding.chain can be used")


def _provider(number: int, provider: EmbeddingProvider) -> Probe:
    part = f"embedding {number}: {provider.name}"
    try:
        with contained(part):
            reason = provider.unavailable_because()
            if reason is not None:
                return Probe(part, "WARN", f"not available: {reason}")
            message = provider.check()
    except VecsyncError as error:
        return _failed(part, error)
    if not provider.semantic:
        return Probe(part, "WARN", f"{message}; these vectors are NOT semantic")
    return Probe(part, "OK", message)


def _stores(workspace: Workspace) -> Iterator[Probe]:
    for name in workspace.config.stores:
        try:
            with contained(f"store {name}"):
                yield Probe(f"store {name}", "OK", workspace.store(name).check())
                yield from _collections(workspace, name)
        except StoreLocked as error:
            yield _failed(f"store {name}", error, "WARN")  # somebody uses it: it works
        except VecsyncError as error:
            yield _failed(f"store {name}", error)


def _collections(workspace: Workspace, store: str) -> Iterator[Probe]:
    """Collections that the store cannot have, as somebody else has the name, or has in another space."""
    for entity in workspace.config.entities.values():
        for collection in (name for name, one in entity.collections.items() if one.store == store):
            try:
                pinned = workspace.store(store).pinned_space(collection)
                with suppress(LedgerRejected, LedgerUnavailable):  # said already
                    space = workspace.ledger.space_of(collection)
                    if space is not None:
                        check_space(collection, space, pinned)
            except (StoreForeign, SpaceMismatch) as error:
                yield _failed(f"{collection} in store {store}", error)


def _spaces(workspace: Workspace) -> Iterator[Probe]:
    """Collections whose model the chain does not have any more, or another one of its name, could be neither synced
    nor searched."""
    for name, entity in workspace.config.entities.items():
        for collection in entity.collections:
            try:
                with contained(f"collection {collection}"):
                    if workspace.ledger.space_of(collection) is not None:
                        embedder = workspace.embedders.of(name, collection, pin=False)
                        embedder.confirm()
                        yield Probe(f"collection {collection}", "OK", f"vectors of {embedder.provider.space}")
            except VecsyncError as error:
                yield _failed(f"collection {collection}", error)


def _ids_of_others(workspace: Workspace) -> Iterator[Probe]:
    """Collections that cannot be synced, as another entity has left its documents in them."""
    for name, entity in workspace.config.entities.items():
        for collection in entity.collections:
            try:
                with contained(f"collection {collection}"):
                    require_own_ids(workspace.ledger, name, entity, collection, workspace.source(name))
            except LedgerRejected as error:
                yield _failed(f"collection {collection}", error)
            except VecsyncError:  # the parts' own checks say it
                continue


def _alerts(workspace: Workspace) -> Iterator[Probe]:
    """Only whether the secrets are there: a check that is made often should not send messages."""
    alerts = workspace.config.alerts
    for name in alerts.channels:
        settings = getattr(alerts, name)
        unset = [v.env for v in dict(settings).values() if isinstance(v, EnvRef) and v.get() is None]
        if unset:
            yield Probe(f"alerts {name}", "FAIL", f"the environment variable {', '.join(unset)} is not set or empty")
        else:
            yield Probe(f"alerts {name}", "OK", "configured; `vecsync alerts test` sends a message")


def _check_results(workspace: Workspace, entity: str) -> Iterator[Probe]:
    """How many check results of its partitions, and over all of them, failed when they were last made: `vecsync status`
    shows the same ones."""
    part = f"checks of {entity}"
    try:
        results = configured(workspace.ledger.check_results(entity), workspace.config)
    except VecsyncError as error:
        yield _failed(part, error)
        return
    if not results:
        return
    failed = [one for one in results if not one.passed]
    warnings = sum(one.warning for one in failed)
    errors = len(failed) - warnings
    counts = ((errors, number_of(errors, "failed", "failed")), (warnings, f"{number_of(warnings, 'warning')}"))
    told = " and ".join(text for count, text in counts if count)
    state: State = "FAIL" if errors else "WARN" if warnings else "OK"
    what = f"{told}; see `vecsync status --failed-checks`" if failed else "none failed"
    yield Probe(part, state, f"{number_of(len(results), 'last result')}: {what}")


def _leftovers(workspace: Workspace) -> Iterator[Probe]:
    try:
        for one in leftovers(workspace):
            yield Probe(f"collection {one.collection}", "WARN", str(one))
    except VecsyncError as error:
        yield _failed("collections", error)
