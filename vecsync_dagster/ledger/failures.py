"""A database's errors as ours: the one place where they are told apart.

The type and the code of the error decide, never its text. Our messages are built from that code and the
ledger's name; a statement's values, which a driver likes to repeat, stay out of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy import exc

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable, VecsyncError
from vecsync_dagster.postgres_login import REASONS, refusal_of, unreachable_of

__all__ = ["MIGRATE", "ledger_errors"]

MIGRATE: Final = "run `vecsync migrate`"

_SQLITE_UNAVAILABLE: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_UNWRITABLE: Final = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}

# SQLSTATE: connection, resources, operator intervention (shut down, cancelled, starting), rolled back
# (deadlock, serialization), system error; then a lock not available or a database that takes no connections just
# now, and a server that is read-only because another one has taken over.
_PG_UNAVAILABLE: Final = ("08", "53", "57", "40", "58", "55", "25006")
_PG_DISK_FULL: Final = "53100"
_PG_NOT_THERE: Final = ("42P01", "42703")


@contextmanager
def ledger_errors(name: str) -> Iterator[None]:
    """Errors of the database `name` (a file, or a URL without its password) leave as Ledger* errors.

    Raises LedgerUnavailable, LedgerRejected or OutputUnwritable.
    """
    try:
        yield
    except exc.TimeoutError as error:
        raise LedgerUnavailable(f"ledger {name}: no connection became free in time", ledger=name) from error
    except exc.DBAPIError as error:
        # A server's text may quote a value: it is not chained.
        raise _translate(name, error) from None
    except (exc.SQLAlchemyError, UnicodeError) as error:
        reason = "a value that cannot be stored" if isinstance(error, exc.StatementError | UnicodeError) else "misuse"
        raise LedgerRejected(f"ledger {name}: {reason} ({type(error).__name__})", ledger=name) from error


def _translate(name: str, error: exc.DBAPIError) -> VecsyncError:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _sqlite(name, cause)
    if isinstance(cause, psycopg.Error):
        return _postgresql(name, cause)
    return LedgerRejected(f"ledger {name}: {type(cause).__name__}", ledger=name)


def _sqlite(name: str, error: sqlite3.Error) -> VecsyncError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte: the rest tells variants apart
    label = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _SQLITE_UNAVAILABLE:
        return LedgerUnavailable(f"ledger {name}: another process is writing it ({label})", ledger=name)
    if code in _SQLITE_UNWRITABLE:
        return OutputUnwritable(f"ledger {name}: the file cannot be opened or written ({label})", ledger=name)
    hint = f"; if its tables are missing, {MIGRATE}" if code == sqlite3.SQLITE_ERROR else ""
    return LedgerRejected(f"ledger {name}: the database refused a statement ({label}){hint}", ledger=name)


def _postgresql(name: str, error: psycopg.Error) -> VecsyncError:
    refused = refusal_of(error)
    state = error.sqlstate or refused or ""
    label = f"{type(error).__name__} {state}".rstrip()
    why = f": {REASONS[state]}" if state in REASONS else ""
    if state == _PG_DISK_FULL:
        return OutputUnwritable(f"ledger {name}: the server's disk is full ({label})", ledger=name)
    if state.startswith(_PG_UNAVAILABLE):
        return LedgerUnavailable(f"ledger {name}: the server is not available{why} ({label})", ledger=name)
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        reason = unreachable_of(error) or "is the server up, the login right?"
        return LedgerUnavailable(f"ledger {name}: no connection; {reason}", ledger=name)
    if refused:
        return LedgerRejected(f"ledger {name}: the server refused the login{why} ({label})", ledger=name)
    hint = f": its tables are missing or of another version; {MIGRATE}" if state in _PG_NOT_THERE else ""
    why = "" if hint else why
    return LedgerRejected(f"ledger {name}: the database refused a statement{why} ({label}){hint}", ledger=name)
