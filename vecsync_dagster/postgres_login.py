"""Why PostgreSQL refused a connection: libpq keeps the SQLSTATE of that to itself, and its text is in any language.

The connection is made once more with libpq's own trace, which holds the code that the server sent. The trace stays in
memory: it may hold a password. Where it can give no code (a server that cannot be reached, a libpq before 18, a system
other than Linux) there is none, and the refusal counts as an outage.

The words for a code are ours: those of a server may quote anything.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

__all__ = ["NO_PASSWORD", "NO_TLS", "REASONS", "refusal_of", "unreachable_of"]

NO_PASSWORD: Final = "no password"  # noqa: S105 (what is said where there is none)
NO_TLS: Final = "no TLS"
REASONS: Final[Mapping[str, str]] = {
    "3D000": "the database does not exist",
    "28000": "the role does not exist, or may not log in",
    "28P01": "the password is wrong, or the role does not exist",
    NO_PASSWORD: "the server asks for a password",
    NO_TLS: "server and URL agree on no encryption",
    "42501": "permission denied",
    "42P01": "a table does not exist",
    "42703": "a column does not exist",
    "3F000": "a schema does not exist",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "too many connections",
    "57014": "the statement took too long, or was cancelled",
    "57P01": "the server is shutting down",
    "57P03": "the server is starting or stopping",
    "25006": "the server is read-only",
}
"""What a SQLSTATE means, or what a login lacks."""
_WAIT_S: Final = 10.0
_PROBE_S: Final = 1.0
# The code comes before the text, which could hold anything.
_CODE: Final = re.compile(rb'\tErrorResponse\t(?: [A-BD-LN-Z] "[^"]*")* C "([0-9A-Z]{5})"')
_TLS_ANSWER: Final = re.compile(rb"\tSSLResponse\t [A-Z]\Z")


def refusal_of(error: BaseException | None) -> str | None:
    """The SQLSTATE with which a server refused the login that this error is of; NO_PASSWORD where it asked for one and
    got none, NO_TLS where the two found no encryption in common; None where the server said nothing."""
    if not isinstance(error, psycopg.OperationalError) or error.sqlstate is not None:
        return None
    failed = error.pgconn  # of connections that were not made alone
    if failed is None:
        return None
    if failed.needs_password:
        return NO_PASSWORD
    settings = {option.keyword.decode(): option.val.decode() for option in failed.info if option.val is not None}
    return _traced(make_conninfo("", **settings)) if settings and sys.platform == "linux" else None


def unreachable_of(error: psycopg.Error) -> str | None:
    """Why no connection came about, by the operating system's own code; None where the server does answer."""
    failed = error.pgconn
    if failed is None or not failed.host or failed.host.startswith(b"/"):
        return None
    try:
        socket.create_connection((failed.host.decode(), int(failed.port)), _PROBE_S).close()
    except socket.gaierror:
        return "the host's name is unknown"
    except TimeoutError:
        return "the host does not answer"
    except OSError as refused:
        return os.strerror(refused.errno).lower() if refused.errno else None
    return None


def _traced(conninfo: str) -> str | None:
    with open(os.memfd_create("vecsync"), "w+b") as trace:  # a file of the memory, closed with this block
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace.fileno())
            connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            refused = _refused(connection)
            connection.untrace()  # writes the rest
        except psycopg.Error:  # no trace here, or no connection to trace
            return None
        finally:
            connection.finish()
        trace.seek(0)
        told = trace.read().rstrip()
    if not refused:
        return None
    codes = _CODE.findall(told)
    if codes:
        return bytes(codes[-1]).decode()
    return NO_TLS if _TLS_ANSWER.search(told) else None


def _refused(connection: pq.abc.PGconn) -> bool:
    """Connect; False where it worked, or took too long."""
    until = time.monotonic() + _WAIT_S
    state = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and state in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN if state == pq.PollingStatus.READING else select.POLLOUT)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            return False
        state = pq.PollingStatus(connection.connect_poll())
    return state != pq.PollingStatus.OK
