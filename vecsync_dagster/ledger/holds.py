"""The exclusive right to sync one tenant of an entity: one lock for all processes that share a ledger."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from vecsync_dagster.errors import OutputUnwritable, PartitionBusy
from vecsync_dagster.ledger.database import Database
from vecsync_dagster.ledger.failures import ledger_errors
from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.private import private_folder

__all__ = ["Holds"]

_LOCK: Final = select(func.pg_try_advisory_lock(bindparam("key")))
_UNLOCK: Final = select(func.pg_advisory_unlock(bindparam("key")))


class Holds(LedgerPart):
    """See `base.Ledger.hold`. Each kind of lock is one that ends with its process."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        super().__init__(database, clock)
        self._held: dict[bytes, threading.Lock] = {}

    def hold(self, entity: str, tenant: str) -> AbstractContextManager[None]:
        """Raises PartitionBusy, LedgerUnavailable, OutputUnwritable.

        Not reentrant. On PostgreSQL it takes a connection of its own, which must lead to the server itself
        or to a pooler that keeps sessions apart.
        """
        if self.database.dialect == "postgresql":
            return self._hold_session(entity, tenant)
        if self.database.file is None:
            return self._hold_here(entity, tenant)
        return self._hold_file(Path(f"{self.database.file}.locks"), entity, tenant)

    @contextmanager
    def _hold_here(self, entity: str, tenant: str) -> Iterator[None]:
        lock = self._held.setdefault(_digest(entity, tenant), threading.Lock())
        if not lock.acquire(blocking=False):
            raise _busy(entity, tenant)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _hold_file(self, folder: Path, entity: str, tenant: str) -> Iterator[None]:
        """The files stay: deleting one that somebody waits for would let two in."""
        # May be released by another thread than the one that took it.
        lock = FileLock(folder / f"{entity}-{_digest(entity, tenant).hex()[:16]}.lock", thread_local=False, mode=0o600)
        try:
            private_folder(folder)
            lock.acquire(blocking=False)
        except Timeout:
            raise _busy(entity, tenant) from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise OutputUnwritable(f"{folder}: cannot be written ({reason})", folder=str(folder)) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _hold_session(self, entity: str, tenant: str) -> Iterator[None]:
        """What the block raises leaves as it is: only our own two statements are the ledger's errors."""
        key = {"key": int.from_bytes(_digest(entity, tenant)[:8], "big", signed=True)}
        with ledger_errors(self.database.name):
            connection = self.database.session()
        try:
            with ledger_errors(self.database.name):
                if not connection.execute(_LOCK, key).scalar_one():
                    raise _busy(entity, tenant)
            try:
                yield
            except BaseException:
                _let_go(connection, key)
                raise
            # Fails where the connection broke on the way: then the right was lost, and the run must say so.
            with ledger_errors(self.database.name):
                connection.execute(_UNLOCK, key)
        finally:
            connection.close()


def _let_go(connection: Connection, key: dict[str, Any]) -> None:
    try:
        connection.execute(_UNLOCK, key)
    except SQLAlchemyError:
        connection.invalidate()  # with the session the lock ends too; the block's own error says more


def _digest(entity: str, tenant: str) -> bytes:
    return hashlib.sha256(f"vecsync\0{entity}\0{tenant}".encode()).digest()


def _busy(entity: str, tenant: str) -> PartitionBusy:
    return PartitionBusy(f"{entity}, tenant {tenant}: another run is syncing it", entity=entity, tenant=tenant)
