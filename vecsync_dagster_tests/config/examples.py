"""A small valid configuration, ways to break it, and what is said about a broken one."""

from __future__ import annotations

import pytest

from vecsync_dagster.config import parse_config
from vecsync_dagster.errors import ConfigError

__all__ = ["VALID", "changed", "message_of"]

VALID = """\
sources:
  db: {type: sqlite, path: app.sqlite}
entities:
  works:
    source: db
    table: works
    collections:
      works: {text: "{name}", payload: [code]}
"""


def changed(old: str, new: str) -> str:
    """The valid configuration with one place of it changed."""
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def message_of(text: str) -> str:
    """What people are told of a configuration that is refused."""
    with pytest.raises(ConfigError) as refused:
        parse_config(text)
    return str(refused.value)
