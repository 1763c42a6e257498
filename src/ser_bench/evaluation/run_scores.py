"""The scores of a run with their intervals: a run logs them at its end, and the audit computes them again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ser_bench.config import Protocol
from ser_bench.evaluation import calibration, metrics, statistics, vote_metrics
from ser_bench.evaluation.calibration import Calibration
from ser_bench.types import CLEAN, Predictions

TEST, TEST_CLEAN = "test/", "test_clean/"
"""Prefixes of the scores of all test rows, and of the clean ones among them."""
BOUNDS = ("_low", "_high")
"""Ends of the names of the bounds of an interval."""

ANSWER_TIME = "time/answer_s"
"""Metric: median seconds from the samples of a clip to its answer, features and transcript included."""


def score(
    predictions: Predictions, protocol: Protocol, speakers: Mapping[str, str], calibrated_by: Calibration | None = None
) -> dict[str, float]:
    """Return metrics of the test rows with intervals; under `paper`, with augmented test rows, of clean rows too.

    With a calibration, `test/ece_calibrated` and `test/log_loss_calibrated` stand beside the scores as predicted.
    """
    scores = metrics.score(predictions, prefix=TEST) | bounds(predictions, speakers, TEST)
    scores |= calibration.scores(predictions, calibrated_by, TEST)
    scores |= {f"{TEST}{name}": value for name, value in vote_metrics.listeners_scores(predictions.votes).items()}
    if protocol is Protocol.paper:
        clean = predictions.take([i for i, row in enumerate(predictions.rows) if row.variant == CLEAN])
        scores |= metrics.score(clean, prefix=TEST_CLEAN) | bounds(clean, speakers, TEST_CLEAN)
    return scores


def bounds(predictions: Predictions, speakers: Mapping[str, str], prefix: str) -> dict[str, float]:
    """Return 95 % intervals (`uar_low`, `uar_high`, …), cut to the possible values; {} for one speaker.

    They are those of UAR and accuracy, of the metrics of levels where the labels are ordered, and of soft-label metrics
    where the votes of listeners are known.
    """
    counts = statistics.counts_by_speaker(predictions, speakers)
    intervals = {name: statistics.interval(counts, metrics.METRICS[name].compute) for name in ("uar", "accuracy")}
    if predictions.ordinal:
        intervals |= statistics.level_intervals(counts)
    intervals |= statistics.vote_intervals([predictions], speakers)
    return {
        f"{prefix}{name}{end}": limit
        for name, interval in intervals.items()
        for end, limit in zip(BOUNDS, (interval.low, interval.high), strict=True)
        if not math.isnan(limit)
    }
