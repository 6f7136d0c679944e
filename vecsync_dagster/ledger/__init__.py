"""The ledger: what the store is known to hold. `build_ledger` opens the one a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL

from vecsync_dagster.config.models import LedgerConfig, resolve
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.ledger.database import parse_url
from vecsync_dagster.ledger.ledger import SqlLedger
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.private import private_folder

__all__ = ["Ledger", "SqlLedger", "build_ledger", "ledger_url"]


def build_ledger(
    config: LedgerConfig,
    *,
    state_folder: Path,
    auto_migrate: bool | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> SqlLedger:
    """The ledger of a configuration: `ledger.sqlite` in the state folder, unless it gives a URL.

    `auto_migrate` None: an SQLite ledger is migrated here and now; a PostgreSQL ledger that is behind is
    refused, because others may be using it: `vecsync migrate` is for that.

    Raises ConfigError, LedgerRejected, LedgerUnavailable, OutputUnwritable.
    """
    url = ledger_url(config, state_folder=state_folder)
    if config.url is None:
        _make_folder(state_folder)
    if auto_migrate is None:
        auto_migrate = parse_url(url).get_backend_name() == "sqlite"
    return SqlLedger.open(url, auto_migrate=auto_migrate, clock=clock)


def ledger_url(config: LedgerConfig, *, state_folder: Path) -> str:
    """The ledger's URL, with its password: for `build_ledger` and `migrate`. Raises ConfigError."""
    if config.url is not None:
        return resolve(config.url, "ledger.url")
    return URL.create("sqlite", database=str(state_folder / "ledger.sqlite")).render_as_string(hide_password=False)


def _make_folder(folder: Path) -> None:
    try:
        private_folder(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"state folder {folder}: cannot be created ({reason})", folder=str(folder)) from error
