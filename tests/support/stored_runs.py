"""Stored runs made of arrays: predictions on disk, everything else in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ser_bench import predictions as tables
from ser_bench.config import TrackingConfig
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Predictions, Row

LABELS = ("angry", "happy", "sad")


def make_clips(speakers: int, each: int = 12) -> dict[str, Clip]:
    """Clips of three labels in turn, with two sentences and both sexes."""
    return {
        f"s{s:02}_{i:02}": Clip(
            id=f"s{s:02}_{i:02}",
            path=Path(f"s{s:02}_{i:02}.wav"),
            emotion=LABELS[i % 3],
            speaker=f"s{s:02}",
            sentence="AB"[i % 2],
            sex=("female", "male")[s % 2],
        )
        for s in range(speakers)
        for i in range(each)
    }


def predict(clips: dict[str, Clip], skill: float, seed: int, abstain: int = 0) -> Predictions:
    """Predictions that are right with probability `skill`, with random confidence.

    Args:
        clips: clip id → clip.
        skill: probability of a right answer.
        seed: of the random numbers.
        abstain: number of abstentions, which come first.
    """
    rng = np.random.default_rng(seed)
    n, c = len(clips), len(LABELS)
    truth = [LABELS.index(clip.emotion) for clip in clips.values()]
    answers = np.where(rng.random(n) < skill, truth, (np.array(truth) + rng.integers(1, c, n)) % c)
    top = rng.uniform(0.4, 0.9, n)
    probabilities = np.repeat(((1 - top) / (c - 1))[:, None], c, axis=1)
    probabilities[np.arange(n), answers] = top
    abstained = np.arange(n) < abstain
    probabilities[abstained] = 1 / c
    return Predictions(
        rows=tuple(Row(clip_id) for clip_id in clips),
        truth=tuple(clip.emotion for clip in clips.values()),
        labels=LABELS,
        probabilities=probabilities.astype(np.float32),
        abstained=abstained,
        latency_s=np.full(n, 0.01, np.float32),
        cost_usd=np.zeros(n, np.float32),
    )


def store(
    folder: Path,
    model: str,
    predictions: Predictions,
    clips: dict[str, Clip],
    fold: int = 0,
    seed: int = 0,
    params: dict[str, str] | None = None,
    start_time: int = 0,
    **tags: str,
) -> StoredRun:
    """A finished run whose predictions are stored in `folder`."""
    run_id = f"{len(list(folder.glob('*'))):032x}"
    (folder / run_id).mkdir(parents=True)
    tables.save(predictions, clips, folder / run_id / "predictions.parquet")
    default_tags = {
        "kind": "run", "model": model, "corpus": "tiny", "corpus_digest": "d", "labels": " ".join(LABELS),
        "protocol": "speaker", "fold": str(fold), "folds": "2", "partition": f"p{fold}", "seed": str(seed),
        "synthetic": "false", "key_groups": "features trainer", "shuffle_labels": "false",
    }  # fmt: skip
    return StoredRun(
        run_id=run_id,
        name=f"{model} speaker fold {fold}",
        status="FINISHED",
        start_time=start_time,
        tags=default_tags | tags,
        metrics={"time/fit_s": 60.0},
        params={"model.name": model} | (params or {}),
        parent=None,
        artifact_uri=(folder / run_id).as_uri(),
        tracking=TrackingConfig(dir=str(folder)),
    )
