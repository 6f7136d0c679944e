"""A URL of PostgreSQL, checked before it is used: libpq would name neither the setting nor, in part, the option.

What libpq refuses by itself has no code, so that it would look like an outage. Here libpq is asked before, with a
listener of our own in place of the server: where it does not get to the login there, the URL is wrong.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from vecsync_dagster.errors import ConfigError
from vecsync_dagster.url_options import refuse_empty, refuse_unencoded, refuse_unknown, wrong_value

__all__ = ["check_postgres_url", "postgres_settings"]

_BOOLEAN: Final = ("0", "1")
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8"),  # the only one in which any text can be read and written
    "gssdelegation": _BOOLEAN,
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "sslcertmode": ("disable", "allow", "require"),
    "sslcompression": _BOOLEAN,
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "sslsni": _BOOLEAN,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_WHOLE: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)
_FILES: Final = ("passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert")
_PORTS: Final = range(1, 65536)
_PARTS: Final[Mapping[str, str]] = {
    "host": "host",
    "port": "port",
    "user": "username",
    "password": "password",
    "dbname": "database",
}
"""Options that are parts of the URL as well, and SQLAlchemy's names for those."""
_NOT_TRIED: Final = ("host", "hostaddr", "port", "password")
_ANSWERS: Final[Mapping[bytes, bytes]] = {
    (8).to_bytes(4) + (80877103).to_bytes(4): b"S",  # is there TLS? Yes: libpq then reads its certificates
    (8).to_bytes(4) + (80877104).to_bytes(4): b"N",  # encryption by GSSAPI
}
_WAIT_S: Final = 5.0


def check_postgres_url(written: str, url: URL, *, key: str) -> None:
    """`written` is the text that `url` was parsed from. Raises ConfigError with `key` and the option, never a value."""
    refuse_unencoded((url.host or "") + (url.database or "" if url.password else ""), key=key)
    valid = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    refuse_unknown("PostgreSQL", written, url.query, valid, key=key)
    refuse_empty(written, url, valid, key=key)
    for option, value in url.query.items():
        if isinstance(value, str):
            _check_value(option, value, key)
        elif option != "host":  # may be given more than once
            raise ConfigError(f"{key}: the URL option {option!r} is there more than once", key=key)
    if url.port is not None and url.port not in _PORTS:
        raise ConfigError(f"{key}: the URL's port is not one of 1 to 65535", key=key)
    try:
        settings = postgres_settings(url)
    except (ArgumentError, ValueError):  # without it: SQLAlchemy quotes what it does not like
        raise ConfigError(
            f"{key}: the URL's hosts and ports do not match; write several like "
            "postgresql://user:password@/database?host=a,b&port=5432,5432",
            key=key,
        ) from None
    for option, part in _PARTS.items():
        there = getattr(url, part)
        if there and str(settings[option]) != str(there):
            raise ConfigError(f"{key}: the URL has a {part} and another one in the option {option!r}", key=key)
    _check_addresses(settings, key)
    _try(settings, key)


def postgres_settings(url: URL) -> dict[str, Any]:
    """The URL as the driver takes it: also a host that is one of its options. Raises ArgumentError or ValueError."""
    hosts = url.query.get("host", "")
    if isinstance(hosts, tuple) and any(host.count(":") > 1 for host in hosts):
        raise ValueError("more than a host and a port")  # SQLAlchemy would drop what comes after the second colon
    dialect = url.set(drivername="postgresql+psycopg").get_dialect()()
    _, settings = dialect.create_connect_args(url)
    return dict(settings)


def _check_value(option: str, value: str, key: str) -> None:
    if option in _VALUES and value not in _VALUES[option]:
        raise wrong_value(option, ", ".join(_VALUES[option]), key=key)
    if option in _WHOLE and not value.strip().lstrip("-").isdecimal():
        raise wrong_value(option, "a whole number", key=key)
    if option == "port" and not all(_is_port(port) for port in value.split(",")):
        raise wrong_value(option, "a whole number from 1 to 65535, or one for each host: 5432,5433", key=key)
    # libpq goes on without most of these files, as if they had not been asked for.
    if option in _FILES and not _is_named_file(option, value):
        raise wrong_value(option, "a file that can be read", key=key)
    if option == "sslcrldir" and not os.path.isdir(value):
        raise wrong_value(option, "a folder", key=key)


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdecimal() and int(port) in _PORTS)


def _is_named_file(option: str, value: str) -> bool:
    if option == "sslrootcert" and value == "system":
        return True
    if option == "sslkey" and ":" in value:  # a key of OpenSSL's engine
        return True
    with suppress(ValueError):  # a path with a zero byte
        return os.access(value, os.R_OK) and not os.path.isdir(value)
    return False


def _check_addresses(settings: Mapping[str, Any], key: str) -> None:
    """What libpq compares and looks up host by host."""
    for option, value in settings.items():
        if "\0" in str(value):  # would end the text for libpq, and with it all that follows
            raise ConfigError(f"{key}: the URL's {option} has a zero byte (%00)", key=key)
    addresses = str(settings.get("hostaddr", "")).split(",")
    for address in filter(None, addresses):
        try:
            socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            raise wrong_value("hostaddr", "a numeric IP address, or one for each host", key=key) from None
    hosts = str(settings.get("host", "")).split(",")
    if addresses == [""]:
        addresses = hosts
    elif "host" in settings and len(addresses) != len(hosts):
        raise wrong_value("hostaddr", "one address for each host", key=key)
    ports = str(settings.get("port", "")).split(",")
    if not all(map(_is_port, ports)) or len(ports) not in (1, len(addresses)):
        raise wrong_value("port", "one port for all hosts, or one for each", key=key)


def _try(settings: Mapping[str, Any], key: str) -> None:
    """Raises ConfigError where libpq would not get to the login, whoever the server is."""
    tried = {option: value for option, value in settings.items() if option not in _NOT_TRIED}
    if not _is_taken(tried):
        options = ", ".join(repr(option) for option in tried if option not in _PARTS)
        there = f"what the URL has for {options}, or with " if options else ""
        raise ConfigError(
            f"{key}: libpq refuses to connect with {there}its environment variables (PG...) and ~/.postgresql", key=key
        )


def _is_taken(settings: Mapping[str, Any]) -> bool:
    """Whether libpq gets with these to where it would log in, or begin with TLS. True too where that cannot be tried:
    the server itself will tell."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(_WAIT_S)
            address = {"host": "127.0.0.1", "hostaddr": "127.0.0.1", "port": listening.getsockname()[1]}
            connection = pq.PGconn.connect_start(make_conninfo("", **{**settings, **address}).encode())
            try:
                return connection.status != pq.ConnStatus.BAD and _is_begun(connection, listening)
            finally:
                connection.finish()
    except OSError:
        return True


def _is_begun(connection: pq.abc.PGconn, listening: socket.socket) -> bool:
    with listening.accept()[0] as peer:
        peer.settimeout(_WAIT_S)
        while (state := connection.connect_poll()) != pq.PollingStatus.FAILED:
            if state == pq.PollingStatus.READING:
                answer = _ANSWERS.get(peer.recv(8))
                if answer is None:  # the login, or TLS
                    return True
                peer.sendall(answer)
    return False
