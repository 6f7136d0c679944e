"""Field values as documents may hold them: cleaned text, numbers, dates; and why a value is refused.

Messages name the field, never its value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from vecsync_dagster.config.models import FieldType
from vecsync_dagster.numbers import all_digits, exact, exact_fraction
from vecsync_dagster.unreadable import Unreadable

__all__ = ["CONVERTERS", "BadValue", "clean", "clean_any", "identity", "no_key", "parse_number"]

MAX_ID = 400  # characters; ids stand in keys and payload indexes
MAX_DEPTH = 64  # of lists and objects in each other; stores and JSON libraries end at 100 to 250

# C0 and C1 control characters but for tab, line feed and carriage return; they carry no meaning in
# names and texts, and U+0000 is refused by PostgreSQL and by C strings.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_IN_IDS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f']")
_PLAIN = r"(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?"
_GROUPED = r"\d{1,3}(( \d{3})+([.,]\d*)?|(\.\d{3})+,\d*|(,\d{3})+\.\d*|(\.\d{3}){2,}|(,\d{3}){2,})"
_NUMBER = re.compile(f"[+-]? ?({_PLAIN}|{_GROUPED})")
_UNCOUNTED = re.compile(r"-?infinity|(?=\d{5}|.* BC)\d{4,9}-\d\d-\d\d([ T][\d:.]+(\+00(:00)?)?)?( BC)?")
"""Dates and times that Python cannot hold, as PostgreSQL writes them."""
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})( .*)?")


class BadValue(ValueError):
    """The value is not what the configuration asks for, or nothing that a store can hold."""


def clean(text: str) -> str:
    """NFC, without control characters and lone surrogates, trimmed. Idempotent."""
    if text.isprintable():  # neither control characters nor surrogates: nearly every text
        return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()
    text = _SURROGATES.sub("\ufffd", _CONTROL.sub(" ", text))
    return unicodedata.normalize("NFC", text).strip()


def identity(value: Any) -> str:
    """A record's id as text: exactly as it is, because the source is asked for records by it.

    Raises BadValue, whose text goes on after "the id".
    """
    if value is None:
        raise BadValue("is missing")
    if isinstance(value, (bool, list, dict, bytes)):
        raise BadValue("is neither text nor a number")
    text = value if isinstance(value, str) else str(clean_any(value))
    if not text or text.isspace():
        raise BadValue("is missing")
    if len(text) > MAX_ID:
        raise BadValue(f"is longer than {MAX_ID} characters")
    if not text.isprintable() and _NOT_IN_IDS.search(text):
        raise BadValue("has control characters")
    return text


def no_key(value: Any) -> None:
    """Raises BadValue, whose text goes on after "the id", where it knows why a value is none of a key."""
    if isinstance(value, str) and value.lower().lstrip("-") in ("nan", "infinity"):
        raise BadValue("is not finite")
    if isinstance(value, str) and _UNCOUNTED.fullmatch(value):
        raise BadValue("is a date outside the years 1 to 9999")
    identity(value)


def parse_number(value: Any) -> int | float | str:
    """A finite number, or its digits as text where neither 64 bits nor a float hold it (numbers.py). Also from text as
    people write it: "1 234,50", "1.234,50", "1,234.50", "12".

    The last of "," and "." is the decimal separator when both occur; a single comma is a decimal comma
    (Czech and Russian usage: "1,234" is 1.234); a separator that occurs several times groups thousands, and
    groups have three digits ("1.2.3" is no number). Whole numbers come back as int, so that 5 and 5.0 are one value.
    """
    if value.__class__ is float and math.isfinite(value):  # most of them
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, str):
        value = _written_number(value)
        if isinstance(value, str):
            return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise BadValue("is not a number")
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else exact(Decimal(value))
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise BadValue("is not a finite number")
    if isinstance(value, Decimal):
        return exact(value)
    return parse_number(float(value))


def _written_number(value: str) -> int | float | str:
    text = _SPACES.sub(" ", value.strip())
    if not _NUMBER.fullmatch(text):
        raise BadValue("is not a number")
    text = text.replace(" ", "")
    if "," in text and "." in text:
        text = text.replace("," if text.rfind(".") > text.rfind(",") else ".", "")
    for separator in (",", "."):
        if text.count(separator) > 1:
            text = text.replace(separator, "")
    text = text.replace(",", ".")
    return exact_fraction(text) if "e" in text.lower() else exact(Decimal(text))


def _integer(value: Any) -> int | str:
    number = parse_number(value)
    if isinstance(number, float) and number.is_integer() and not isinstance(value, float):
        number = all_digits(Decimal(repr(number)))
    if isinstance(number, int) or (isinstance(number, str) and number.lstrip("-").isdecimal()):
        return number
    raise BadValue("is not a whole number")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "t", "true", "yes", "y", "on"}:
        return True
    if text in {"0", "f", "false", "no", "n", "off"}:
        return False
    raise BadValue("is not a yes or no value")


def _datetime(value: Any) -> str:
    """ISO 8601; a time with a zone in UTC. Text may be ISO or dd.mm.yyyy; what databases alone can count to stays."""
    if isinstance(value, str) and _UNCOUNTED.fullmatch(text := value.strip()):
        return text
    try:
        day = value if isinstance(value, date) else _written_date(str(value).strip())  # a datetime is a date too
        if isinstance(day, datetime) and day.tzinfo is not None:
            day = day.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadValue("is not a date or time") from None
    return day.isoformat()


def _written_date(text: str) -> date:
    if match := _DAY_FIRST.fullmatch(text):
        day, month, year, rest = match.groups()
        text = f"{year}-{int(month):02}-{int(day):02}{rest or ''}"
    return datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)


def _string(value: Any) -> str:
    if isinstance(value, (list, dict)):
        raise BadValue("is not text")
    return str(clean_any(value))


def clean_any(value: Any, depth: int = 0) -> Any:
    """A value of no configured type as JSON: text cleaned, dates as ISO text, whole floats as int."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        return parse_number(value)
    if isinstance(value, date):
        return _datetime(value)
    if isinstance(value, bytes):
        raise BadValue("is binary data")
    if depth >= MAX_DEPTH:
        raise BadValue(f"has more than {MAX_DEPTH} levels of lists and objects")
    if isinstance(value, (list, tuple)):
        return [clean_any(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean(str(key)): clean_any(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Unreadable):
        raise BadValue(value.reason)
    return clean(str(value))


CONVERTERS: dict[FieldType, Callable[[Any], Any]] = {
    "number": parse_number,
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
    "datetime": _datetime,
}
