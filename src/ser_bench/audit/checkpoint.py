"""Check of the kept epoch: it must have been chosen by validation rows, or be the last one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ser_bench.audit.finding import NOT_APPLICABLE, Finding
from ser_bench.types import Predictions

ROUNDING = 1.5e-6
"""Logged losses are rounded to six decimals."""
LOSS_TOLERANCE = 0.02
"""Largest relative difference between the loss of the stored predictions and that of their epoch in the curve."""

Curve = Mapping[int, float]
"""Epoch, from 1 → value."""


def check_checkpoint(
    kept: int | None, max_epochs: int, val_loss: Curve, test_curves: Mapping[str, Curve], predictions: Predictions
) -> Finding:
    """Return a leak if the kept epoch is neither the one with the lowest validation loss nor the last one.

    Two more cases are leaks: training that ended early without validation rows, and predictions that are not of the
    epoch that the run names. The latter is checked if the run has a test curve, by the loss of the predictions.

    Args:
        kept: the epoch whose weights were kept, from 1; None if the run names none.
        max_epochs: as configured.
        val_loss: validation loss by epoch; {} without validation rows.
        test_curves: `loss`, `accuracy`, `uar` of the test rows by epoch; empty unless the protocol logs them.
        predictions: of the test rows, as stored.
    """
    test_loss = test_curves.get("loss", {})
    if kept is None:
        text = "not checked: the run does not name the kept epoch" if val_loss or test_loss else (
            f"{NOT_APPLICABLE}: the predictor is not trained by epochs"
        )  # fmt: skip
        return Finding("checkpoint", text)
    trained = max([kept, *val_loss, *test_loss])
    real = _epoch_of(predictions, kept, test_loss)
    if real != kept:
        text = f"the run names epoch {kept} as kept, but its predictions have the test loss of epoch {real}"
        return Finding("checkpoint", text, 1.0, leak=True)
    if not val_loss and trained < max_epochs:
        text = f"training ended early, after epoch {trained} of {max_epochs}, without validation rows"
        return Finding("checkpoint", text, 1.0, leak=True)
    lowest = min(val_loss, key=lambda epoch: val_loss[epoch]) if val_loss else trained
    if val_loss and val_loss.get(kept, np.inf) <= val_loss[lowest] + ROUNDING:
        return Finding("checkpoint", f"epoch {kept} of {trained} was kept: it has the lowest validation loss", 0.0)
    if kept == trained:
        return Finding("checkpoint", f"the last epoch, {kept}, was kept", 0.0)
    text = f"epoch {kept} of {trained} was kept, and not " + (
        f"{lowest}, which has the lowest validation loss" if val_loss else "the last one, without validation rows"
    )
    best = [name for name, curve in test_curves.items() if curve and kept in _best(name, curve)]
    return Finding(
        "checkpoint", text + (f"; it is the best by test {' and '.join(best)}" if best else ""), 1.0, leak=True
    )


def _best(name: str, curve: Curve) -> list[int]:
    target = min(curve.values()) if name == "loss" else max(curve.values())
    return [epoch for epoch, value in curve.items() if abs(value - target) <= ROUNDING]


def _epoch_of(predictions: Predictions, kept: int, test_loss: Curve) -> int:
    """Return the epoch whose test loss equals that of the predictions; `kept` if it does, or without a test curve."""
    if kept not in test_loss or predictions.abstained.any() or not predictions.rows:
        return kept
    column = {label: i for i, label in enumerate(predictions.labels)}
    chosen = [column[truth] for truth in predictions.truth]
    probabilities = predictions.probabilities[np.arange(len(chosen)), chosen].astype(np.float64)
    loss = float(-np.log(np.maximum(probabilities, 1e-38)).mean())
    differences = {epoch: abs(value - loss) for epoch, value in test_loss.items()}
    return kept if differences[kept] <= LOSS_TOLERANCE * loss else min(differences, key=lambda i: differences[i])
