"""The component in a Dagster project of somebody else's, by `dg` as they type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from vecsync_dagster_tests.config.examples import VALID

ROOT = Path(__file__).parents[2]
TYPE = "vecsync_dagster.components.VectorSync"
GROUP = "dagster_dg_cli.registry_modules"
pytestmark = pytest.mark.xdist_group("dg")  # one process imports Dagster for all of them
PYPROJECT = """\
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
THEIRS = """\
import dagster as dg


@dg.asset
def report() -> None: ...


@dg.job
def their_job() -> None: ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an asset and a job of its own."""
    root = tmp_path / "shop"
    (root / "shop" / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    for module in ("__init__.py", "defs/__init__.py"):
        (root / "shop" / module).touch()
    (root / "shop" / "definitions.py").write_text(DEFINITIONS)
    (root / "shop" / "defs" / "theirs.py").write_text(THEIRS)
    return root


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that registers the component as pyproject.toml says: an editable installation may be
    older than what it says now."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    folder = tmp_path_factory.mktemp("registered")
    metadata = folder / "vecsync_registered-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vecsync-registered\nVersion: 0\n")
    lines = [f"[{GROUP}]", *(f"{name} = {module}" for name, module in declared.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Dg = Callable[..., Ran]


@pytest.fixture(scope="module")
def forked_dg(registered: Path) -> Iterator[subprocess.Popen[str]]:
    """See the module of that name."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "VECSYNC_CONFIG")},
        "PYTHONPATH": os.pathsep.join([str(registered), str(ROOT)]),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "COLUMNS": "200",
    }
    program = [sys.executable, "-m", "vecsync_dagster_tests.components.forked_dg"]
    with subprocess.Popen(
        program, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process


@pytest.fixture
def dg(forked_dg: subprocess.Popen[str], project: Path, tmp_path: Path) -> Dg:
    """Runs `dg` with these arguments in the project's folder."""
    assert forked_dg.stdin is not None
    assert forked_dg.stdout is not None
    to, answers = forked_dg.stdin, forked_dg.stdout
    out, err = tmp_path / "out", tmp_path / "err"

    def run(*arguments: str) -> Ran:
        to.write(json.dumps([str(project), str(out), str(err), *arguments]) + "\n")
        to.flush()
        return Ran(int(answers.readline()), out.read_text(), err.read_text())

    return run


def place(project: Path, **attributes: object) -> Path:
    """defs/vectors/defs.yaml with these attributes."""
    file = project / "shop" / "defs" / "vectors" / "defs.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"type": TYPE, "attributes": attributes}))
    return file


def test_what_is_scaffolded_is_sound(project: Path, dg: Dg) -> None:
    """`dg scaffold defs` writes a defs.yaml that `dg check` finds sound, and `dg list defs` shows what it makes,
    beside what was there before."""
    scaffolded = dg("scaffold", "defs", TYPE, "vectors")
    assert scaffolded.code == 0, scaffolded.err
    assert (project / "shop" / "defs" / "vectors" / "defs.yaml").is_file()
    for check in ("yaml", "defs"):
        checked = dg("check", check)
        assert checked.code == 0, checked.out + checked.err
    listed = dg("list", "defs").out
    assert all(
        name in listed for name in ("products/vectors", "products_job", "products_nightly", "report", "their_job")
    )


def test_a_configuration_file_is_used(project: Path, dg: Dg) -> None:
    """`config_file` is found from the component's folder; the same file serves the command line."""
    place(project, config_file="../../../vecsync.yaml")
    (project / "vecsync.yaml").write_text(VALID)
    listed = dg("list", "defs")
    assert "works/vectors" in listed.out, listed.err


def test_check_yaml_finds_a_wrong_key(project: Path, dg: Dg) -> None:
    """A key that the component does not have is found with its line."""
    place(project, config_fiel="vecsync.yaml")
    checked = dg("check", "yaml")
    assert checked.code == 1
    assert "config_fiel" in checked.out + checked.err


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "give either config_file or config"),
        ({"config_file": "none.yaml"}, "none.yaml: cannot be read"),
        (
            {"config": yaml.safe_load(VALID.replace("table: works", "tabel: works"))},
            "vectors: config: entities.works.tabel: unknown key; did you mean table?",
        ),
    ],
    ids=["nothing", "no-file", "wrong-key"],
)
def test_check_defs_finds_mistakes(project: Path, dg: Dg, attributes: dict[str, object], message: str) -> None:
    """What only the configuration itself knows to be wrong is named as `vecsync check` names it."""
    place(project, **attributes)
    checked = dg("check", "defs")
    assert checked.code == 1
    assert message in " ".join((checked.out + checked.err).split())
