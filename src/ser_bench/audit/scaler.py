"""Check of the scaler: its statistics must be those of training rows, computed again from the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ser_bench.audit.finding import NOT_APPLICABLE, Finding
from ser_bench.predictors.stored_model import reading
from ser_bench.types import CLEAN, FloatArray, Row, Split

TOLERANCE = 2e-4
"""Largest difference of means and standard deviations, in standard deviations. Summing the same features in another
order changes them by 1e-6; one additional clip among 24,000 rows changes some of 2,376 columns by 1e-3."""
CONSTANT = 1e-6
"""A column is constant if its standard deviation is below this share of its mean."""
CHUNK_ROWS = 512

Array = npt.NDArray[np.float64]
Read = Callable[[Sequence[Row]], FloatArray]
"""Rows → raw features [N, D], or [N · T, D] if the scaler is fitted to all T frames of a clip."""
PARTS = ("training (clean)", "training (augmented)", "validation", "test")
TRAINING = ("clean training", "training")
"""Names of the sets below that contain training rows only."""
ALLOWED: Mapping[str, tuple[int, ...]] = {
    "clean training": (0,),
    "clean training and validation": (0, 2),
    "training": (0, 1),
    "training and validation": (0, 1, 2),
}
"""Sets of rows that a scaler may be fitted to: name → indices into `PARTS`. Sets without augmented rows come first,
here and below: a predictor of clean rows has no features of the augmented ones, and computing them takes long."""
FORBIDDEN: Mapping[str, tuple[int, ...]] = {
    "clean training and test": (0, 3),
    "clean training, validation and test": (0, 2, 3),
    "test": (3,),
    "training and test": (0, 1, 3),
    "training, validation and test": (0, 1, 2, 3),
}


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each column, both [D]."""

    mean: Array
    std: Array


@dataclass(frozen=True)
class Moments:
    """Sums over rows: count, Σx [D], Σx² [D]. Those of two sets of rows can be added."""

    count: int
    total: Array
    squares: Array

    @classmethod
    def of(cls, rows: Sequence[Row], read: Read, width: int) -> Self:
        """Return the sums of the features of these rows, which are read `CHUNK_ROWS` at a time."""
        count, total, squares = 0, np.zeros(width), np.zeros(width)
        for start in range(0, len(rows), CHUNK_ROWS):
            values = read(rows[start : start + CHUNK_ROWS])
            count += len(values)
            total += values.sum(axis=0, dtype=np.float64)
            squares += np.square(values, dtype=np.float64).sum(axis=0)
        return cls(count, total, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def is_of(self, scaler: Scaler) -> bool:
        """Whether the scaler has the mean and the population standard deviation of these rows, within `TOLERANCE`."""
        if not self.count:
            return False
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - np.square(mean), 0.0))
        varies = std > CONSTANT * np.maximum(np.abs(mean), CONSTANT)
        unit = np.where(varies, std, np.maximum(np.abs(mean), 1.0))
        apart = np.abs(scaler.mean - mean) / unit
        spread = np.where(varies, np.abs(scaler.std - std) / unit, 0.0)
        return bool(apart.max() <= TOLERANCE and spread.max() <= TOLERANCE)


def stored_scaler(folder: Path) -> Scaler | None:
    """Return the arrays `mean` and `std` (or `scale`) of a stored predictor's safetensors files; None without them.

    Raises:
        SerBenchError: a file cannot be read.
    """
    from safetensors.numpy import load_file

    for path in sorted(folder.glob("*.safetensors")):
        with reading(path):
            arrays = load_file(path)
        std = arrays.get("std", arrays.get("scale"))
        if "mean" in arrays and std is not None:
            return Scaler(arrays["mean"].astype(np.float64), std.astype(np.float64))
    return None


def check_scaler(scaler: Scaler | None, split: Split, read: Read | None) -> Finding:
    """Check that the scaler was fitted to training rows only; otherwise name the rows that it was fitted to.

    Statistics of clean training rows only, or of training and validation rows, are no leak. A scaler whose statistics
    are those of no set of rows tried here is a leak, because nothing shows that it was fitted to training rows.

    Args:
        scaler: as stored; None if the predictor has none.
        split: the rows.
        read: returns the raw features that the scaler standardises; None if they are not available.
    """
    if scaler is None:
        return Finding("scaler", f"{NOT_APPLICABLE}: the predictor stores no scaler")
    if read is None:
        return Finding("scaler", f"not checked: features of its {len(scaler.mean):,} columns are not available")
    clean = [row for row in split.train if row.variant == CLEAN]
    augmented = [row for row in split.train if row.variant != CLEAN]
    computed: dict[int, Moments] = {}

    def moments(part: int) -> Moments:
        if part not in computed:
            computed[part] = Moments.of((clean, augmented, split.val, split.test)[part], read, len(scaler.mean))
        return computed[part]

    allowed = _fits(scaler, moments, ALLOWED)
    if allowed in TRAINING:
        return Finding("scaler", "the statistics of the scaler are those of training rows only", 0.0)
    if allowed:
        return Finding("scaler", f"the statistics of the scaler are those of {allowed} rows; no test row", 0.0)
    forbidden = _fits(scaler, moments, FORBIDDEN)
    text = f"the statistics of the scaler are those of {forbidden} rows" if forbidden else (
        "the statistics of the scaler are not those of the training rows, nor of these with validation or test rows"
    )  # fmt: skip
    return Finding("scaler", text, 1.0, leak=True)


def _fits(scaler: Scaler, moments: Callable[[int], Moments], sets: Mapping[str, tuple[int, ...]]) -> str:
    """Return the name of the first set whose statistics are the scaler's, or ""; a part is read when first needed."""
    for name, parts in sets.items():
        pooled = moments(parts[0])
        for part in parts[1:]:
            pooled = pooled + moments(part)
        if pooled.is_of(scaler):
            return name
    return ""
