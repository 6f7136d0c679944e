"""What YAML lets pass silently is refused, and what it would change is kept as it was written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.config import parse_config
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.config.examples import VALID, changed, message_of
from vecsync_dagster_tests.properties import a_property

MISTAKES = [
    (VALID + "sources: {}\n", "vecsync.yaml:9: not valid YAML: duplicate key 'sources'"),
    (
        changed("    table: works\n", "    table: works\n    table: tools\n"),
        "vecsync.yaml:7: not valid YAML: duplicate key 'table'",
    ),
    (
        "sources:\n\tdb: x\n",
        "vecsync.yaml:2: not valid YAML: while scanning for the next token: "
        "found character '\\t' that cannot start any token (indent with spaces)",
    ),
    (
        "sources: [a\nb: c\n",
        "vecsync.yaml:2: not valid YAML: while parsing a flow sequence in line 1: expected ',' or ']', but got ':'",
    ),
    ("a: *x\n", "vecsync.yaml:1: not valid YAML: found undefined alias 'x'"),
    ("text: {{name}}\n", "vecsync.yaml:1: not valid YAML: a key is a single word; a text in braces stands in quotes"),
    ("a: 1\n? [b]\n: 2\n", "vecsync.yaml:2: not valid YAML: a key is a single word; a text in braces stands in quotes"),
    ("a: !!int x\n", "vecsync.yaml:1: not valid YAML: not a value of the type int"),
    ("a: !!timestamp x\n", "vecsync.yaml:1: not valid YAML: not a value of the type timestamp"),
    ("a: !secret x\n", "vecsync.yaml:1: not valid YAML: could not determine a constructor for the tag '!secret'"),
    ("a: 1\nb: \0\n", "vecsync.yaml:2: not valid YAML: a character that YAML does not allow"),
    (
        "a: 1\n---\nb: 2\n",
        "vecsync.yaml:2: not valid YAML: "
        "expected a single document in the stream in line 1: but found another document",
    ),
    ("a: &a\n  b: *a\n", "vecsync.yaml: nested too deeply, or an alias that contains itself"),
    ("[" * 5000, "vecsync.yaml: nested too deeply, or an alias that contains itself"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_what_is_no_yaml(text: str, message: str) -> None:
    """What cannot be read is one message with its line, never a parser's exception."""
    assert message_of(text) == message


@pytest.mark.parametrize("table", ["no", "on", "2024-01-01", "2024-99-99"])
def test_words_stay_words(table: str) -> None:
    """A table may be called `no` or look like a date."""
    assert parse_config(changed("table: works", f"table: {table}")).entities["works"].table == table


@pytest.mark.parametrize(
    ("written", "meant"), [("0777", 777), ("0o17", 15), ("0x1F", 31), ("1e2", 100), ("+12", 12), ("'12'", 12)]
)
def test_numbers_are_those_of_yaml_1_2(written: str, meant: int) -> None:
    """A zero before a number says nothing."""
    assert parse_config(f"{VALID}sync: {{batch: {written}}}\n").sync.batch == meant


@pytest.mark.parametrize("written", ["1:30", "0b11", "09x", "1.5"])
def test_what_is_no_number_is_refused(written: str) -> None:
    """What YAML 1.1 took for another number is an error with its line and key."""
    message = message_of(f"{VALID}sync: {{batch: {written}}}\n")
    assert message.startswith("vecsync.yaml:9: sync.batch: a whole number belongs here; it is ")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("02142", ("02142",)),
        ("[1e3, 1.10, 0x1F, '1']", ("1e3", "1.10", "0x1F", "1")),
        ("[true, No, 2024-01-01]", ("true", "No", "2024-01-01")),
        ("[null, ~, 'null']", (None, None, "null")),
        ("' a '", (" a ",)),
        ("!!bool true", ("true",)),
    ],
)
def test_the_values_of_a_filter_are_as_they_are_written(written: str, meant: tuple[str | None, ...]) -> None:
    """Text, whatever it looks like; null alone is no value."""
    text = changed("table: works\n", f"table: works\n    filter: &f {{a: {written}}}\n")
    assert parse_config(text).entities["works"].filter == {"a": meant}


def test_a_filter_that_is_merged_is_as_it_is_written() -> None:
    """Also one that comes with `<<` keeps its zeros."""
    copied = '  tools:\n    <<: *works\n    collections: {tools: {text: "{name}"}}\n'
    works = changed("  works:\n", "  works: &works\n    filter: {a: 02142}\n")
    assert parse_config(works + copied).entities["tools"].filter == {"a": ("02142",)}


def test_a_filter_without_a_value() -> None:
    """A value that was forgotten is not taken for null."""
    assert message_of(changed("table: works\n", "table: works\n    filter: {a: }\n")) == (
        "vecsync.yaml:7: not valid YAML: a value of a filter is missing; write null for records that have none"
    )


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("no", False), ("off", False)])
def test_true_and_false(written: str, meant: bool) -> None:
    """Where true or false belongs, YAML's words for them are understood."""
    assert parse_config(f"{VALID}schedule: {{enabled: {written}}}\n").schedule.enabled is meant


def test_byte_order_mark() -> None:
    """A file that an editor on Windows began with a byte order mark is read."""
    assert parse_config("\ufeff" + VALID) == parse_config(VALID)


def test_anchors_are_merged() -> None:
    """`<<: *anchor` copies an entity, and what stands beside it wins."""
    copied = '  tools:\n    <<: *works\n    table: tools\n    collections: {tools: {text: "{name}"}}\n'
    config = parse_config(changed("  works:\n    source", "  works: &works\n    source") + copied)
    assert (config.entities["tools"].source, config.entities["tools"].table) == ("db", "tools")
    assert config.entities["works"].table == "works"


@a_property
@given(
    st.text(st.sampled_from("{}[]:,#&*!|>'\"%@`?- \n\t~0x1.\0\ufeffé") | st.characters(), max_size=8),
    st.integers(0, len(VALID)),
    st.integers(0, 20),
)
def test_any_damage_is_a_clear_error(typed: str, at: int, erased: int) -> None:
    """However a file is damaged, it is read or refused as a configuration; nothing else escapes."""
    with contextlib.suppress(ConfigError):
        parse_config(VALID[:at] + typed + VALID[at + erased :])
