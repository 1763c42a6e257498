"""The scores of a run with their intervals: a run logs them at its end, and the audit computes them again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ser_bench.config import Protocol
from ser_bench.evaluation import metrics, statistics
from ser_bench.types import CLEAN, Predictions

TEST, TEST_CLEAN = "test/", "test_clean/"
"""Prefixes of the scores of all test rows, and of the clean ones among them."""
BOUNDS = ("_low", "_high")
"""Ends of the names of the bounds of an interval."""


def score(predictions: Predictions, protocol: Protocol, speakers: Mapping[str, str]) -> dict[str, float]:
    """Return metrics of the test rows with intervals; under `paper`, with augmented test rows, of clean rows too."""
    scores = metrics.score(predictions, prefix=TEST) | bounds(predictions, speakers, TEST)
    if protocol is Protocol.paper:
        clean = predictions.take([i for i, row in enumerate(predictions.rows) if row.variant == CLEAN])
        scores |= metrics.score(clean, prefix=TEST_CLEAN) | bounds(clean, speakers, TEST_CLEAN)
    return scores


def bounds(predictions: Predictions, speakers: Mapping[str, str], prefix: str) -> dict[str, float]:
    """Return 95 % intervals of UAR and accuracy (`uar_low`, `uar_high`, …), clipped to 0 and 1; {} for one speaker."""
    counts = statistics.counts_by_speaker(predictions, speakers)
    intervals: dict[str, float] = {}
    for name, statistic in (("uar", metrics.uar), ("accuracy", metrics.accuracy)):
        interval = statistics.interval(counts, statistic)
        if not math.isnan(interval.low):
            limits = (max(0.0, interval.low), min(1.0, interval.high))
            intervals |= {f"{prefix}{name}{end}": limit for end, limit in zip(BOUNDS, limits, strict=True)}
    return intervals
