"""What an audit reads of a run and writes to it: the table of clips, the verdict."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ser_bench.config import TrackingConfig
from ser_bench.errors import TrackingError
from ser_bench.redaction import redact
from ser_bench.tracking.epoch_metrics import log_metrics
from ser_bench.tracking.mlflow_store import client, errors
from ser_bench.tracking.run_description import metric_name, readable
from ser_bench.tracking.stored_runs import StoredRun
from ser_bench.tracking.sweep_run import log_text
from ser_bench.types import Clip

CLIPS_FILE = "clips.parquet"
CLIP_COLUMNS = ("emotion", "speaker", "sentence", "intensity", "sex", "duration_s", "digest")


def log_clips(cfg: TrackingConfig, run_id: str, clips: Sequence[Clip]) -> None:
    """Keep who spoke what in each clip, and the digest of its bytes, as `clips.parquet`; no paths."""
    frame = pd.DataFrame({"clip_id": [clip.id for clip in clips]})
    for column in CLIP_COLUMNS:
        frame[column] = [getattr(clip, column) for clip in clips]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / CLIPS_FILE
        frame.to_parquet(path, index=False)
        with errors(cfg):
            client(cfg).log_artifact(run_id, str(path))


def stored_clips(stored: StoredRun) -> dict[str, Clip] | None:
    """The same by id, without paths; None where the run is older than the table."""
    try:
        path = stored.artifact(CLIPS_FILE)
    except TrackingError:
        return None  # a server says in its own words that there is none; one that is away has failed before
    frame = pd.read_parquet(path)
    columns = {column: frame[column].tolist() for column in ("clip_id", *CLIP_COLUMNS)}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {row["clip_id"]: Clip(id=row.pop("clip_id"), path=Path(), **row) for row in rows}


def log_audit(
    cfg: TrackingConfig, run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], content: str
) -> None:
    """Write a verdict to a run, finished or not: tags, metrics, and the JSON `audit.json`."""
    from mlflow.entities import Metric, RunTag

    now_ms = time.time_ns() // 1_000_000
    log_metrics(cfg, run_id, [Metric(metric_name(k), readable(v), now_ms, 0) for k, v in metrics.items()])
    with errors(cfg):
        client(cfg).log_batch(run_id, tags=[RunTag(name, redact(value)) for name, value in tags.items()])
    log_text(cfg, run_id, content, "audit.json")
