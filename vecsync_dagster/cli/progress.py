"""The progress bar of a sync: on stderr, and only where somebody looks at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vecsync_dagster.cli import output
from vecsync_dagster.cli.tables import shorten
from vecsync_dagster.sync import Figures, PartitionResult, Selection

__all__ = ["SyncProgress"]


class SyncProgress:
    """A bar over tenants, with the records read and texts embedded so far."""

    def __init__(self, selections: int) -> None:
        console = output.stderr()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[done]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("sync", total=selections, done="")
        self._before = Figures()

    def begin(self, selection: Selection) -> None:
        name = f"{selection.entity} of {shorten(selection.tenant, 20)}"
        self._progress.update(self._task, description=name)

    def figures(self, figures: Figures) -> None:
        """The running partition's figures so far."""
        fetched, embedded = self._before.fetched + figures.fetched, self._before.embedded + figures.embedded
        self._progress.update(self._task, done=f"{fetched:,} records, {embedded:,} embedded")

    def end(self, results: Sequence[PartitionResult]) -> None:
        for result in results:
            self._before.add(result.figures)
        self.figures(Figures())
        self._progress.advance(self._task)

    def __enter__(self) -> SyncProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
