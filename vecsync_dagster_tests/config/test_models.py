"""What a valid configuration means: defaults, fields, secrets, and that nobody changes it."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from vecsync_dagster.config import Config, parse_config, resolve
from vecsync_dagster.config.models import (
    BundledProvider,
    EnvRef,
    HashProvider,
    OpenAIProvider,
    PostgresSource,
    SentenceTransformersProvider,
)
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.config.examples import VALID, changed


def config_of(entity: str = "", rest: str = "") -> Config:
    return parse_config(changed("    table: works\n", f"    table: works\n{entity}") + rest)


def test_defaults() -> None:
    """Sources and entities are all that must be written; the rest is what most users want."""
    config = parse_config(VALID)
    assert (config.sync.mode, config.sync.page, config.sync.batch, config.sync.parallel) == ("incremental", 500, 200, 3)
    assert (config.sync.delete_batch, config.sync.skip_invalid) == (500, True)
    assert (config.schedule.cron, config.schedule.timezone) == ("0 3 * * *", "UTC")
    assert [provider.provider for provider in config.embedding.chain] == ["bundled"]
    assert (config.stores["main"].path, config.stores["main"].url) == (".vecsync/qdrant", None)
    assert config.stores["main"].max_request_bytes == 16_000_000
    assert config.entities["works"].overlap == timedelta(minutes=10)


def test_the_retry_worker_is_as_asked() -> None:
    """At most 5 retries, 5 s x 2^n, capped at 300 s."""
    retry = parse_config(VALID).sync.retry
    assert (retry.max_retries, retry.base, retry.multiplier, retry.cap) == (
        5,
        timedelta(seconds=5),
        2.0,
        timedelta(seconds=300),
    )


def test_frozen() -> None:
    """No part of a configuration can be changed once it is read."""
    config = parse_config(VALID)
    for part, name in ((config, "state"), (config.sync, "mode"), (config.entities["works"], "table")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, "other")


def test_fields_of_an_entity() -> None:
    """The fields that a record must have: id, required, typed, in a text, in a payload; each once."""
    config = config_of("    id: key\n    required: [name, unit]\n    types: {price: number}\n")
    assert config.entities["works"].fields == ("key", "name", "unit", "price", "code")


@pytest.mark.parametrize(
    ("text", "parts", "fields"),
    [
        ('"{a} {b} {a}"', ("{a} {b} {a}",), ("a", "b")),
        ('["Features: {b}.", "{a}"]', ("Features: {b}.", "{a}"), ("b", "a")),
        ('"{{braces}} {název}"', ("{{braces}} {název}",), ("název",)),
    ],
)
def test_fields_of_a_template(text: str, parts: tuple[str, ...], fields: tuple[str, ...]) -> None:
    """The fields a text is made of, in order; doubled braces are plain ones."""
    collection = parse_config(changed('"{name}"', text)).entities["works"].collections["works"]
    assert (collection.parts, collection.text_fields) == (parts, fields)


@pytest.mark.parametrize("written", ["PT5M", "300", "00:05:00"])
def test_durations(written: str) -> None:
    """A duration is seconds, ISO 8601 or h:m:s."""
    assert config_of(f"    overlap: {written}\n").entities["works"].overlap == timedelta(minutes=5)


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/15 * * * *", "0 3 * * MON-FRI"])
def test_cron(cron: str) -> None:
    """Five fields, as cron itself reads them."""
    assert config_of(rest=f"schedule: {{cron: '{cron}', timezone: Europe/Prague}}\n").schedule.cron == cron


def test_a_prefix_keeps_its_blank() -> None:
    """The blank at the end of a model's prefix is a part of it; other texts are trimmed."""
    provider = OpenAIProvider(provider="openai", query_prefix="query: ", model=" m ")
    assert (provider.query_prefix, provider.model) == ("query: ", "m")


class TestSecrets:
    def test_read_when_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A value from the environment is read at the time of its use, not when the file is read."""
        reference = EnvRef(env="VECSYNC_TEST_URL")
        monkeypatch.setenv("VECSYNC_TEST_URL", "first")
        assert resolve(reference, "sources.db.url") == "first"
        monkeypatch.setenv("VECSYNC_TEST_URL", "second")
        assert resolve(reference, "sources.db.url") == "second"

    @pytest.mark.parametrize(
        ("value", "state"), [(None, "not set"), ("", "empty"), (" \r\n", "empty"), ("\ufeff\n\t", "empty")]
    )
    def test_no_value(self, monkeypatch: pytest.MonkeyPatch, value: str | None, state: str) -> None:
        """A variable that is not set, or holds nothing, is an error that names the key and the variable."""
        monkeypatch.delenv("VECSYNC_TEST_URL", raising=False)
        if value is not None:
            monkeypatch.setenv("VECSYNC_TEST_URL", value)
        with pytest.raises(ConfigError) as missing:
            resolve(EnvRef(env="VECSYNC_TEST_URL"), "sources.db.url")
        assert str(missing.value) == f"sources.db.url: the environment variable VECSYNC_TEST_URL is {state}"
        assert missing.value.fields == {"key": "sources.db.url", "env": "VECSYNC_TEST_URL"}

    @pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t\n\n", "\ufeff", "\n\ufeff ", "\u200b\n"])
    def test_what_is_around_a_value(self, monkeypatch: pytest.MonkeyPatch, around: str) -> None:
        """Blanks, line ends and byte order marks around a value are no part of it, wherever it is written."""
        monkeypatch.setenv("VECSYNC_TEST_URL", f"{around}the value{around}")
        assert EnvRef(env="VECSYNC_TEST_URL").get() == "the value"
        assert resolve(EnvRef(env="VECSYNC_TEST_URL"), "sources.db.url") == "the value"
        assert resolve(f"{around}the value{around}", "stores.main.url") == "the value"

    @pytest.mark.parametrize("inside", ["\n", "\r\n", "\t", "\x1b[0m"])
    def test_what_no_client_could_send(self, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
        """A secret of two lines, such as one that was wrapped, is an error that names the variable, not an outage."""
        monkeypatch.setenv("VECSYNC_TEST_KEY", f"sec{inside}ret")
        message = r"^stores\.main\.api_key: the environment variable VECSYNC_TEST_KEY has a line end or another control"
        with pytest.raises(ConfigError, match=message):
            resolve(EnvRef(env="VECSYNC_TEST_KEY"), "stores.main.api_key")
        with pytest.raises(ConfigError, match=r"^stores\.main\.url: this has a line end or another control character"):
            resolve(f"http://lo{inside}cal", "stores.main.url")

    def test_empty_text(self) -> None:
        """Text of the file that holds nothing but a byte order mark is an error that names the key."""
        with pytest.raises(ConfigError, match=r"^stores\.main\.url: this is empty$"):
            resolve("\ufeff", "stores.main.url")

    def test_plain_text(self) -> None:
        """Where text is allowed beside a variable, it is taken as it is."""
        assert resolve("http://localhost:6333", "stores.main.url") == "http://localhost:6333"

    def test_not_in_the_representation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Printing a configuration shows a variable's name, never its value."""
        monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@host/db")
        source = PostgresSource.model_validate({"type": "postgres", "url": {"env": "DATABASE_URL"}})
        assert source.url.get() == "postgresql://user:hunter2@host/db"
        assert "DATABASE_URL" in repr(source)
        assert "hunter2" not in repr(source) + source.model_dump_json()


@pytest.mark.parametrize("provider", [HashProvider, BundledProvider, SentenceTransformersProvider])
def test_what_costs_nothing_has_no_price(provider: type[BaseModel]) -> None:
    """A setting that would do nothing is refused."""
    with pytest.raises(ValidationError, match="price_per_million_tokens"):
        provider.model_validate({"provider": _name_of(provider), "price_per_million_tokens": 1})


def _name_of(provider: type[BaseModel]) -> str:
    [name] = get_args(provider.model_fields["provider"].annotation)
    return str(name)
