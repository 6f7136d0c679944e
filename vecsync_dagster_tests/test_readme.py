"""README's commands are real: each one runs on a demo folder, and CI calls the test command that users are given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vecsync_dagster.config.loading import ENVIRONMENT, RETRY_ENVIRONMENT
from vecsync_dagster_tests.cli.program import HOUSES, vecsync, write_hash_demo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("vecsync ")]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's data with hash vectors: what the commands do is tested here, not what the model knows."""
    for name in (*ENVIRONMENT, *RETRY_ENVIRONMENT, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VECSYNC_CONFIG", str(write_hash_demo(tmp_path)))


@pytest.mark.usefixtures("demo")
def test_every_command_of_the_readme_runs() -> None:
    """In README's order each command ends with 0 and says something; `ui` has a test of its own."""
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        words = shlex.split(command.replace("TENANT", HOUSES))[1:]
        if words[0] == "ui":
            words.append("--help")
        ran = vecsync(*words)
        assert ran.code == 0, f"{command}\n{ran.out}\n{ran.err}"
        assert ran.out.strip(), command


def test_ci_calls_exactly_the_readmes_test_command() -> None:
    """.ci/run sets up and tests with the line that README gives."""
    [line] = [line for line in LINES if line.endswith("pytest -q -n auto")]
    assert line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_readme_documents_every_environment_variable() -> None:
    """Every variable that overrides a setting is in README's table."""
    rows = "\n".join(re.findall(r"^\| .*$", README, re.MULTILINE))
    assert [name for name in (*ENVIRONMENT, *RETRY_ENVIRONMENT) if f"`{name}`" not in rows] == []
