"""What befalls a run of a test: a crash, a failure or something else at one of its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from vecsync_dagster.errors import VecsyncError

__all__ = ["Crash", "Fate", "Fated", "Kind"]

Kind = Literal["crash", "failure", "meanwhile"]


class Crash(BaseException):
    """The process ends here: nothing catches it, and what is called afterwards does not happen any more."""


class Fate:
    """What befalls one run: at the nth call of some methods, before or after it was done.

    A crash is followed by nothing: in the other threads too the process is gone. A failure happens once.
    Meanwhile: at that moment something else is done, and the run goes on as if nothing had happened.
    """

    def __init__(
        self,
        meanwhile: Callable[[], object],
        methods: Sequence[str] = (),
        nth: int = 1,
        kind: Kind = "crash",
        after: bool = False,
    ) -> None:
        self._methods, self._left, self._kind, self._after = methods, nth, kind, after
        self._meanwhile = meanwhile
        self._lock = threading.Lock()
        self._gone = False

    def meet(self, method: str, call: Callable[[], Any], error: VecsyncError) -> Any:
        with self._lock:
            if self._gone:
                raise Crash
            self._left -= method in self._methods
            mine = method in self._methods and self._left == 0
            self._gone = mine and self._kind == "crash" and not self._after
        if mine and not self._after:
            self._strike(error)
        answer = call()
        if mine and self._after:
            self._gone = self._kind == "crash"
            self._strike(error)
        return answer

    def _strike(self, error: VecsyncError) -> None:
        if self._kind != "meanwhile":
            raise Crash if self._gone else error
        self._meanwhile()


class Fated:
    """An object whose named methods meet the fate of the run; it is the real one otherwise."""

    def __init__(self, real: Any, methods: Sequence[str], fate: Fate, error: VecsyncError) -> None:
        self._real, self._methods, self._fate, self._error = real, frozenset(methods), fate, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in self._methods:
            return found
        return lambda *args, **kwargs: self._fate.meet(name, lambda: found(*args, **kwargs), self._error)
