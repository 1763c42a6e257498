"""Whether a fusion's regression is the one that its validation rows give: fitted anew from what the run stored."""

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
from ser_bench.types import Clip, Row, Split

TOLERANCE = 1e-3
"""Of coefficients and intercepts, as a share of the largest: L-BFGS stops a little elsewhere on another machine."""
ATTENTION = "not checked: an attention is not trained again here; its scaler tells whose vectors it was given"


def check_combiner(folder: Path, cfg: Config, split: Split, clips: Mapping[str, Clip]) -> Finding | None:
    """None for a run that is no fusion, or whose fusion is a mean; an attention is not checked here.

    Held against the run: rows other than validation rows among those that the regression was fitted on, and
    coefficients that a fit over those rows, with the corpus' labels, does not give.

    Args:
        folder: what `Fusion.save` wrote.
        cfg: of the run.
        split: the rows.
        clips: by id.

    Raises:
        SerBenchError: a file that cannot be read.
    """
    if not isinstance(cfg.model, FusionConfig):
        return None
    stored = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    if stored.get("combine") == Combine.attention.value:
        return Finding("combiner", ATTENTION)
    if "val_rows" not in stored:
        return None
    rows = [Row(*row) for row in stored["val_rows"]]
    strange = len(set(rows) - set(split.val))
    if strange:
        tested = len(set(rows) & set(split.test))
        text = f"{strange:,} rows that the combiner was fitted on are no validation rows; {tested:,} are test rows"
        return Finding("combiner", text, 1.0, leak=True)
    arrays = fusion.read(folder)
    labels = tuple(stored["labels"])
    truth = np.array([labels.index(clips[row.clip_id].emotion) for row in rows], dtype=np.int64)
    if cfg.shuffle_labels:
        truth = np.random.default_rng(cfg.seed).permutation(truth)
    if arrays["val_logs"].shape[0] != len(rows):
        raise SerBenchError(f"{folder}: {len(rows)} rows, but other log-probabilities; run again with force=true")
    again = stacking.fit(arrays["val_logs"], truth, cfg.model.C, cfg.model.max_iter)
    largest = max(float(np.abs(again.coefficients).max()), float(np.abs(again.intercepts).max()))
    apart = max(
        float(np.abs(again.coefficients - arrays["coefficients"]).max()),
        float(np.abs(again.intercepts - arrays["intercepts"]).max()),
    )
    if apart > TOLERANCE * largest:
        return Finding("combiner", "the combiner is not the one that its validation rows give", 1.0, leak=True)
    return Finding("combiner", f"the combiner is the one that {len(rows):,} validation rows give", 0.0)
