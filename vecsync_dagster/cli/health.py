"""`vecsync health`: what a supervisor asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config
from vecsync_dagster.words import one_line

if TYPE_CHECKING:
    from vecsync_dagster.sync.health import Trouble

__all__ = ["health"]

_LISTED: Final = 20
_AFTER_CODE: Final = re.compile(r"(: [A-Z][A-Z0-9_]+): .*")


def health(ctx: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say in one exit code whether all is well: for a supervisor, a container's health check, or monitoring.

    Exit code 0: the last run of every partition and its last full one succeeded, no check finds an error, every
    partition was synced within `checks.freshness.max_age`, and whoever began to listen to changes still does. 1: not
    so, or a partition was never synced, or the ledger does not answer; what is wrong is printed, in a short line for
    each partition; --json has the errors and messages, too.

    Reads the ledger alone: it does not know a tenant of the source before a sync, or Dagster's sensor, has asked the
    source for its tenants. Dagster's check `freshness` asks it every 6 hours.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.health import configured, known_tenants, troubles
    from vecsync_dagster.sync.health import health as health_of
    from vecsync_dagster.sync.listening import said
    from vecsync_dagster.sync.metrics import end_dead_runs

    with Workspace(settings, read_only=True) as workspace:
        ledger = workspace.ledger
        with suppress(LedgerRejected, LedgerUnavailable):  # one that takes nothing now tells what it knows
            end_dead_runs(settings, ledger)
        now, runs, results = ledger.now(), ledger.last_runs(), ledger.check_results(failed=True)
        tenants = known_tenants(settings, ledger)
        found = health_of(settings, runs, now, results, tenants)
        wrong_now = troubles(settings, runs, now, results, tenants)
        names = ledger.tenant_names()
        told = {name: said(one, now) for name, one in ledger.listeners().items() if name in settings.entities}
    deaf = [f"{name}: {words[0]}" for name, words in told.items() if words is not None and not words[1]]
    wrong = list(_wrong(found, wrong_now, deaf, names, in_full=as_json))
    if as_json:
        output.print_json({"command": "health", "healthy": not wrong, "wrong": wrong, **found})
    elif wrong:
        for line in wrong:
            output.stdout().print(line, soft_wrap=True, highlight=False)
        if deaf or any(one.kind != "never" for one in wrong_now):
            option = "" if deaf or not any(one.failing for one in wrong_now) else " --failed-checks"
            output.stdout().print(f"details: `vecsync status{option}`", soft_wrap=True, highlight=False)
    else:
        warned = sum(one.warning for one in configured(results, settings))
        how = "all well"
        if warned:
            how = f"none failing; {output.number_of(warned, 'warning')}: `vecsync status --failed-checks`"
        output.stdout().print(f"{output.number_of(found['partitions'], 'partition')}, {how}", highlight=False)
    raise typer.Exit(1 if wrong else 0)


def _wrong(
    found: Mapping[str, Any],
    troubles: Sequence[Trouble],
    deaf: Sequence[str],
    names: Mapping[tuple[str, str], str],
    *,
    in_full: bool,
) -> Iterator[str]:
    """How much of what is wrong, then a line each. Listeners that hear nothing are few, and left out by no limit."""
    if not found["partitions"] and not found["failing"] and found["never_synced"]:
        yield "nothing was synced yet"
        troubles = [one for one in troubles if one.kind != "never"]
    counts = [
        *_count(sum(one.kind == "source" for one in troubles), "source failing", "sources failing"),
        *_count(
            sum(one.kind == "check" for one in troubles),
            "check over all partitions failing",
            "checks over all partitions failing",
        ),
        *_count(
            sum(one.kind == "partition" and one.failing for one in troubles), "partition failing", "partitions failing"
        ),
        *_count(
            sum(one.overdue and one.kind != "never" for one in troubles), "partition overdue", "partitions overdue"
        ),
        *_count(sum(one.kind == "never" for one in troubles), "partition never synced", "partitions never synced"),
        *_count(len(deaf), "entity whose changes nobody hears", "entities whose changes nobody hears"),
    ]
    if counts:
        yield ", ".join(counts)
    for one in troubles[:_LISTED]:
        place = one.where(names.get((one.entity, one.tenant), ""))
        yield one_line(f"{place}: {one.in_full if in_full else '; '.join(one.what)}")
    more = len(troubles) - _LISTED
    if more > 0:
        yield f"and {more:,} more"
    yield from (one_line(one if in_full else _AFTER_CODE.sub(r"\1", one)) for one in deaf)


def _count(count: int, one: str, many: str) -> list[str]:
    return [output.number_of(count, one, many)] if count else []
