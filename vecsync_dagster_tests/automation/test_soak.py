"""Left running for three minutes, with everything killed once and the database away once: see benchmarks/soak.py."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.many
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", [[], ["--looks"]], ids=["listener", "looks"])
def test_the_store_equals_the_table_in_the_end(how: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "3", "--rows", "4000", "--tenants", "40", *how]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the store equals the table, point by point" in ended.stdout
