"""The records of an audit in a run: the table of clips that it reads, and the result that it writes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ser_bench.config import TrackingConfig
from ser_bench.errors import TrackingError, one_line
from ser_bench.tracking.run_writer import log_metrics, log_tags, log_text, log_written_file
from ser_bench.tracking.stored_runs import StoredRun
from ser_bench.types import Clip, Row

CLIPS_FILE, FIT_ROWS_FILE = "clips.parquet", "fit_rows.json"
CLIP_COLUMNS = ("emotion", "speaker", "sentence", "intensity", "sex", "duration_s", "digest")


def log_clips(cfg: TrackingConfig, run_id: str, clips: Sequence[Clip]) -> None:
    """Log the table of clips `clips.parquet`: id, label, speaker, sentence, digest of the file and more, but no path.

    Raises:
        TrackingError: the store cannot be written.
    """
    frame = pd.DataFrame({"clip_id": [clip.id for clip in clips]})
    for column in CLIP_COLUMNS:
        frame[column] = [getattr(clip, column) for clip in clips]
    log_written_file(cfg, run_id, CLIPS_FILE, lambda path: frame.to_parquet(path, index=False))


def stored_clips(stored: StoredRun) -> dict[str, Clip] | None:
    """Return the table of clips by id, without paths; None if the run is older than these tables.

    Raises:
        ArtifactError: the file is damaged.
    """
    try:
        stored.artifact(CLIPS_FILE)
    except TrackingError:
        return None  # an unreachable server has raised this error earlier, when the run was looked up
    with stored.reading(CLIPS_FILE) as path:
        frame = pd.read_parquet(path)
        columns = {column: frame[column].tolist() for column in ("clip_id", *CLIP_COLUMNS)}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return {row["clip_id"]: Clip(id=row.pop("clip_id"), path=Path(), **row) for row in rows}


def log_fit_rows(cfg: TrackingConfig, run_id: str, rows: Collection[Row]) -> None:
    """Log the rows whose labels or votes were read while the predictor was fitted, as `fit_rows.json`.

    Raises:
        TrackingError: the store cannot be written.
    """
    log_text(cfg, run_id, fit_rows_json(rows), FIT_ROWS_FILE)


def fit_rows_json(rows: Collection[Row]) -> str:
    """Return the content of `fit_rows.json`."""
    return json.dumps({"labels_read": sorted(rows)}, ensure_ascii=False)


def stored_fit_rows(stored: StoredRun) -> frozenset[Row] | None:
    """Return the rows of `fit_rows.json`; None if the run is older than this file.

    Raises:
        TrackingError: the file is damaged.
    """
    path = stored.artifact("") / FIT_ROWS_FILE
    if not path.exists():
        return None
    try:
        return frozenset(Row(*row) for row in json.loads(path.read_text(encoding="utf-8"))["labels_read"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{path}: not readable ({one_line(error)}); run again with force=true") from error


def log_audit(
    cfg: TrackingConfig, run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], content: str
) -> None:
    """Log the result of an audit to a run, finished or not: tags, metrics, and the artifact `audit.json`.

    Raises:
        TrackingError: the store cannot be written.
    """
    log_metrics(cfg, run_id, metrics)
    log_tags(cfg, run_id, tags)
    log_text(cfg, run_id, content, "audit.json")
