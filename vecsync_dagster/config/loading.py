"""Reading vecsync.yaml: finding the file, and the environment variables that override it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vecsync_dagster.config.messages import explain
from vecsync_dagster.config.models import Config
from vecsync_dagster.config.values import environment, trimmed
from vecsync_dagster.config.yaml_text import KeyPath, parse_yaml
from vecsync_dagster.errors import ConfigError

__all__ = [
    "DEFAULT",
    "ENVIRONMENT",
    "RETRY_ENVIRONMENT",
    "find_config",
    "load_config",
    "parse_config",
    "validate_config",
]

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "SYNC_MODE": ("sync", "mode"),
    "SYNC_PAGE": ("sync", "page"),
    "SYNC_BATCH": ("sync", "batch"),
    "SYNC_PARALLEL": ("sync", "parallel"),
    "SYNC_SKIP_INVALID": ("sync", "skip_invalid"),
    "SYNC_VERIFY": ("sync", "verify"),
    "SYNC_REPAIR": ("sync", "repair"),
    "VECSYNC_STATE": ("state",),
}
"""Environment variables that override a key of the file (besides VECSYNC_CONFIG, which names the file)."""

RETRY_ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "SYNC_WORKER_ENABLED": ("sync", "retry", "enabled"),
    "SYNC_WORKER_INTERVAL_MS": ("sync", "retry", "interval"),
    "SYNC_WORKER_BATCH_SIZE": ("sync", "retry", "batch"),
    "SYNC_MAX_RETRIES": ("sync", "retry", "max_retries"),
    "SYNC_BASE_BACKOFF_MS": ("sync", "retry", "base"),
    "SYNC_BACKOFF_MULTIPLIER": ("sync", "retry", "multiplier"),
    "SYNC_MAX_BACKOFF_MS": ("sync", "retry", "cap"),
}
"""The same for the retry worker, by the names that deployments of its predecessor have: `_MS` are milliseconds."""


DEFAULT = Path("vecsync.yaml")


def find_config(explicit: Path | None = None) -> Path:
    """`--config`, else VECSYNC_CONFIG, else ./vecsync.yaml. Raises ConfigError where there is none."""
    variable = environment("VECSYNC_CONFIG")
    named = explicit or (Path(variable) if variable else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{named}: no such configuration file", file=str(named))
        return named
    if not DEFAULT.is_file():
        raise ConfigError(
            "no vecsync.yaml in this folder; give one with --config FILE or VECSYNC_CONFIG, "
            "or run `vecsync demo` to get one to start from"
        )
    return DEFAULT


def load_config(path: Path) -> Config:
    """Read and validate the file. Raises ConfigError that names file, line, key and what would be valid."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", file=str(path)) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file as UTF-8", file=str(path)) from None
    # Not the folder a link leads to: Kubernetes makes a new one whenever a mounted file changes.
    return parse_config(text, name=str(path)).with_folder(path.absolute().parent)


def parse_config(text: str, *, name: str = "vecsync.yaml") -> Config:
    """The same from text; relative paths start at the current folder."""
    data, lines = parse_yaml(text, name)
    return validate_config(data, name=name, lines=lines)


def validate_config(data: Any, *, name: str, lines: Mapping[KeyPath, int] | None = None) -> Config:
    """The same from plain data, which is changed where the environment overrides it. `lines`: of each key, if it
    came from a file."""
    overridden = _override(data)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        messages = explain(error, data, lines or {}, overridden)
        raise ConfigError("\n".join(f"{name}{message}" for message in messages), file=name) from None


def _override(data: Any) -> dict[tuple[Any, ...], str]:
    """Put the environment's values into the data; returns which variable stands behind which key."""
    used: dict[tuple[Any, ...], str] = {}
    for variable, key in {**ENVIRONMENT, **RETRY_ENVIRONMENT}.items():
        value = os.environ.get(variable)
        place = data
        text = trimmed(value or "")
        for part in key[:-1] if value else ():
            if isinstance(place, dict) and place.get(part) is None:
                place[part] = {}
            place = place.get(part) if isinstance(place, dict) else None
        if value and isinstance(place, dict):  # a file that has something else there is refused anyway
            place[key[-1]] = int(text) / 1000 if variable.endswith("_MS") and _is_number(text) else text
            used[key] = variable
    return used


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdecimal()
