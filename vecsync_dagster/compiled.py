"""Statements that are compiled once in a process, not once for each engine.

SQLAlchemy keeps what it compiled with the engine, and each sync, each tick of a sensor and each page opens engines of
its own: compiling the same statements again was a sixth of a small sync.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.engine.interfaces import Compiled, Dialect
from sqlalchemy.util import LRUCache

__all__ = ["CompiledStatements"]

_STATEMENTS = 1000
_PLAIN = (str, int, float, bool, tuple, type(None))


class CompiledStatements(LRUCache[Any, Compiled]):
    """For the execution option `compiled_cache` of all engines that are made in one way: what one of them compiled, the
    others of the same dialect take, with the same settings and version of the server."""

    def __init__(self) -> None:
        super().__init__(_STATEMENTS)
        self._kinds: WeakKeyDictionary[Dialect, object] = WeakKeyDictionary()
        self._known: dict[tuple[object, ...], object] = {}

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._shared(key), default)

    def __setitem__(self, key: Any, value: Compiled) -> None:
        super().__setitem__(self._shared(key), value)

    def _shared(self, key: Any) -> tuple[object, ...]:
        """SQLAlchemy's key begins with the engine's own dialect."""
        dialect, *rest = key
        kind = self._kinds.get(dialect)
        if kind is None:
            plain = {name: value for name, value in vars(dialect).items() if isinstance(value, _PLAIN)}
            settings = (type(dialect), *sorted(plain.items()))
            kind = self._kinds[dialect] = self._known.setdefault(settings, object())
        return (kind, *rest)
