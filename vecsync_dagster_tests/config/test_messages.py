"""Every message names the file and line, the key, the value, and what would be valid."""

from __future__ import annotations

import pytest

from vecsync_dagster.config import parse_config
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.config.examples import VALID, changed, message_of

WORKS = "vecsync.yaml:8: entities.works.collections.works"
ENTITY_KEYS = (
    "checksum, collections, deleted_at, filter, id, overlap, required, source, table, tenancy, type, types, "
    "updated_at, writeback"
)
TOP_KEYS = "alerts, automation, checks, embedding, entities, ledger, retention, schedule, sources, state, stores, sync"
TEMPLATE = "a template holds fields like {name} only, without formats, numbers or indexes"
SYNTAX = "write a field as {name}, a brace as {{ }}"
SQLITE = "{type: sqlite, path: app.sqlite}"


def added(line: str) -> str:
    return f"{VALID}{line}\n"


def entity(line: str) -> str:
    return changed("    table: works\n", f"    table: works\n    {line}\n")


def template(text: str) -> str:
    return changed('"{name}"', text)


KEYS = [
    (added("synk: {}"), f"vecsync.yaml:9: synk: unknown key; did you mean sync? valid here: {TOP_KEYS}"),
    (added("other: 1"), f"vecsync.yaml:9: other: unknown key; valid here: {TOP_KEYS}"),
    (
        entity("update_at: x"),
        f"vecsync.yaml:7: entities.works.update_at: unknown key; did you mean updated_at? valid here: {ENTITY_KEYS}",
    ),
    (
        changed("payload: [code]", "payloads: [code]"),
        f"{WORKS}.payloads: unknown key; did you mean payload? valid here: payload, store, text",
    ),
    (
        changed(SQLITE, "{type: sqlite, path: x, pat: y}"),
        "vecsync.yaml:2: sources.db.pat: unknown key; did you mean path? valid here: path, type",
    ),
    (
        added("embedding:\n  chain:\n    - {provider: hash}\n    - {provider: hash, dimension: 8}"),
        "vecsync.yaml:12: embedding.chain.1.dimension: unknown key; did you mean dimensions? "
        "valid here: dimensions, provider",
    ),
    (changed("    table: works\n", ""), "vecsync.yaml:4: entities.works.table: this required key is missing"),
    (changed(SQLITE, "{path: x}"), "vecsync.yaml:2: sources.db.type: this required key is missing"),
    (changed(SQLITE, "{type: postgres}"), "vecsync.yaml:2: sources.db.url: this required key is missing"),
    (added("embedding: {chain: [{}]}"), "vecsync.yaml:9: embedding.chain.0.provider: this required key is missing"),
]

VALUES = [
    ("", "vecsync.yaml:1: the file is empty; it needs sources and entities"),
    ("# nothing yet\n", "vecsync.yaml:1: the file is empty; it needs sources and entities"),
    ("- a\n", f"vecsync.yaml:1: keys and values belong here: {TOP_KEYS}"),
    ("hello\n", f"vecsync.yaml:1: keys and values belong here: {TOP_KEYS}; it is 'hello'"),
    (changed("source: db", "source: 5"), "vecsync.yaml:5: entities.works.source: text belongs here; it is 5"),
    (
        entity("required: name"),
        "vecsync.yaml:7: entities.works.required: a list belongs here, like [a, b]; it is 'name'",
    ),
    (entity("types: [price]"), "vecsync.yaml:7: entities.works.types: keys and values belong here"),
    (
        entity("tenancy: tenant_id"),
        "vecsync.yaml:7: entities.works.tenancy: keys and values belong here: column, global_flag, name; "
        "it is 'tenant_id'",
    ),
    (
        entity("tenancy: {column: tenant_id, name: [a, b]}"),
        "vecsync.yaml:7: entities.works.tenancy.name: a column belongs here, or a table of names, like "
        "{table: firms, id: id, column: name}",
    ),
    (
        entity("tenancy: {column: tenant_id, name: {table: firms, colum: title}}"),
        "vecsync.yaml:7: entities.works.tenancy.name.colum: unknown key; did you mean column? "
        "valid here: column, id, table",
    ),
    (
        entity("types: {price: numer}"),
        "vecsync.yaml:7: entities.works.types.price: "
        "valid is 'number', 'integer', 'boolean', 'string' or 'datetime'; it is 'numer'",
    ),
    # A field may be called url: that is no secret.
    (
        entity("types: {url: text}"),
        "vecsync.yaml:7: entities.works.types.url: "
        "valid is 'number', 'integer', 'boolean', 'string' or 'datetime'; it is 'text'",
    ),
    (
        entity("overlap: 5 minutes"),
        "vecsync.yaml:7: entities.works.overlap: a duration belongs here: seconds, or like PT10M; it is '5 minutes'",
    ),
    (
        entity("overlap: -PT5M"),
        "vecsync.yaml:7: entities.works.overlap: this should be greater than or equal to 0 seconds",
    ),
    (entity("deleted_at: ''"), "vecsync.yaml:7: entities.works.deleted_at: this is empty; it is ''"),
    (
        changed(SQLITE, "{type: mysql}"),
        "vecsync.yaml:2: sources.db.type: valid is 'postgres', 'sqlite', 'mongo'; it is 'mysql'",
    ),
    (added("stores: {main: {type: redis}}"), "vecsync.yaml:9: stores.main.type: valid is 'qdrant'; it is 'redis'"),
    (added("sync: {batch: 0}"), "vecsync.yaml:9: sync.batch: this should be greater than or equal to 1; it is 0"),
    (added("sync: {parallel: 11}"), "vecsync.yaml:9: sync.parallel: this should be less than or equal to 10; it is 11"),
    (added("sync: {page: many}"), "vecsync.yaml:9: sync.page: a whole number belongs here; it is 'many'"),
    (
        added("sync: {skip_invalid: maybe}"),
        "vecsync.yaml:9: sync.skip_invalid: true or false belongs here; it is 'maybe'",
    ),
    (added("sync: {mode: ful}"), "vecsync.yaml:9: sync.mode: valid is 'full' or 'incremental'; it is 'ful'"),
    (
        added("sync: {retry: {multiplier: .inf}}"),
        "vecsync.yaml:9: sync.retry.multiplier: this should be a finite number; it is inf",
    ),
    (added("embedding: {chain: []}"), "vecsync.yaml:9: embedding.chain: at least one is needed"),
    (
        added("schedule: {cron: daily}"),
        "vecsync.yaml:9: schedule.cron: not a cron schedule of five fields, like 0 3 * * *; it is 'daily'",
    ),
    *(
        (
            added(f"schedule: {{timezone: '{zone}'}}"),
            f"vecsync.yaml:9: schedule.timezone: not a time zone; write one like Europe/Prague; it is '{zone}'",
        )
        for zone in ("Prague", "Europe", "", "/etc/hosts")
    ),
]

RELATIONS = [
    (
        changed("source: db", "source: dbx"),
        "vecsync.yaml:5: entities.works.source: there is no source 'dbx'; valid is db",
    ),
    (
        changed("payload: [code]", "store: other"),
        f"{WORKS}.store: there is no store 'other'; valid is main",
    ),
    (
        added('  tools:\n    source: db\n    table: tools\n    collections:\n      works: {text: "{a}"}'),
        "vecsync.yaml:13: entities.tools.collections.works: works has a collection of this name; "
        "a collection belongs to one entity",
    ),
    (
        added("stores: {main: {type: qdrant, path: x, url: 'http://h'}}"),
        "vecsync.yaml:9: stores.main: give either path (embedded) or url (server)",
    ),
    (
        added("stores: {main: {type: qdrant}}"),
        "vecsync.yaml:9: stores.main: give either path (embedded) or url (server)",
    ),
    (
        added("stores: {main: {type: qdrant, path: x, api_key: {env: KEY}}}"),
        "vecsync.yaml:9: stores.main: api_key goes with url; the embedded engine has none",
    ),
]

TEXTS = [
    (
        template('"{name"'),
        f"{WORKS}.text: not a template: expected '}}' before end of string; {SYNTAX}; it is '{{name'",
    ),
    (
        template('"name}"'),
        f"{WORKS}.text: not a template: Single '}}' encountered in format string; {SYNTAX}; it is 'name}}'",
    ),
    (template('["{name}", "{"]'), f"{WORKS}.text: not a template: Single '{{' encountered in format string; {SYNTAX}"),
    (template('"{name!r}"'), f"{WORKS}.text: {TEMPLATE}; it is '{{name!r}}'"),
    (template('"{name:>9}"'), f"{WORKS}.text: {TEMPLATE}; it is '{{name:>9}}'"),
    (template('"{0}"'), f"{WORKS}.text: {TEMPLATE}; it is '{{0}}'"),
    (template('"{}"'), f"{WORKS}.text: {TEMPLATE}; it is '{{}}'"),
    (template('"{a..b}"'), f"{WORKS}.text: {TEMPLATE}; it is '{{a..b}}'"),
    (template('"name"'), f"{WORKS}.text: the template names no field; write one as {{name}}; it is 'name'"),
    (template("[]"), f"{WORKS}.text: the template names no field; write one as {{name}}"),
    # Without quotes YAML reads a mapping.
    (
        template("{name}"),
        f'{WORKS}.text: put templates in quotes, like "{{name}} {{unit}}"; or it is a list of such parts',
    ),
    (
        changed("[code]", "[code, id, tenantId]"),
        f"{WORKS}.payload: id, tenantId: vecsync writes these payload keys itself",
    ),
]

NAMES = [
    (
        changed("  works:\n    source", "  my works:\n    source"),
        "vecsync.yaml:4: entities.my works: "
        "a name begins with a letter and has letters, digits and _ only, 64 at most; it is 'my works'",
    ),
    (
        changed("      works: {", "      my works: {"),
        "vecsync.yaml:8: entities.works.collections.my works: a collection's name begins with a letter and has "
        "letters, digits, _ and - only, 64 at most; it is 'my works'",
    ),
]


@pytest.mark.parametrize(("text", "message"), KEYS + VALUES + RELATIONS + TEXTS + NAMES)
def test_one_mistake(text: str, message: str) -> None:
    """The message for each mistake, word by word."""
    assert message_of(text) == message


def test_every_mistake_is_named() -> None:
    """Several mistakes give one line each, in one error."""
    text = changed("source: db", "source: 5\n    foo: 1")
    assert [line.split(": ")[1] for line in message_of(text).splitlines()] == [
        "entities.works.source",
        "entities.works.foo",
    ]


def test_the_file_is_named() -> None:
    """A message begins with the name that the file was given by."""
    with pytest.raises(ConfigError, match=r"^conf/prod\.yaml:1: "):
        parse_config("", name="conf/prod.yaml")


def test_long_values_are_cut() -> None:
    """A value is repeated so far as a line can hold it."""
    message = message_of(added(f"sync: {{mode: {'x' * 500}}}"))
    assert message.endswith(f"; it is '{'x' * 56}...")


def test_no_url_or_key_is_repeated() -> None:
    """A secret that stands in the file by mistake is in no message, however it was written."""
    literal = "postgresql://user:hunter2@host/db"
    texts = [
        changed(SQLITE, f"{{type: postgres, url: '{literal}'}}"),
        changed(SQLITE, f"{{type: postgres, url: {{env: '{literal}'}}}}"),
        changed(SQLITE, f"{{type: postgres, url: {{'{literal}': }}}}"),
        changed(SQLITE, f"{{type: postgres, url: {{env: A, value: '{literal}'}}}}"),
        changed(SQLITE, f"{{type: postgres, url: ['{literal}']}}"),
        changed(SQLITE, f"{{type: postgres, uri: '{literal}', url: {{env: A}}}}"),
        added(f"stores: {{main: {{type: qdrant, url: ['{literal}']}}}}"),
        added(f"stores: {{main: {{type: qdrant, path: a, url: '{literal}'}}}}"),
        added("stores: {main: {type: qdrant, url: 'http://h', api_key: hunter2}}"),
        added("stores: {main: {type: qdrant, url: 'http://h', api_key: [hunter2]}}"),
        added("embedding: {chain: [{provider: openai, api_key: sk-hunter2}]}"),
        added("embedding: {chain: [{provider: openai, api_key: {env: sk-hunter2}}]}"),
        added("embedding: {chain: [{provider: openai, apikey: sk-hunter2}]}"),
        added(f"ledger: {{url: '{literal}'}}"),
    ]
    for text in texts:
        message = message_of(text)
        assert "hunter2" not in message
        assert message.startswith("vecsync.yaml:")


def test_a_literal_secret_is_told_where_it_belongs() -> None:
    """Who writes a key into the file is told how to name a variable instead."""
    message = message_of(added("embedding: {chain: [{provider: openai, api_key: sk-1}]}"))
    assert message == (
        "vecsync.yaml:9: embedding.chain.0.api_key: write it as {env: NAME}, the name of an environment variable; "
        "secrets must not be written in this file"
    )
