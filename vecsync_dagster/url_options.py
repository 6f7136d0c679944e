"""What may be wrong with a database's URL, without a part of it that may be secret: of an option its name alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from vecsync_dagster.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["refuse_empty", "refuse_unencoded", "refuse_unknown", "wrong_value"]

_SAME = {"ssl": "sslmode"}
"""What other drivers call an option, where its name is not close enough."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")


def refuse_unencoded(behind: str, *, key: str) -> None:
    """Raises ConfigError where what is `behind` the user's @ holds another: the rest of a password that nobody
    encoded would be shown as the host or the database."""
    if "@" in behind:
        raise ConfigError(
            f"{key}: percent-encode special characters of the URL's user and password (@ is %40, / is %2F)", key=key
        )


def refuse_empty(written: str, url: URL, valid: Collection[str], *, key: str) -> None:
    """Raises ConfigError with the options that have no value: SQLAlchemy leaves them out of `url`, which it parsed."""
    behind = written if url.username is None else written.partition("@")[2]
    given = [name for name, value in parse_qsl(behind.partition("?")[2], keep_blank_values=True) if not value]
    refuse_unknown("the database", written, given, valid, key=key)
    if given:
        named = ", ".join(map(repr, dict.fromkeys(given)))
        raise ConfigError(f"{key}: no value for the URL option {named}; write one, or remove the option", key=key)


def refuse_unknown(product: str, url: str, given: Iterable[str], valid: Collection[str], *, key: str) -> None:
    """Raises ConfigError with the names of `given` that are not `valid`, each with the one that was probably meant."""
    unknown = [name for name in dict.fromkeys(given) if name not in valid]
    if not unknown:
        return
    # Where an unencoded @ comes after it, the ? is one of the password.
    if "@" in url.partition("?")[2] or not all(_NAME.fullmatch(name) for name in unknown):
        raise ConfigError(
            f"{key}: the URL has options that {product} does not know; percent-encode special characters of user and "
            "password (? is %3F, @ is %40)",
            key=key,
        )
    named = ", ".join(repr(name) + _meant(name, valid) for name in unknown)
    options = "option" if len(unknown) == 1 else "options"
    raise ConfigError(f"{key}: {product} knows no URL {options} {named}; remove what it does not know", key=key)


def wrong_value(option: str, valid: str, *, key: str) -> ConfigError:
    return ConfigError(f"{key}: the URL option {option!r} has a wrong value; valid is {valid}", key=key)


def _meant(name: str, valid: Collection[str]) -> str:
    if (same := _SAME.get(name)) in valid:
        return f" (did you mean {same}?)"
    near = difflib.get_close_matches(name, valid, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
