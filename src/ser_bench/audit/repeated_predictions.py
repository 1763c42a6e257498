"""Check of the stored predictions: the stored predictor must give them again for the test rows, or a sample of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ser_bench.audit.finding import NOT_APPLICABLE, Finding
from ser_bench.errors import SerBenchError, one_line
from ser_bench.predictors import HasPrompt, has_capability
from ser_bench.types import Predictions, Predictor, Row, Split

NAME = "repeated_predictions"
TOLERANCE = 0.01
"""Largest difference of a probability. On one machine it is 1e-6; other processors, GPUs and versions differ more."""
SECONDS = 30.0
"""All rows are predicted again if this is as long as the run took, by its stored latency; otherwise a sample is."""
SAMPLE_ROWS = 256
"""Smallest sample, whatever the latency."""


def check_repetition(
    predictor: Predictor | None, why: str, split: Split, predictions: Predictions, seed: int
) -> Finding:
    """Return a leak if the stored predictor predicts test rows otherwise than the run has stored.

    A language model is not asked again: this costs money, and its answers need not be the same.

    Args:
        predictor: restored from the run's files; None if it cannot be restored here.
        why: the reason, if it is None.
        split: the rows.
        predictions: as stored.
        seed: of the sample.
    """
    if predictor is None:
        return Finding(NAME, f"not checked: {why}")
    if has_capability(predictor.name, HasPrompt):
        return Finding(NAME, "not checked: the language model is not asked again")
    tested = set(split.test)
    known = [i for i, row in enumerate(predictions.rows) if row in tested]
    if not known:
        return Finding(NAME, f"{NOT_APPLICABLE}: no test row has a prediction")
    before = predictions.take(sample(predictions, known, seed))
    try:
        now = predictor.predict(before.rows)
    except SerBenchError as error:
        return Finding(NAME, f"not checked: {one_line(error)}")
    different, largest = _differences(before, now)
    rows = f"{len(before.rows):,} of {len(tested):,} test rows"
    if different:
        text = f"of {rows}, the stored predictor predicts {len(different):,} otherwise than the run has stored"
        return Finding(NAME, f"{text} ({different[0].clip_id} by {largest:.2f})", 1.0, leak=True)
    return Finding(NAME, f"the stored predictor gives the stored predictions again, for {rows}", 0.0)


def sample(predictions: Predictions, known: Sequence[int], seed: int) -> list[int]:
    """Return the indices of the rows to predict again: all, or as many as take `SECONDS`, drawn by the seed."""
    per_row = float(predictions.latency_s.mean())
    count = len(known) if per_row * len(known) <= SECONDS else max(SAMPLE_ROWS, int(SECONDS / per_row))
    if count >= len(known):
        return list(known)
    return sorted(np.random.default_rng(seed).choice(np.asarray(known), count, replace=False).tolist())


def _differences(before: Predictions, now: Predictions) -> tuple[list[Row], float]:
    """Return the rows that differ, and by how much the probabilities of the first one do (1 if it is left out)."""
    index = {row: i for i, row in enumerate(now.rows)}
    if now.labels != before.labels:
        return list(before.rows), 1.0
    gaps = []
    for i, row in enumerate(before.rows):
        j = index.get(row)
        if j is None or bool(now.abstained[j]) != bool(before.abstained[i]):
            gaps.append(1.0)
        else:
            gaps.append(float(np.abs(now.probabilities[j] - before.probabilities[i]).max()))
    different = [(gap, row) for gap, row in zip(gaps, before.rows, strict=True) if not gap <= TOLERANCE]
    return [row for _, row in different], different[0][0] if different else 0.0
