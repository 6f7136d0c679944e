"""`vecsync install-triggers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, EntityOption, read_config
from vecsync_dagster.errors import SourceRejected, WrongUsage

if TYPE_CHECKING:
    from psycopg import sql

    from vecsync_dagster.config.models import PostgresSource
    from vecsync_dagster.sync import Workspace

__all__ = ["install_triggers"]

_NOT_A_TABLE = "42809"
_NO_TRIGGERS = ": only a table can have these triggers, a view cannot; its changes are found by polling"


def install_triggers(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the triggers and their functions away again.")] = False,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Also remove those of entities that this vecsync.yaml does not have."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL; touch nothing.")] = False,
    url_env: Annotated[
        str | None,
        typer.Option(
            "--url-env",
            metavar="NAME",
            help="The environment variable with the URL of the tables' owner, where the source's own user may not "
            "create triggers.",
        ),
    ] = None,
) -> None:
    """Let PostgreSQL tell `vecsync watch` which tenants change.

    Each table of an entity gets a function and statement-level triggers that NOTIFY the keys of the tenants a
    statement has touched. Optional: without them, changes are found by looking. Installing again replaces them. Those
    of an entity that is on another table now are removed; those of an entity that is not in this vecsync.yaml may be
    another configuration's, and stay without --unknown.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.config.models import PostgresSource
    from vecsync_dagster.sources.postgres_notify import execute
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        if entity is not None:
            workspace.entity(entity)
        failed = not _remove_left(workspace, entity, unknown=unknown, dry_run=dry_run, url_env=url_env)
        for name in [entity] if entity is not None else list(settings.entities):
            source_name = workspace.entity(name).source
            source = settings.sources[source_name]
            if not isinstance(source, PostgresSource):
                if entity is not None:
                    raise WrongUsage(f"{name}: its source {source_name} is no PostgreSQL, and has no NOTIFY")
                output.note(f"{name}: its source {source_name} is no PostgreSQL: left out")
                continue
            statements = _statements(workspace, name, remove=remove)
            if dry_run:
                _print(statements)
                continue
            try:
                execute(
                    _owners_url(source, source_name, url_env),
                    statements,
                    f"entity {name}, source {source_name}: its triggers",
                )
            except SourceRejected as error:  # the others may still get theirs
                kind = error.fields.get("sqlstate") == _NOT_A_TABLE
                output.warn(f"{error}{_NO_TRIGGERS if kind else ''}")
                failed = True
                continue
            output.stdout().print(f"{name}: triggers {'removed' if remove else 'installed'}")
    if failed:
        raise typer.Exit(1)


def _remove_left(
    workspace: Workspace, entity: str | None, *, unknown: bool, dry_run: bool, url_env: str | None
) -> bool:
    """Before others are made: they may have the same names. False where the database refused it."""
    from vecsync_dagster.cli.left_triggers import find_left
    from vecsync_dagster.sources.postgres_notify import execute

    done = True
    for name, source, left in list(find_left(workspace, entity)):
        if left.entity not in workspace.config.entities and not unknown:
            output.note(f"{left.entity}: its triggers stay: another vecsync.yaml may have it; --unknown removes them")
            continue
        if dry_run:
            _print([left.drop])
            continue
        try:
            execute(_owners_url(source, name, url_env), [left.drop], f"source {name}: triggers of {left.entity}")
        except SourceRejected as error:
            output.warn(str(error))
            done = False
            continue
        output.stdout().print(f"{left.entity}: triggers removed from {', '.join(left.tables) or 'no table'}")
    return done


def _owners_url(source: PostgresSource, name: str, url_env: str | None) -> str:
    from vecsync_dagster.config.models import EnvRef
    from vecsync_dagster.sources.sql_postgres import Postgres

    owner = source if url_env is None else source.model_copy(update={"url": EnvRef(env=url_env)})
    return Postgres(owner, name=name).conninfo()


def _print(statements: Sequence[sql.Composed]) -> None:
    for statement in statements:
        output.stdout().print(f"{statement.as_string().strip()};", soft_wrap=True, markup=False)


def _statements(workspace: Workspace, name: str, *, remove: bool) -> list[sql.Composed]:
    from vecsync_dagster.sources import SqlSource
    from vecsync_dagster.sources.postgres_notify import install_statements, remove_statements

    source = workspace.source(name)
    assert isinstance(source, SqlSource)  # noqa: S101 (a PostgreSQL source is one)
    schema, table = source.place
    if remove:
        return remove_statements(name, schema, table)
    return install_statements(name, workspace.entity(name), schema, table)
