"""YAML text -> plain data, and the line of every key, so that messages can name it."""

from __future__ import annotations

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
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}{_problem(error)}", file=name) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: a character that YAML does not allow", file=name) from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply, or an alias that contains itself", file=name) from None


class _Loader(yaml.SafeLoader):
    """Without YAML's surprises: of two equal keys it keeps the last, `no` is false and 2024-01-01 a date."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key is a single word; a text in braces stands in quotes", key)
            if (key.tag, key.value) in seen and key.tag != f"{_TAG}merge":
                raise _refused(f"the key {key.value!r} stands twice", key)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):  # what the constructors of scalars let escape
            raise _refused(f"not a value of the type {node.tag.removeprefix(_TAG)}", node) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{_TAG}bool", f"{_TAG}timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
