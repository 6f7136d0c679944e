"""The last check of vectors: what nobody could search by is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from vecsync_dagster.embedding.vectors import check_vectors
from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable, VecsyncError


@pytest.mark.parametrize(
    ("zeros", "error"),
    [([True] * 20, EmbeddingUnavailable), ([False, True], EmbeddingRejected), ([True], EmbeddingRejected)],
    ids=["all of many", "some", "the only one"],
)
def test_a_vector_of_zeros_is_refused(zeros: list[bool], error: type[VecsyncError]) -> None:
    """It is the text's own error where others have a vector, and the provider's where none of many has."""
    vectors = np.array([[0.0, 0.0] if zero else [1.0, 0.0] for zero in zeros], np.float32)
    with pytest.raises(error, match="zeros") as refused:
        check_vectors(vectors, len(zeros), 2, "model")
    if isinstance(refused.value, EmbeddingRejected):
        assert refused.value.fields["index"] == zeros.index(True)
        assert set(refused.value.answered) == {row for row, zero in enumerate(zeros) if not zero}
