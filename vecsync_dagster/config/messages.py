"""What is wrong with a configuration, for people: the line, the key, the value unless it may be a secret, and
what would be valid."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from vecsync_dagster.config.models import Config, Misplaced
from vecsync_dagster.config.yaml_text import KeyPath

__all__ = ["explain"]

_SECRETS = {"url", "api_key", "base_url", "password", "secret", "user"}
# The second part may be a name that the user chose; it may be "url".
_SECRETS_FROM = {"sources": 2, "stores": 2, "embedding": 1, "ledger": 1, "alerts": 1}
_ENV = "write it as {env: NAME}, the name of an environment variable; secrets must not be written in this file"
_WORDS = {
    "missing": "this required key is missing",
    "tuple_type": "a list belongs here, like [a, b]",
    "string_type": "text belongs here",
    "string_too_short": "this is empty",
    "too_short": "at least one is needed",
    "invalid_key": "a key is text: put it in quotes",
    "bool_type": "true or false belongs here",
    "bool_parsing": "true or false belongs here",
    "int_type": "a whole number belongs here",
    "int_parsing": "a whole number belongs here",
    "int_from_float": "a whole number belongs here",
    "float_type": "a number belongs here",
    "float_parsing": "a number belongs here",
    "time_delta_type": "a duration belongs here: seconds, or like PT10M",
    "time_delta_parsing": "a duration belongs here: seconds, or like PT10M",
}
_NOT_KEYS = {"model_type", "model_attributes_type", "dict_type"}


def explain(
    error: ValidationError, data: Any, lines: Mapping[KeyPath, int], overridden: Mapping[KeyPath, str]
) -> list[str]:
    """One message for each mistake: ":12: sync.batch: ...", without the file's name.

    `data` is what was validated; `overridden` says which environment variable stands behind a path.
    """
    errors = [dict(e) for e in error.errors()]
    return list(dict.fromkeys(_message(e, data, lines, overridden) for e in errors if not _follows(e, errors)))


def _follows(error: dict[str, Any], errors: Sequence[dict[str, Any]]) -> bool:
    """A list that is too short only because its items are wrong: the items' errors say it better."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(e["loc"][: len(loc)] == loc and e is not error for e in errors)


def _message(error: dict[str, Any], data: Any, lines: Mapping[KeyPath, int], overridden: Mapping[KeyPath, str]) -> str:
    path, secret = _public(_path(error, data))
    key = ".".join(str(part) for part in path)
    reason = _reason(error, path, secret=secret)
    if path in overridden:
        return f": {key} (from the environment variable {overridden[path]}): {reason}"
    line = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), 1)
    place = f":{line}" if lines or not key else ""  # what came from no file has no lines
    return f"{place}: {key}: {reason}" if key else f"{place}: {reason}"


def _path(error: dict[str, Any], data: Any) -> KeyPath:
    """pydantic's location without the names it puts in for union members."""
    path: list[Any] = []
    place = data
    for position, part in enumerate(error["loc"]):
        if (isinstance(place, dict) and part in place) or (
            isinstance(place, (list, tuple)) and isinstance(part, int) and part < len(place)
        ):
            place = place[part]
        elif not (isinstance(place, dict) and position == len(error["loc"]) - 1) or part == "[key]":
            continue  # neither a key that is there nor one that is missing
        path.append(part)
    context = error.get("ctx", {})
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path.append(str(context["discriminator"]).strip("'"))
    cause = context.get("error")
    return (*path, *cause.path) if isinstance(cause, Misplaced) else tuple(path)


def _public(path: KeyPath) -> tuple[KeyPath, bool]:
    """The path, and whether a secret may stand there; below such a key even keys are not repeated."""
    start = {"sources": 2, "stores": 2, "embedding": 1, "ledger": 1, "alerts": 1}.get(
        str(path[0]) if path else "", len(path)
    )
    for position in range(start, len(path)):
        if path[position] in _SECRETS:
            return path[: position + 1], True
    return path, False


def _reason(error: dict[str, Any], path: KeyPath, *, secret: bool) -> str:
    kind, context, loc = error["type"], error.get("ctx", {}), error["loc"]
    if secret:
        return _WORDS["missing"] if kind == "missing" and loc[-1] == path[-1] else _ENV
    # Only plain values are shown: a mapping may hold a secret somewhere inside.
    value = f"; it is {_short(error['input'])}" if isinstance(error["input"], (str, int, float, bool)) else ""
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), _keys_at(loc[:-1]))
    if kind == "value_error":
        return f"{context['error']}{value}"
    if kind == "union_tag_invalid":
        return f"valid is {context['expected_tags']}; it is {_short(context['tag'])}"
    if kind == "literal_error":
        return f"valid is {context['expected']}{value}"
    if kind == "union_tag_not_found":
        return _WORDS["missing"]
    if kind in _NOT_KEYS:
        keys = ", ".join(_keys_at(loc))
        return f"keys and values belong here{f': {keys}' if keys else ''}{value}"
    return f"{_WORDS.get(kind) or error['msg'].replace('Input should', 'this should')}{value}"


def _unknown_key(key: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key; {hint}valid here: {', '.join(valid)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_at(loc: KeyPath) -> list[str]:
    """The keys that a mapping at this location may have, found by following the models' annotations."""
    places: list[Any] = [Config]
    for part in loc:
        places = [found for place in places for found in _step(place, part)]
    models = [p for p in places if isinstance(p, type) and issubclass(p, BaseModel)]
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def _step(place: Any, part: Any) -> Iterator[Any]:
    if isinstance(place, type) and issubclass(place, BaseModel):
        field = next((f for name, f in place.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:
            yield from _members(field.annotation)
        elif part in _tags(place):
            yield place
        return
    origin, arguments = typing.get_origin(place), typing.get_args(place)
    if origin is dict:
        yield from _members(arguments[1])
    elif origin is tuple:
        yield from _members(arguments[0])


def _members(annotation: Any) -> Iterator[Any]:
    """The types an annotation may stand for: Annotated and unions taken apart."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """What the discriminator of a union may be for this member: pydantic puts it into locations."""
    fields = (model.model_fields.get(name) for name in ("type", "provider"))
    return tuple(tag for field in fields if field is not None for tag in typing.get_args(field.annotation))
