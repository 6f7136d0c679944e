"""What a sync did, for people: the table, what failed, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vecsync_dagster.cli import output
from vecsync_dagster.cli.comparing import names_of
from vecsync_dagster.cli.running import Outcome
from vecsync_dagster.cli.tables import Column, Tenant, print_table
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import CheckOutcome, Figures, PartitionResult
from vecsync_dagster.sync.metrics import total_figures
from vecsync_dagster.words import by_reason

__all__ = ["relative", "show_outcome"]

_PARTITION = (Column("tenant"), Column("collection"))
_COUNTS = (
    Column("fetched", number=True),
    Column("new", number=True),
    Column("changed", number=True, optional=True),
    Column("payload", number=True, optional=True),
    Column("retry", number=True, rare=True),
    Column("unchanged", number=True),
    Column("removed", number=True, optional=True),
    Column("repaired", number=True, rare=True),
    Column("rejected", number=True, optional=True),
    Column("failed", number=True, rare=True),
)
_DONE = (
    Column("embedded", number=True),
    Column("cached", number=True, optional=True),
    Column("cut", number=True, rare=True),
    Column("seconds", number=True),
)
_PLANNED = (
    Column("to embed", number=True),
    Column("cached", number=True, optional=True),
    Column("cut", number=True, rare=True),
    Column("tokens", number=True),
    Column("US$", number=True),
)


def show_outcome(config: Config, outcome: Outcome, *, dry_run: bool = False) -> None:
    """Print the table to stdout, and what is wrong to stderr."""
    if outcome.results:
        _show_table(outcome, dry_run=dry_run)
    if dry_run:
        problems = len(outcome.problems) + sum(result.error is not None for result in outcome.results)
        missing = f" Not in the plan: {output.number_of(problems, 'failure')}, see below." if problems else ""
        output.stdout().print(f"\nDry run: nothing was written, embedded or removed.{missing}")
        if any(one.mode == "incremental" and one.figures.unchanged for one in outcome.results):
            output.stdout().print(
                "Unchanged: each incremental run reads the latest changes once more, as others may have come late.",
                soft_wrap=True,
            )
    elif outcome.nothing_changed:
        checked = output.number_of(len(outcome.results), "partition")
        output.stdout().print(f"\nNothing changed: {checked} checked in {outcome.seconds:.2f} s.")
    _show_invalid(config, outcome, dry_run=dry_run)
    _show_failed_documents(outcome)
    _warn_of_cut_texts(outcome)
    _show_counts_that_differ(outcome)
    _warn_of_hash_vectors(outcome.results)
    _show_failures(outcome, dry_run=dry_run)
    if outcome.interrupted:
        output.warn("interrupted: what was confirmed is kept; the next run goes on from there")


def relative(path: Path) -> str:
    """The path as somebody in the current folder would write it, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _show_table(outcome: Outcome, *, dry_run: bool) -> None:
    tenants = [Tenant(r.tenant, outcome.names.get((r.entity, r.tenant), "")) for r in outcome.results]
    rows = [
        (r.entity, tenant, r.collection, *_counts(r.figures), *_work(r.figures, dry_run))
        for r, tenant in zip(outcome.results, tenants, strict=True)
    ]
    total = total_figures(outcome.results, outcome.seconds)
    parts = output.number_of(len(rows), "partition")
    repeats = all(result.entity == result.collection for result in outcome.results)
    where = ("", "total", parts) if repeats else ("total", parts, "")
    footer = (*where, *_counts(total), *_work(total, dry_run))
    partition = (Column("entity", repeats=repeats), *_PARTITION)
    columns = (*partition, *_COUNTS, *(_PLANNED if dry_run else _DONE))
    print_table(output.stdout(), columns, rows, total=footer)


def _counts(f: Figures) -> tuple[int, ...]:
    changes = (f.fetched, f.new, f.changed, f.payload_only, f.retry, f.unchanged)
    return (*changes, f.removed, f.repaired, f.invalid, f.failed)


def _work(f: Figures, dry_run: bool) -> tuple[str | int | float, ...]:
    done = (f.embedded, f.cache_hits, f.truncated)
    return (*done, f.tokens, f"{f.price_usd:.4f}") if dry_run else (*done, f.seconds)


def _show_invalid(config: Config, outcome: Outcome, *, dry_run: bool) -> None:
    invalid = sum(result.figures.invalid for result in outcome.results)
    if invalid == 0:
        return
    if dry_run:
        output.stdout().print(f"To be rejected: {output.number_of(invalid, 'record')}.")
    else:
        file = relative(config.state_folder / "invalid_records.jsonl")
        output.stdout().print(
            f"Rejected: {output.number_of(invalid, 'record')}; {file} says which and why.", soft_wrap=True
        )


def _show_failed_documents(outcome: Outcome) -> None:
    failed = sum(result.figures.failed for result in outcome.results)
    if failed:
        documents = output.number_of(failed, "document")
        output.warn(f"{documents} failed; the next runs try again, and `vecsync status` says when")


def _warn_of_cut_texts(outcome: Outcome) -> None:
    cut = sum(result.figures.truncated for result in outcome.results)
    if cut:
        texts = output.number_of(cut, "text")
        output.warn(f"{texts} longer than what the model takes: no search finds what was cut off (check `truncation`)")


def _show_counts_that_differ(outcome: Outcome) -> None:
    found = []
    for result in outcome.results:
        for check in result.checks:
            if check.name in ("counts", "identity", "isolation") and check.warning and not check.passed:
                where = f"{result.collection} of {outcome.named(result.entity, result.tenant)}"
                found.append((where, check.message))
    for line in by_reason(found):
        output.warn(line)


def _warn_of_hash_vectors(results: Iterable[PartitionResult]) -> None:
    collections = dict.fromkeys(result.collection for result in results if not result.semantic)
    if collections:
        names = ", ".join(collections)
        output.stderr().print(
            f"WARNING: {names}: the vectors are hashes of words and NOT semantic. They find equal words only. "
            "Put a real provider first in embedding.chain, and use a new collection name.",
            style="bold red",
            soft_wrap=True,
        )


def _show_failures(outcome: Outcome, *, dry_run: bool) -> None:
    lines = []
    for problem in outcome.problems:
        tenant = None if problem.tenant is None else outcome.named(problem.entity or "", problem.tenant)
        where = " of ".join(name for name in (problem.entity, tenant) if name is not None)
        lines.append((where or "after the sync", f"{problem.error.code}: {problem.error}"))
    for result in outcome.results:
        where = f"{result.collection} of {outcome.named(result.entity, result.tenant)}"
        if result.error is not None:
            lines.append((where, f"{result.error.code}: {result.error}"))
        lines += [
            (where, "\n".join([f"check {check.name}: {check.message}", *_differing(check)]))
            for check in result.checks
            if _counts_as_failed(check)
        ]
        if dry_run and result.figures.removals_blocked:
            blocked = output.number_of(result.figures.removals_blocked, "document")
            lines.append((where, f"the removal guard would keep {blocked}; see --allow-removals"))
    for line in by_reason(lines):
        output.stderr().print(f"failed: {line}", style="red", soft_wrap=True)


def _differing(check: CheckOutcome) -> list[str]:
    """The facts of a check that has differences are how many there are of each kind."""
    total = sum(fact for fact in check.facts.values() if isinstance(fact, int))
    return names_of(check.differences, total) if check.differences else []


def _counts_as_failed(check: CheckOutcome) -> bool:
    return not check.passed and not check.warning
