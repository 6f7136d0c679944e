"""README.md and docs/: links lead somewhere, commands and options exist, settings have the defaults that are given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup

from vecsync_dagster.cli.main import app
from vecsync_dagster.config.models import (
    AutomationConfig,
    ChecksConfig,
    RetentionConfig,
    RetryConfig,
    ScheduleConfig,
    SyncConfig,
)

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]
SETTINGS: dict[str, type[BaseModel]] = {
    "automation": AutomationConfig,
    "schedule": ScheduleConfig,
    "sync": SyncConfig,
    "checks": ChecksConfig,
    "retention": RetentionConfig,
}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    prose = re.sub(r"^ *```.*?^ *```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def yaml_of(name: str) -> list[dict[str, object]]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text(ROOT / "docs" / name), re.DOTALL)]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_and_picture_exists(page: Path) -> None:
    """A relative link leads to a file, and its fragment to a heading of that file."""
    links = re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text(page))
    broken = []
    for link in links:
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_readme_leads_to_every_page() -> None:
    """No page of docs/ is to be found by chance alone."""
    linked = set(re.findall(r"\]\(docs/(\w+\.md)\)", text(ROOT / "README.md")))
    assert linked == {page.name for page in PAGES[1:]}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_and_option_exists(page: Path) -> None:
    """`vecsync COMMAND --option`, in code of any kind, is what the program takes."""
    code = re.findall(r"```.*?```", text(page), re.DOTALL)
    lines = [line.split("#")[0] for block in code for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL))
    lines += [" ".join(one.split()) for one in inline]
    calls = [call for line in lines for call in re.findall(r"(?:^|[\s/])vecsync ([a-z-]+(?: .*)?)$", line)]
    assert [call for call in calls if not _is_valid(call.split())] == []


def _is_valid(words: list[str]) -> bool:
    command = typer.main.get_command(app)
    for word in words:
        if isinstance(command, TyperGroup):
            if word not in command.commands:
                return False
            command = command.commands[word]
        elif word.startswith("--") and word != "--help" and all(word not in one.opts for one in command.params):
            return False
    return True


def test_the_settings_of_automation_are_complete_and_the_defaults() -> None:
    """docs/automation.md names every key of its blocks, each with its default."""
    [given] = yaml_of("automation.md")
    assert given.keys() == SETTINGS.keys()
    for name, model in SETTINGS.items():
        default = model().model_dump()
        assert model.model_validate(given[name]) == model(), name
        assert _keys(given[name]) == _keys(default), name


def _keys(value: object) -> object:
    return {key: _keys(one) for key, one in value.items()} if isinstance(value, dict) else None


def test_the_settings_of_retries_are_the_defaults() -> None:
    """docs/failures.md names every key of `sync.retry` with its default."""
    [given] = yaml_of("failures.md")
    retry = given["sync"]["retry"]  # type: ignore[index]
    assert RetryConfig.model_validate(retry) == RetryConfig()
    assert retry.keys() == RetryConfig.model_fields.keys()
