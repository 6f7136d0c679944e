"""A URL of PostgreSQL, checked before it is used: libpq would name neither the setting nor, in part, the option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg import pq
from sqlalchemy import URL

from vecsync_dagster.errors import ConfigError
from vecsync_dagster.url_options import refuse_unencoded, refuse_unknown, wrong_value

__all__ = ["check_postgres_url"]

_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "sslcertmode": ("disable", "allow", "require"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
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
_PORTS: Final = range(1, 65536)


def check_postgres_url(written: str, url: URL, *, key: str) -> None:
    """`written` is the text that `url` was parsed from. Raises ConfigError with `key` and the option, never a value."""
    refuse_unencoded((url.host or "") + (url.database or "" if url.password else ""), key=key)
    valid = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    refuse_unknown("PostgreSQL", written, url.query, valid, key=key)
    for option, value in url.query.items():
        if option == "host":  # may be given more than once
            continue
        if not isinstance(value, str):
            raise ConfigError(f"{key}: the URL option {option!r} is there more than once", key=key)
        if option in _VALUES and value not in _VALUES[option]:
            raise wrong_value(option, ", ".join(_VALUES[option]), key=key)
        if option in _WHOLE and not value.strip().lstrip("-").isdecimal():
            raise wrong_value(option, "a whole number", key=key)
    if url.port is not None and url.port not in _PORTS:
        raise ConfigError(f"{key}: the URL's port is not one of 1 to 65535", key=key)
