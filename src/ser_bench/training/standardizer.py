"""Standardisation of feature columns by the statistics of the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHUNK_ROWS = 1024
CONSTANT = 1e-6
"""A column whose standard deviation is at most this share of its mean is treated as constant."""


@dataclass(frozen=True)
class Standardizer:
    """x → (x − mean) / std, column by column.

    Attributes:
        mean: [D], means of the rows it was fitted to.
        std: [D], their population standard deviations; 1 for a constant column.
    """

    mean: Array
    std: Array

    @classmethod
    def fit(cls, features: Array, dtype: npt.DTypeLike = np.float32) -> Self:
        """Return the standardisation by the statistics of `features`.

        The statistics are computed in float64, because sums of many float32 values lose digits. They equal
        `numpy.mean` and `numpy.std` with `dtype=float64` to the last bit, but squares are held for a few rows only.

        Args:
            features: [N, D], N ≥ 1.
            dtype: type of the stored statistics.
        """
        mean = features.mean(axis=0, dtype=np.float64)
        total = np.zeros_like(mean)
        for start in range(0, len(features), CHUNK_ROWS):
            squares = np.square(features[start : start + CHUNK_ROWS] - mean)
            squares[0] += total  # so that the rows are added one after the other, whatever the size of a chunk
            total = squares.sum(axis=0)
        std = np.sqrt(total / len(features))
        # The deviation of a constant column is 0 or a rounding error. Division by it would amplify noise.
        constant = std <= CONSTANT * np.maximum(np.abs(mean), CONSTANT)
        return cls(mean.astype(dtype), np.where(constant, 1.0, std).astype(dtype))

    def __call__(self, features: Array) -> Array:
        """Return [N, D] standardised features in a new array, of the precision of `features`, float32 or float64."""
        dtype = np.promote_types(features.dtype, np.float32)
        scaled: Array = features - self.mean.astype(dtype)
        scaled /= self.std.astype(dtype)
        return scaled
