"""Standardisation of feature columns by the training rows' statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ser_bench.types import FloatArray

CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Standardizer:
    """x → (x − mean) / std, column by column.

    Attributes:
        mean: [D], of the rows it was fitted to.
        std: [D], population standard deviation of the same; 1 where a column does not vary.
    """

    mean: FloatArray
    std: FloatArray

    @classmethod
    def fit(cls, features: FloatArray) -> Self:
        """Statistics of [N, D] features; N is at least 1."""
        # Sums of many float32 values lose digits: accumulate in float64, chunk by chunk to keep the copies small.
        mean = features.mean(axis=0, dtype=np.float64)
        chunks = (features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS))
        std = np.sqrt(sum(np.square(chunk - mean).sum(axis=0) for chunk in chunks) / len(features))
        # A constant column may show a spread of rounding errors, which dividing would blow up into noise.
        constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        return cls(mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32))

    def __call__(self, features: FloatArray) -> FloatArray:
        """[N, D] standardised, in a new array."""
        scaled: FloatArray = features - self.mean
        scaled /= self.std
        return scaled
