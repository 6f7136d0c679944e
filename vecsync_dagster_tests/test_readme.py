"""README's commands are real: each one runs on a demo folder, and CI calls the test command that users are given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vecsync_dagster.config.loading import ENVIRONMENT, RETRY_ENVIRONMENT
from vecsync_dagster.demo import TENANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("vecsync ")]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command.replace("TENANT", next(iter(TENANTS.values()))))
    program = [sys.executable, "-m", "vecsync_dagster.cli", *words[1:]]
    environment = {**os.environ, "VECSYNC_CONFIG": str(folder / "vecsync.yaml")}
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data with hash vectors: what the commands do is tested here, not what the model knows."""
    from vecsync_dagster.demo import write_demo

    folder = tmp_path_factory.mktemp("readme")
    config = write_demo(folder)
    config.write_text(config.read_text(encoding="utf-8").replace("{provider: bundled}", "{provider: hash}"))
    return folder


def test_every_command_of_the_readme_runs(demo: Path) -> None:
    """In README's order each command ends with 0 and says something; `ui` has a test of its own."""
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        if command.split()[1] == "ui":
            command += " --help"
        done = run(command, demo)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_ci_calls_exactly_the_readmes_test_command() -> None:
    """.ci/run sets up and tests with the line that README gives."""
    [line] = [line for line in LINES if line.endswith("pytest -q -n auto")]
    assert line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_readme_documents_every_environment_variable() -> None:
    """Every variable that overrides a setting is in README's table."""
    rows = "\n".join(re.findall(r"^\| .*$", README, re.MULTILINE))
    assert [name for name in (*ENVIRONMENT, *RETRY_ENVIRONMENT) if f"`{name}`" not in rows] == []
