"""Check of a fusion's regression: it is fitted again to the validation rows, and must have the same coefficients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ser_bench.audit.finding import Finding
from ser_bench.config import Config
from ser_bench.errors import SerBenchError
from ser_bench.predictors.base import DESCRIPTION_FILE
from ser_bench.predictors.fusion import Combine, FusionConfig, fusion, stacking
from ser_bench.predictors.stored_model import reading
from ser_bench.types import Clip, Row, Split

TOLERANCE = 1e-3
"""Largest difference of coefficients and intercepts, as a share of the largest one: L-BFGS differs between machines."""
ATTENTION = "not checked: the attention is not trained again here; its scaler is checked"


def check_combiner(folder: Path, cfg: Config, split: Split, clips: Mapping[str, Clip]) -> Finding | None:
    """Return the finding about a fusion's regression; None if the run is no fusion, or its fusion is a mean.

    The regression is a leak if it was fitted to rows other than validation rows, or if fitting it again to these rows
    with the corpus' labels gives other coefficients. An attention is not checked.

    Args:
        folder: files that `Fusion.save` wrote.
        cfg: of the run.
        split: the rows.
        clips: by id.

    Raises:
        SerBenchError: a file cannot be read.
    """
    if not isinstance(cfg.model, FusionConfig):
        return None
    with reading(folder):
        stored = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    if stored.get("combine") == Combine.attention.value:
        return Finding("combiner", ATTENTION)
    if "val_rows" not in stored:
        return None
    rows = [Row(*row) for row in stored["val_rows"]]
    foreign = len(set(rows) - set(split.val))
    if foreign:
        tested = len(set(rows) & set(split.test))
        text = f"{foreign:,} rows that the combiner was fitted to are no validation rows; {tested:,} are test rows"
        return Finding("combiner", text, 1.0, leak=True)
    arrays = fusion.read(folder)
    labels = tuple(stored["labels"])
    truth = np.array([labels.index(clips[row.clip_id].emotion) for row in rows], dtype=np.int64)
    if cfg.shuffle_labels:
        truth = np.random.default_rng(cfg.seed).permutation(truth)
    if arrays["val_logs"].shape[0] != len(rows):
        raise SerBenchError(
            f"{folder}: {len(rows)} rows, but another number of log-probabilities; run again with force=true"
        )
    again = stacking.fit(arrays["val_logs"], truth, cfg.model.C, cfg.model.max_iter)
    largest = max(float(np.abs(again.coefficients).max()), float(np.abs(again.intercepts).max()))
    apart = max(
        float(np.abs(again.coefficients - arrays["coefficients"]).max()),
        float(np.abs(again.intercepts - arrays["intercepts"]).max()),
    )
    if apart > TOLERANCE * largest:
        return Finding(
            "combiner", "the combiner is not the one that fitting to its validation rows gives", 1.0, leak=True
        )
    return Finding("combiner", f"the combiner is the one that fitting to {len(rows):,} validation rows gives", 0.0)
