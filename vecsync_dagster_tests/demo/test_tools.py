"""The sample of tools: its configuration, its documents, and the shorter version of docs/mongodb.md."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from vecsync_dagster.config import Config
from vecsync_dagster_tests.tools import FOUR, sample, tools_config

DOCS = (Path(__file__).parents[2] / "docs" / "mongodb.md").read_text(encoding="utf-8")


def test_every_text_field_has_values_in_the_sample(tmp_path: Path) -> None:
    """What makes the four texts is there; each tool has a text in each collection."""
    entity = tools_config(tmp_path, "d").entities["tools"]
    assert tuple(entity.collections) == FOUR
    for collection in entity.collections.values():
        assert all(any(tool.get(name) for name in collection.text_fields) for tool in sample())
    assert {tool["approvalStatus"] for tool in sample()} == {"approved", "pending", "rejected"}
    ids = [tool["id"] for tool in sample()]
    assert len(ids) == len(set(ids)) == 24
    assert all(re.fullmatch(r"[a-z0-9-]+", identity) for identity in ids)


def test_the_documented_example_is_the_samples(tmp_path: Path) -> None:
    """The four collections of docs/mongodb.md are valid, and make the same texts."""
    [text] = [block for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL) if "type: mongo" in block]
    entity = Config.model_validate(yaml.safe_load(text)).entities["tools"]
    wanted = tools_config(tmp_path, "d").entities["tools"]
    assert {name: one.text for name, one in entity.collections.items()} == {
        name: one.text for name, one in wanted.collections.items()
    }
    assert entity.filter == wanted.filter
