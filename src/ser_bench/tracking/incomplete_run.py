"""What is logged of a run in which requests failed: counts and predictions, but no score."""

from __future__ import annotations

from collections.abc import Mapping

from ser_bench import predictions as tables
from ser_bench.config import TrackingConfig
from ser_bench.tracking.run_writer import describe_run, log_metrics, log_written_file
from ser_bench.types import Clip, Predictions


def log_incomplete(
    cfg: TrackingConfig, run_id: str, predictions: Predictions, clips: Mapping[str, Clip], facts: Mapping[str, float]
) -> None:
    """Log the counts of the predictor and `predictions.parquet`, in which the column `status` says "failed".

    A score would count failed requests as wrong answers, or would be measured on other clips than those of the split.
    """
    log_metrics(cfg, run_id, facts)
    log_written_file(cfg, run_id, "predictions.parquet", lambda path: tables.save(predictions, clips, path))
    describe_run(cfg, run_id, f"**incomplete, no score**: {tables.count_by_status(predictions)}\n")
