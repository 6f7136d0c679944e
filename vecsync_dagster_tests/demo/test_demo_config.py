"""The demo's configuration, which users copy: as it stands, and with its alternatives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vecsync_dagster.config.models import Config
from vecsync_dagster.demo import CONFIG
from vecsync_dagster_tests.demo.conftest import Rows

COMMENTED = re.compile(r"^( *)# ((?:- \{|\w+: ).*)$")


@pytest.fixture(scope="module")
def text(demo: Path) -> str:
    return (demo / CONFIG).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config(text: str) -> Config:
    return Config.model_validate(yaml.safe_load(text))


def test_is_what_the_demo_needs(config: Config) -> None:
    """It needs no key, no server and no download, and writes into the demo's folder only."""
    assert config.sources["estimating"].type == "sqlite"
    assert [provider.provider for provider in config.embedding.chain] == ["bundled"]
    assert (config.stores["main"].path, config.state) == ("state/qdrant", "state")
    assert {name: entity.type for name, entity in config.entities.items()} == {"materials": "material", "works": "work"}


def test_fields_exist(config: Config, tables: dict[str, Rows]) -> None:
    """Every column that the configuration names is in its table."""
    for entity in config.entities.values():
        assert entity.tenancy is not None
        named = {*entity.fields, entity.updated_at, entity.deleted_at, entity.tenancy.column}
        assert named | {entity.tenancy.global_flag} <= set(tables[entity.table][0])


def test_alternatives_are_valid(text: str) -> None:
    """Every line that is commented out is valid where it stands, in place of the line it is an alternative to."""
    lines = text.splitlines()
    alternatives = [number for number, line in enumerate(lines) if COMMENTED.match(line)]
    assert len(alternatives) == 11
    for number in alternatives:
        uncommented = COMMENTED.sub(r"\1\2", lines[number])
        replaced = uncommented.split("{")[0].split(":")[0] + ":"
        kept = [line for line in lines[:number] if not line.startswith(replaced)]
        variant = yaml.safe_load("\n".join([*kept, uncommented, *lines[number + 1 :]]))
        assert variant != yaml.safe_load(text)
        Config.model_validate(variant)
