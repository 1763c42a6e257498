"""Agreement of predicted levels of intensity with the mean intensity that listeners heard.

The level is the instruction to the actor; the ratings state what listeners heard of it. Their own rank correlation is
given beside that of the predictor: it shows how far the instruction was followed audibly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ser_bench.evaluation import statistics
from ser_bench.evaluation.metrics import Float64Array, expected_levels
from ser_bench.types import Predictions

PREFIX = "intensity/"


def heard_agreement(
    predictions: Predictions, heard: Mapping[str, float], speakers: Mapping[str, str]
) -> dict[str, float]:
    """Return Spearman's correlations with the mean intensity that listeners heard, as metrics to log.

    The names are `intensity/heard_spearman` (of the expected level, Σ k · p(k)), with `…_low` and `…_high`, the 95 %
    interval by speaker of `statistics.interval`; `intensity/instruction_spearman` (of the level that the actor was
    asked for); and `intensity/heard_clips`, the number of rows with ratings. A correlation with a constant is 0.

    Args:
        predictions: over ordered levels.
        heard: clip id → mean rating.
        speakers: clip id → speaker.

    Returns:
        {} if fewer than two rows have ratings.
    """
    rated = predictions.take([i for i, row in enumerate(predictions.rows) if row.clip_id in heard])
    if len(rated.rows) < 2:
        return {}
    ratings = np.array([heard[row.clip_id] for row in rated.rows])
    levels = expected_levels(rated)
    truth = np.array([rated.labels.index(label) for label in rated.truth], dtype=np.float64)
    groups = np.unique([speakers[row.clip_id] for row in rated.rows], return_inverse=True)[1].astype(np.int64)
    ones = np.ones((1, len(ratings)))
    facts = {
        "heard_clips": float(len(ratings)),
        "heard_spearman": float(weighted_spearman(levels, ratings, ones)[0]),
        "instruction_spearman": float(weighted_spearman(truth, ratings, ones)[0]),
    }
    interval = statistics.interval_of_rows(
        groups, lambda weights: weighted_spearman(levels, ratings, weights), possible=(-1.0, 1.0)
    )
    if not np.isnan(interval.low):
        facts |= {"heard_spearman_low": interval.low, "heard_spearman_high": interval.high}
    return {PREFIX + name: value for name, value in facts.items()}


def weighted_spearman(x: Float64Array, y: Float64Array, weights: Float64Array) -> Float64Array:
    """Return Spearman's correlation of x and y [N], for each row of weights [B, N]; a weight repeats a row.

    Range [−1, 1]; 0 if x or y is constant. Ties have their mean rank.

    >>> x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    >>> weighted_spearman(x, y, np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])).round(3).tolist()
    [0.5, 1.0]
    """
    a, b = _centred_ranks(x, weights), _centred_ranks(y, weights)
    spread = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    correlations: Float64Array = np.zeros(len(weights))
    np.divide((weights * a * b).sum(1), spread, out=correlations, where=spread > 1e-9)
    return correlations


def _centred_ranks(values: Float64Array, weights: Float64Array) -> Float64Array:
    """Return [B, N]: mean rank of each row minus the mean of all ranks, if row n occurs weights[b, n] times."""
    distinct: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]] = np.unique(values, return_inverse=True)
    order = np.argsort(distinct[1], kind="stable")
    starts = np.searchsorted(distinct[1][order], np.arange(len(distinct[0])))
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(totals, axis=1) - totals / 2
    return np.asarray(ranks[:, distinct[1]] - weights.sum(1, keepdims=True) / 2)
