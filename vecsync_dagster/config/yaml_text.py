"""YAML text -> plain data, and the line of every key, so that messages can name it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from vecsync_dagster.errors import ConfigError

__all__ = ["KeyPath", "parse_yaml"]

KeyPath = tuple[Any, ...]
"""The keys and indexes that lead to a value."""

_TAG = "tag:yaml.org,2002:"


def parse_yaml(text: str, name: str) -> tuple[Any, Mapping[KeyPath, int]]:
    """The data, and the line of each path. Raises ConfigError with the file's name and the line."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = dict(_lines(node, ()))
        _keep_filters(loader, node)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}{_problem(error)}", file=name) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: a character that YAML does not allow", file=name) from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply, or an alias that contains itself", file=name) from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, in which 0777 is 777 and 1:30, `no` and 2024-01-01 are text; and no key twice. `true` and
    `false` are text too: a name may be called that, and where a flag belongs they are understood."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key is a single word; a text in braces stands in quotes", key)
            if (key.tag, key.value) in seen and key.tag != f"{_TAG}merge":
                raise _refused(f"duplicate key {key.value!r}", key)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):  # what the constructors of scalars let escape
            raise _refused(f"not a value of the type {node.tag.removeprefix(_TAG)}", node) from None


_WHOLE = "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_DECIMAL = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _WHOLE, list("-+0123456789")),
    ("float", _DECIMAL, list("-+0123456789.")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def _whole(loader: yaml.SafeLoader, node: yaml.Node) -> int:
    text = str(node.value)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _decimal(loader: yaml.SafeLoader, node: yaml.Node) -> float:
    text = str(node.value).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(f"{_TAG}int", _whole)
_Loader.add_constructor(f"{_TAG}float", _decimal)


def _keep_filters(loader: _Loader, root: yaml.Node) -> None:
    """The values of each entity's filter become the text that the file has; null alone is null, if it is written."""
    for entities in _under(loader, root, "entities"):
        for entity in _under(loader, entities):
            for values in _under(loader, entity, "filter"):
                if isinstance(values, yaml.MappingNode):
                    loader.flatten_mapping(values)
                    values.value = [(key, _as_written(value)) for key, value in values.value]


def _under(loader: _Loader, node: yaml.Node, name: str | None = None) -> list[yaml.Node]:
    """The values of a mapping, what it merges too, or those of one key."""
    if not isinstance(node, yaml.MappingNode):
        return []
    loader.flatten_mapping(node)
    return [value for key, value in node.value if name is None or key.value == name]


def _as_written(node: yaml.Node) -> yaml.Node:
    if isinstance(node, yaml.SequenceNode):
        items = [_as_written(item) if isinstance(item, yaml.ScalarNode) else item for item in node.value]
        return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark, node.flow_style)
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _RESOLVED:
        return node
    if node.tag == f"{_TAG}null":
        if not node.value:
            raise _refused("a value of a filter is missing; write null for records that have none", node)
        return node
    return yaml.ScalarNode(f"{_TAG}str", node.value, node.start_mark, node.end_mark, node.style)


_RESOLVED = frozenset(f"{_TAG}{name}" for name in ("null", "int", "float", "str"))


def _refused(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _problem(error: yaml.MarkedYAMLError) -> str:
    line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    begun = f" in line {error.context_mark.line + 1}" if error.context_mark else ""
    context = f"{error.context}{begun}: " if error.context else ""
    hint = " (indent with spaces)" if "'\\t'" in (error.problem or "") else ""
    return f"{line}: not valid YAML: {context}{error.problem}{hint}"


def _lines(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*path, key.value))
            yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))
