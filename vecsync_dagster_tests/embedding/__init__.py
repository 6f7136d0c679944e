"""Tests of the providers, the chain and the embedder; `provider_contract` runs over every provider."""

import pytest

# Its asserts are worth explaining too, although its name is not that of a test file.
pytest.register_assert_rewrite(f"{__name__}.provider_contract")
