"""A value that cannot be read at all, on its way from a source to the rejection of its record.

A driver or a conversion may fail over one value. The record must not look as if it had none, and must not end the page
that it comes in: in Python the value is `Unreadable`, in a column of text that holds JSON it is a text that is no JSON,
which keeps its reason also in a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

__all__ = ["Unreadable", "json_or_reason", "pylist", "reason_in", "text_in"]

_MARK: Final = "\x00unreadable: "


@dataclass(frozen=True, slots=True)
class Unreadable:
    """`reason` goes on after the field's name, and says nothing of the value. `text`: what can be shown of it."""

    reason: str
    text: str = ""

    def __str__(self) -> str:
        return self.text


def json_or_reason(values: Iterable[Any], text_of: Callable[[Any], str | None]) -> pa.Array:
    """A column of text that holds JSON: of each value the text, or why there is none."""
    return pa.array([_text(value, text_of) for value in values], pa.string())


def _text(value: Any, text_of: Callable[[Any], str | None]) -> str | None:
    if value is None:
        return None
    if isinstance(value, Unreadable):
        return _MARK + value.reason
    try:
        text = text_of(value)
        if text is not None:
            text.encode()  # a lone surrogate would refuse the whole column
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this value's)
        return f"{_MARK}cannot be read ({type(error).__name__})"
    return text


def text_in(column: pa.Array, is_json: bool, default: Callable[[Any], Any]) -> str | None:
    """The JSON text of a column's only value; `default` is as json.dumps has it."""
    value = column[0].as_py()
    return value if is_json or value is None else json.dumps(value, ensure_ascii=False, default=default)


def reason_in(text: str) -> str | None:
    """Why the value cannot be read, of a text in a column of JSON; None of any other text."""
    return text.removeprefix(_MARK) if text.startswith(_MARK) else None


def pylist(column: pa.Array) -> list[Any]:
    """The column's values; one that Python cannot hold is Unreadable."""
    try:
        values: list[Any] = column.to_pylist()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (found again below, value by value)
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this value's)
        return Unreadable(f"cannot be read ({type(error).__name__})")
