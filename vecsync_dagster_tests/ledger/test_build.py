"""The ledger a configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecsync_dagster.config.models import EnvRef, LedgerConfig
from vecsync_dagster.errors import ConfigError, LedgerRejected, OutputUnwritable
from vecsync_dagster.ledger import build_ledger, ledger_url, migrate
from vecsync_dagster_tests.ledger.samples import A, confirm

FROM_ENVIRONMENT = LedgerConfig(url=EnvRef(env="LEDGER_URL"))


def test_without_a_url_the_ledger_is_a_file_in_the_state_folder(tmp_path: Path) -> None:
    """The folder and the file are made, in WAL mode, and a second opening finds what was written."""
    folder = tmp_path / "new" / "100% state"
    ledger = build_ledger(LedgerConfig(), state_folder=folder)
    confirm(ledger, A, ["d1"])
    with ledger.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    ledger.close()
    assert (folder / "ledger.sqlite").is_file()
    again = build_ledger(LedgerConfig(), state_folder=folder)
    assert again.tally(*A).held == 1
    again.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A state folder below a file is an unwritable output."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable, match="file/state: cannot be created"):
        build_ledger(LedgerConfig(), state_folder=tmp_path / "file" / "state")


def test_an_sqlite_ledger_is_not_migrated_against_ones_will(tmp_path: Path) -> None:
    """auto_migrate=False refuses a ledger that is not there yet."""
    with pytest.raises(LedgerRejected, match="run `vecsync migrate`"):
        build_ledger(LedgerConfig(), state_folder=tmp_path, auto_migrate=False)


def test_a_url_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing variable is a configuration error with the key and the variable."""
    monkeypatch.delenv("LEDGER_URL", raising=False)
    with pytest.raises(ConfigError, match=r"ledger.url: the environment variable LEDGER_URL is not set"):
        build_ledger(FROM_ENVIRONMENT, state_folder=tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_postgresql_ledger_is_migrated_only_when_asked(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A server's ledger that is behind is refused by default, and opens once it was migrated."""
    monkeypatch.setenv("LEDGER_URL", postgres_database.replace("postgresql", scheme, 1))
    with pytest.raises(LedgerRejected, match="run `vecsync migrate`"):
        build_ledger(FROM_ENVIRONMENT, state_folder=tmp_path)
    migrate.upgrade(ledger_url(FROM_ENVIRONMENT, state_folder=tmp_path))
    ledger = build_ledger(FROM_ENVIRONMENT, state_folder=tmp_path)
    confirm(ledger, A, ["d1"])
    ledger.close()
    again = build_ledger(FROM_ENVIRONMENT, state_folder=tmp_path, auto_migrate=True)
    assert again.tally(*A).held == 1
    again.close()
    assert list(tmp_path.iterdir()) == []
