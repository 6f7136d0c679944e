"""A source's pages for a consumer that may be slow: the source never waits for it.

While a source is read it holds a transaction or a cursor open, which keeps its own server from cleaning up (PostgreSQL)
or others from writing (SQLite). A provider may be waited for for hours. So pages that nobody can take yet are put
aside, and the source is read to its end as fast as it gives them.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.private import private_folder
from vecsync_dagster.sources.base import Page

__all__ = ["closing_pages", "in_turn", "read_ahead"]

_IN_MEMORY = 8 << 20  # bytes


def read_ahead(
    pages: Iterator[Page], free: Callable[[], bool], wait: Callable[[], None], folder: Path | None
) -> Generator[Page, None, None]:
    """The same pages in the same order. `free`: whether one more can be taken at once; `wait` returns when it can be.
    What breaks the read is raised once all that came before was taken. What waits is kept in memory while it is
    little, else in a file without a name in `folder` (None: the system's own). Raises OutputUnwritable."""
    with contextlib.closing(_Spool(folder)) as spool:
        try:
            with closing_pages(pages):
                for page in pages:
                    if not spool and free():
                        yield page
                        continue
                    spool.append(page)
                    while spool and free():
                        yield spool.pop()
        except Exception:
            yield from in_turn(spool.rest(), wait)
            raise
        yield from in_turn(spool.rest(), wait)


def in_turn(pages: Iterator[Page], wait: Callable[[], None]) -> Generator[Page, None, None]:
    """The same pages, where nothing is held open while one of them waits."""
    for page in pages:
        wait()
        yield page


@contextlib.contextmanager
def closing_pages(pages: Iterator[Page]) -> Iterator[Iterator[Page]]:
    """Close a source's generator; a source may also give a plain iterator, which has nothing to close."""
    try:
        yield pages
    finally:
        if isinstance(pages, Generator):
            pages.close()


class _Spool:
    """Pages, first in, first out."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._lengths: deque[int] = deque()
        self._start = self._end = 0

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def append(self, page: Page) -> None:
        with _writable(self._folder):
            if self._file is None:
                if self._folder is not None:
                    private_folder(self._folder)
                folder = None if self._folder is None else str(self._folder)
                self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder)  # noqa: SIM115 (`close`)
            self._file.seek(self._end)
            length = self._file.write(pickle.dumps(page))
        self._lengths.append(length)
        self._end += length

    def pop(self) -> Page:
        assert self._file is not None  # noqa: S101 (something was appended)
        length = self._lengths.popleft()
        self._file.seek(self._start)
        page: Page = pickle.loads(self._file.read(length))  # noqa: S301 (a file without a name: nobody else writes it)
        self._start += length
        if not self._lengths:
            self._start = self._end = 0  # it does not grow where it is emptied again and again
        return page

    def rest(self) -> Iterator[Page]:
        while self:
            yield self.pop()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@contextlib.contextmanager
def _writable(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = folder or tempfile.gettempdir()
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"records cannot be put aside in {place}: {reason}", path=str(place)) from error
