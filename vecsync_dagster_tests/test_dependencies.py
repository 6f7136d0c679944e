"""What the package imports, it declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported() -> set[str]:
    """Top-level names of other people's modules, wherever in a file they are imported."""
    names: set[str] = set()
    for file in (ROOT / "vecsync_dagster").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"vecsync_dagster"}


def test_what_is_imported_is_declared() -> None:
    """By the package itself or by one of its extras: none of it comes by way of another package alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (extra for name, extra in project["optional-dependencies"].items() if name != "dev")
    requirements = [*project["dependencies"], *(one for extra in extras for one in extra)]
    declared = {re.split(r"[\[<>=!~; ]", one)[0].lower().replace("_", "-") for one in requirements}
    providers = packages_distributions()
    undeclared = {
        name for name in imported() if not declared & {one.lower().replace("_", "-") for one in providers.get(name, [])}
    }
    assert undeclared == set()
