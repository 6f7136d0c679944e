"""What our sessions with PostgreSQL depend on: a role or database may have other settings, and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

__all__ = ["LOOKS", "assignments", "set_for_session"]

LOOKS: Final[Mapping[str, str]] = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
}
"""Settings that decide how a value looks."""


def assignments(settings: Mapping[str, str]) -> list[sql.Composed]:
    return [
        sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in settings.items()
    ]


def set_for_session(driver: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """In one round trip. Not by libpq's `options`, which PgBouncer refuses."""
    driver.autocommit = True
    driver.execute(sql.SQL("; ").join(assignments(settings)))
    driver.autocommit = False
