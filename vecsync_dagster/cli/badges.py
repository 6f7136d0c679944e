"""Records with their badges: a letter for each collection, coloured by its state; and each one in full."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from rich import box
from rich.table import Table
from rich.text import Text

from vecsync_dagster.cli import output
from vecsync_dagster.cli.formats import csv_cell
from vecsync_dagster.cli.recordpages import RecordPage, Totals
from vecsync_dagster.cli.tables import Column, Tenant, print_table
from vecsync_dagster.ledger.record_states import FORMER, SEVERITY, CollectionState, RecordState, Status
from vecsync_dagster.words import named

__all__ = ["badges", "show_page", "write_csv"]

_COLOURS: Mapping[Status, str] = {"synced": "green", "stale": "yellow", "failed": "red", "pending": "bright_black"}
# Beside the colour, which neither a file nor everybody's eyes can tell.
_MARKS: Mapping[Status, str] = {"synced": "", "stale": "~", "failed": "!", "pending": "?"}
_CALLED: Mapping[Status, str] = {"failed": "failed or rejected"}
"""Here a record without a good version is one that failed; in other tables those that were rejected are `invalid`."""
_LONGEST = 160  # characters of an error in a list; one record alone shows all of it


def show_page(page: RecordPage, *, in_full: bool) -> None:
    """Totals of each collection, then the records; or, `in_full`, every fact about each record."""
    out = output.stdout()
    if in_full:
        for record in page.records:
            _show_record(page, record)
    else:
        _show_totals(page)
        out.print(_list(page) if page.records else "no such record")
    legend = Text("badges: ").append("synced", _COLOURS["synced"])
    for status in ("stale", "failed", "pending"):
        legend.append(", ").append(f"{_MARKS[status]} {_CALLED.get(status, status)}", _COLOURS[status])
    out.print(legend)
    if page.pages > 1:
        records = output.number_of(page.matching, "record")
        out.print(f"page {page.page} of {page.pages}, {records}; --page and --limit show others")


def _show_totals(page: RecordPage) -> None:
    counts = tuple(Column(_CALLED.get(status, status), number=True) for status in SEVERITY)
    head = (Column(page.entity), Column("badge"), Column("records", number=True))
    rows = [_totals(name, page.letters[name], totals) for name, totals in page.collections.items()]
    columns = (*head, *counts, Column("health", number=True))
    print_table(output.stdout(), columns, rows, total=_totals("all of them", "", page.overall))
    output.stdout().print()


def _show_record(page: RecordPage, record: RecordState) -> None:
    out = output.stdout()
    out.print(
        Text(f"{record.db_id} of {named(record.tenant, page.name_of(record.tenant))}: ")
        .append(record.overall, _COLOURS[record.overall])
        .append("  ")
        .append(badges(page, record)),
        soft_wrap=True,
    )
    out.print(_details(page, record))
    errors = _reasons(page, record, longest=None)
    if errors:
        out.print(errors, soft_wrap=True)


def badges(page: RecordPage, record: RecordState) -> Text:
    """`T F! U I`: green synced, yellow ~ stale, red ! failed, grey ? pending."""
    parts = [
        Text(page.letters[name] + _MARKS[state.status], f"bold {_COLOURS[state.status]}")
        for name, state in record.collections.items()
    ]
    return Text(" ").join(parts)


def write_csv(page: RecordPage) -> None:
    """One line for each record and collection, on stdout."""
    rows = list(page.rows())
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)


def _totals(name: str, letter: str, totals: Totals) -> tuple[str | int, ...]:
    health = "-" if totals.health is None else f"{totals.health:.1f} %"
    return (name, letter, totals.records, *(totals.counts.get(status, 0) for status in SEVERITY), health)


def _list(page: RecordPage) -> Table:
    table = _table("record", "tenant", "state", "badges", "why")
    for record in page.records:
        state = Text(record.overall, _COLOURS[record.overall])
        reasons = _reasons(page, record, longest=_LONGEST)
        tenant = Text(Tenant(record.tenant, page.name_of(record.tenant)).lines)
        table.add_row(Text(record.db_id), tenant, state, badges(page, record), reasons)
    return table


def _reasons(page: RecordPage, record: RecordState, *, longest: int | None) -> Text:
    bad = [(name, state) for name, state in record.collections.items() if state.error_code is not None]
    lines = [Text(f"{page.letters[name]}: {_reason(state, longest)}", _COLOURS[state.status]) for name, state in bad]
    if longest is None:
        kept = ((page.letters[name], state) for name, state in bad if state.former and state.error_code != FORMER)
        lines += [Text(f"{letter}: {FORMER}: stored is {state.former}", _COLOURS["stale"]) for letter, state in kept]
    return Text("\n").join(lines)


def _reason(state: CollectionState, longest: int | None) -> str:
    error = state.last_error or ""
    short = error if longest is None or len(error) <= longest else f"{error[:longest]}…"
    return f"{state.error_code}: {short}{_attempts(state)}"


def _attempts(state: CollectionState) -> str:
    if state.status != "failed" or not state.retry_count:
        return ""
    after = output.number_of(state.retry_count, "attempt")
    if state.next_attempt_at is None:
        return f" ({after}, permanent until `vecsync retry --reset`)"
    return f" ({after}, next {_time(state.next_attempt_at)})"


def _details(page: RecordPage, record: RecordState) -> Table:
    table = _table("", "state", "version", "last synced", "last attempt", "changed last", "hash")
    for name, state in record.collections.items():
        modified = ", ".join(state.modified_fields or ()) or "-"
        table.add_row(
            Text(f"{page.letters[name]} {name}"),
            Text(state.status, _COLOURS[state.status]),
            Text(str(state.vector_version)),
            Text(_time(state.last_synced_at)),
            Text(_time(state.last_attempt_at)),
            Text(modified),
            Text(state.content_hash or "-"),
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
