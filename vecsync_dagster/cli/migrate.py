"""`vecsync migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config

__all__ = ["migrate"]


def migrate(
    ctx: typer.Context,
    config: ConfigOption = None,
    down: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Go back to this version; `base` drops the ledger's tables."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the ledger's tables to the version this vecsync needs, or back to an older one.

    An SQLite ledger is brought up by itself; one in PostgreSQL waits for this command. Going down loses what
    the newer tables held. With `--down base` that is everything, the embedding cache too: `vecsync ledger rebuild`
    finds out again what the store holds, but texts that change from then on and back are paid for again.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.ledger import ledger_url
    from vecsync_dagster.ledger.migrate import downgrade, upgrade
    from vecsync_dagster.ledger.version import current

    _make_folder(settings)
    url = ledger_url(settings.ledger, state_folder=settings.state_folder)
    before = current(url)
    if down is None:
        upgrade(url)
    else:
        downgrade(url, down)
    after = current(url)
    if as_json:
        output.print_json({"command": "migrate", "from": before, "to": after})
    elif before == after:
        output.stdout().print(f"the ledger is at version {after or 'none'}; nothing to do")
    else:
        output.stdout().print(f"the ledger went from version {before or 'none'} to {after or 'none'}")


def _make_folder(config: Config) -> None:
    from vecsync_dagster.errors import OutputUnwritable
    from vecsync_dagster.private import private_folder

    if config.ledger.url is not None:
        return
    folder = config.state_folder
    try:
        private_folder(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"state folder {folder}: cannot be created: {reason}", folder=str(folder)) from error
