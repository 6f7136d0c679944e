"""Whether a text is a cron schedule, as Dagster reads them: without loading Dagster, which takes a second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["is_cron"]

_ALIASES: Final = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_MONTHS: Final = dict(
    zip(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), range(1, 13), strict=True)
)
_DAYS: Final = {name: n for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}


class _Field(NamedTuple):
    lowest: int
    highest: int
    names: Mapping[str, int]
    special: re.Pattern[str] | None = None
    """What only this field knows: `?` for any, the last day of a month, the second Friday."""


_FIELDS: Final = (
    _Field(0, 59, {}),
    _Field(0, 23, {}),
    _Field(1, 31, {}, re.compile(r"\?|l")),
    _Field(1, 12, _MONTHS),
    _Field(0, 7, _DAYS, re.compile(rf"\?|l[0-7]|([0-7]|{'|'.join(_DAYS)})#[1-5]")),
)
_PART: Final = re.compile(r"(?:\*|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]+))?")


def is_cron(text: str) -> bool:
    """Five fields (minute, hour, day, month, day of the week), or one like @daily; not the 30th of February."""
    written = text.lower().strip()
    if written in _ALIASES:
        return True
    parts = written.split()
    if len(parts) != len(_FIELDS):
        return False
    fits = all(_fits(one, part) for one, field in zip(_FIELDS, parts, strict=True) for part in _listed(one, field))
    return fits and not (parts[3] in ("2", "feb") and parts[2] in ("30", "31"))


def _listed(field: _Field, text: str) -> list[str]:
    return [text] if field.special is not None and field.special.fullmatch(text) else text.split(",")


def _fits(field: _Field, part: str) -> bool:
    if field.special is not None and field.special.fullmatch(part):
        return True
    found = _PART.fullmatch(part)
    if found is None or (found[3] is not None and int(found[3]) == 0):
        return False
    values = [field.names.get(value, value) for value in found.groups()[:2] if value is not None]
    return all(str(value).isdecimal() and field.lowest <= int(value) <= field.highest for value in values)
