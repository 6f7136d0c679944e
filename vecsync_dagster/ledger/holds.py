"""The exclusive right to sync one tenant of an entity: one lock for all processes that share a ledger. Whoever has it
shares the entity with those that have others of its tenants; who is to have all of them has the entity alone."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from vecsync_dagster.errors import LedgerUnavailable, OutputUnwritable, PartitionBusy
from vecsync_dagster.ledger.database import Database
from vecsync_dagster.ledger.failures import ledger_errors
from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.private import private_file, private_folder

if sys.platform != "win32":
    import fcntl

__all__ = ["Holds"]

_LOCK: Final = select(func.pg_try_advisory_lock(bindparam("key")))
_SHARE: Final = select(func.pg_try_advisory_lock_shared(bindparam("key")))
_UNLOCK: Final = select(func.pg_advisory_unlock_all())
_ALIVE: Final = select(1)
_ALL: Final = ""
"""No tenant: in place of one it stands for the entity."""


@dataclass(frozen=True, slots=True)
class _Session:
    """What a right is held by on PostgreSQL, which ends with it. `turn`: of the threads that ask for it."""

    connection: Connection
    turn: threading.Lock = field(default_factory=threading.Lock)


class Holds(LedgerPart):
    """See `base.Ledger.hold`. Each kind of lock is one that ends with its process."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        super().__init__(database, clock)
        self._held: dict[bytes, threading.Lock] = {}
        self._inside: Counter[str] = Counter()
        self._closed: set[str] = set()
        self._changing = threading.Lock()
        self._sessions: dict[tuple[str, str], _Session] = {}

    def hold(self, entity: str, tenant: str) -> AbstractContextManager[None]:
        """Raises PartitionBusy, LedgerUnavailable, OutputUnwritable.

        Not reentrant. On PostgreSQL it takes a connection of its own, which must lead to the server itself
        or to a pooler that keeps sessions apart.
        """
        if self.database.dialect == "postgresql":
            return self._hold_session(entity, tenant)
        if self.database.file is None:
            return self._hold_here(entity, tenant)
        return self._hold_file(self._locks(self.database.file), entity, tenant)

    def hold_all(self, entity: str) -> AbstractContextManager[None]:
        """Raises as `hold` does. Where files cannot be locked to be shared (Windows), it keeps nobody out."""
        if self.database.dialect == "postgresql":
            return self._hold_session(entity, _ALL)
        if self.database.file is None:
            return self._close_here(entity)
        return self._entity_file(self._locks(self.database.file), entity, alone=True)

    @staticmethod
    def _locks(file: Path) -> Path:
        """Beside the file itself: links that lead to one ledger share its locks."""
        return Path(f"{file.resolve()}.locks")

    def _require_held(self, entity: str, tenant: str) -> None:
        if (session := self._sessions.get((entity, tenant))) is not None:
            with session.turn:
                try:
                    session.connection.execute(_ALIVE)
                except SQLAlchemyError:
                    raise _lost(entity, tenant) from None

    @contextmanager
    def _hold_here(self, entity: str, tenant: str) -> Iterator[None]:
        lock = self._held.setdefault(_digest(entity, tenant), threading.Lock())
        with self._changing:
            if entity in self._closed or not lock.acquire(blocking=False):
                raise _busy(entity, tenant)
            self._inside[entity] += 1
        try:
            yield
        finally:
            with self._changing:
                self._inside[entity] -= 1
                lock.release()

    @contextmanager
    def _close_here(self, entity: str) -> Iterator[None]:
        with self._changing:
            if entity in self._closed or self._inside[entity]:
                raise _busy(entity, _ALL)
            self._closed.add(entity)
        try:
            yield
        finally:
            with self._changing:
                self._closed.remove(entity)

    @contextmanager
    def _hold_file(self, folder: Path, entity: str, tenant: str) -> Iterator[None]:
        """The files stay: deleting one that somebody waits for would let two in."""
        # May be released by another thread than the one that took it.
        lock = FileLock(folder / f"{entity}-{_digest(entity, tenant).hex()[:16]}.lock", thread_local=False, mode=0o600)
        with ExitStack() as shared:
            try:
                private_folder(folder)
                lock.acquire(blocking=False)
                shared.callback(lock.release)
            except Timeout:
                raise _busy(entity, tenant) from None
            except OSError as error:
                raise _unwritable(folder, error) from error
            shared.enter_context(self._entity_file(folder, entity, alone=False))
            yield

    @contextmanager
    def _entity_file(self, folder: Path, entity: str, *, alone: bool) -> Iterator[None]:
        if sys.platform == "win32":
            yield
            return
        path = folder / f"{entity}-{_digest(entity, _ALL).hex()[:16]}.lock"
        try:
            private_folder(folder)
            private_file(path)
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(entity, _ALL) from None
            except OSError as error:
                raise _unwritable(folder, error) from error
            yield
        finally:
            os.close(file)

    @contextmanager
    def _hold_session(self, entity: str, tenant: str) -> Iterator[None]:
        """What the block raises leaves as it is: only our own two statements are the ledger's errors."""
        with ledger_errors(self.database.name):
            connection = self.database.session()
        try:
            with ledger_errors(self.database.name):
                shared = tenant == _ALL or connection.execute(_SHARE, _key(entity, _ALL)).scalar_one()
                if not shared or not connection.execute(_LOCK, _key(entity, tenant)).scalar_one():
                    _let_go(connection)
                    raise _busy(entity, tenant)
            self._sessions[entity, tenant] = _Session(connection)
            try:
                yield
            except BaseException:
                _let_go(connection)
                raise
            finally:
                del self._sessions[entity, tenant]
            # Fails where the connection broke on the way: then the right was lost, and the run must say so.
            if connection.invalidated:
                raise _lost(entity, tenant)
            with ledger_errors(self.database.name):
                connection.execute(_UNLOCK)
        finally:
            connection.close()


def _let_go(connection: Connection) -> None:
    try:
        connection.execute(_UNLOCK)
    except SQLAlchemyError:
        connection.invalidate()  # with the session the lock ends too; the block's own error says more


def _key(entity: str, tenant: str) -> dict[str, Any]:
    return {"key": int.from_bytes(_digest(entity, tenant)[:8], "big", signed=True)}


def _digest(entity: str, tenant: str) -> bytes:
    return hashlib.sha256(f"vecsync\0{entity}\0{tenant}".encode()).digest()


def _unwritable(folder: Path, error: OSError) -> OutputUnwritable:
    reason = error.strerror or type(error).__name__
    return OutputUnwritable(f"{folder}: cannot be written ({reason})", folder=str(folder))


def _lost(entity: str, tenant: str) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"{entity}, tenant {tenant}: the session that held the right to sync it was cut; another run may have it now",
        entity=entity,
        tenant=tenant,
    )


def _busy(entity: str, tenant: str) -> PartitionBusy:
    if tenant == _ALL:
        return PartitionBusy(f"{entity}: a run is syncing it, or it is being dropped", entity=entity)
    return PartitionBusy(f"{entity}, tenant {tenant}: another run is syncing it", entity=entity, tenant=tenant)
