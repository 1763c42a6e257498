"""Predictions as a table: one line a row, with what is known of its clip; stored with every run as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ser_bench.types import Clip, Predictions, Row

PROBABILITY = "p_"
CLIP_COLUMNS = ("speaker", "sex", "sentence", "intensity", "duration_s")


def to_frame(predictions: Predictions, clips: Mapping[str, Clip]) -> pd.DataFrame:
    """One line a row: clip_id, variant, speaker … truth, predicted, abstained, p_<label> …, latency_s, cost_usd."""
    frame = pd.DataFrame(
        {"clip_id": [r.clip_id for r in predictions.rows], "variant": [r.variant for r in predictions.rows]}
    )
    for column in CLIP_COLUMNS:
        frame[column] = [getattr(clips[row.clip_id], column) for row in predictions.rows]
    frame["truth"] = list(predictions.truth)
    frame["predicted"] = list(predictions.predicted)
    frame["abstained"] = predictions.abstained
    for i, label in enumerate(predictions.labels):
        frame[PROBABILITY + label] = predictions.probabilities[:, i]
    frame["latency_s"] = predictions.latency_s
    frame["cost_usd"] = predictions.cost_usd
    frame["note"] = list(predictions.notes) if predictions.notes else [""] * len(predictions.rows)
    frame.attrs = {"source": predictions.source}
    return frame


def from_frame(frame: pd.DataFrame) -> Predictions:
    """The inverse of `to_frame`; the label order is the order of the probability columns."""
    columns = [name for name in frame.columns if name.startswith(PROBABILITY)]
    return Predictions(
        rows=tuple(Row(str(c), str(v)) for c, v in zip(frame["clip_id"], frame["variant"], strict=True)),
        truth=tuple(str(t) for t in frame["truth"]),
        labels=tuple(name.removeprefix(PROBABILITY) for name in columns),
        probabilities=frame[columns].to_numpy(dtype=np.float32),
        abstained=frame["abstained"].to_numpy(dtype=np.bool_),
        latency_s=frame["latency_s"].to_numpy(dtype=np.float32),
        cost_usd=frame["cost_usd"].to_numpy(dtype=np.float32),
        source=str(frame.attrs.get("source", "softmax")),
        notes=tuple(str(n) for n in frame["note"]) if frame["note"].astype(bool).any() else (),
    )


def joined(one: Predictions, other: Predictions) -> Predictions:
    """Rows of both, first those of `one`; probabilities of two kinds are no better than one-hot ones. No notes.

    Raises:
        ValueError: the labels differ, or a row is in both.
    """
    if one.labels != other.labels:
        raise ValueError(f"predictions over {one.labels} cannot be joined with those over {other.labels}")
    return Predictions(
        rows=one.rows + other.rows,
        truth=one.truth + other.truth,
        labels=one.labels,
        probabilities=np.concatenate([one.probabilities, other.probabilities]),
        abstained=np.concatenate([one.abstained, other.abstained]),
        latency_s=np.concatenate([one.latency_s, other.latency_s]),
        cost_usd=np.concatenate([one.cost_usd, other.cost_usd]),
        source=one.source if one.source == other.source else "one_hot",
    )


def save(predictions: Predictions, clips: Mapping[str, Clip], path: Path) -> None:
    """Write `to_frame` as Parquet (attributes travel in the file's metadata)."""
    to_frame(predictions, clips).to_parquet(path, index=False)


def load(path: Path) -> Predictions:
    """Read what `save` wrote."""
    return from_frame(pd.read_parquet(path))
