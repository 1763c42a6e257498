"""Check of the validation loss: the stored predictor must have the logged loss on the validation rows.

Early stopping on other rows, such as test rows, leaves a curve that the validation rows do not give again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ser_bench.audit.finding import NOT_APPLICABLE, Finding
from ser_bench.config import Config
from ser_bench.errors import SerBenchError, one_line
from ser_bench.predictors import predictor_class
from ser_bench.predictors.probabilities import SMALLEST as SMALLEST_OF_HEADS
from ser_bench.types import FloatArray, Inputs, Predictions, Predictor, Split

NAME = "val_loss"
TOLERANCE, MIXED_TOLERANCE = 0.005, 0.03
"""Largest relative difference of a loss, if the network was trained in 32 bits, and in mixed precision."""
FULL_PRECISION = "32-true"
SUSPICIOUS = 0.5
"""A loss of the test rows below this share of the validation loss gets a remark."""
REMARK = "the loss of the test rows is less than half of the validation loss"
SMALLEST = 1e-38
"""Smallest probability before the logarithm, of a network; that of a head is `SMALLEST_OF_HEADS`."""
HEAD_LOSS = "fit/val_log_loss"
"""Validation loss that a head logs after its fit."""


def check_val_loss(
    predictor: Predictor | None,
    why: str,
    cfg: Config,
    split: Split,
    inputs: Inputs | None,
    predictions: Predictions,
    curve: Mapping[int, float],
    logged: Mapping[str, float],
) -> Finding:
    """Return a leak if the stored predictor does not have the logged validation loss on the split's validation rows.

    Args:
        predictor: restored from the run's files; None if it cannot be restored here.
        why: the reason, if it is None.
        cfg: of the run.
        split: the rows.
        inputs: features and labels of the clips; None if the audio is not available.
        predictions: of the test rows, as stored.
        curve: logged validation loss by epoch.
        logged: metrics of the run.
    """
    loss = _logged_loss(cfg, split, curve, logged)
    if isinstance(loss, Finding):
        return loss
    if predictor is None or inputs is None:
        return Finding(NAME, f"not checked: {why}")
    if cfg.shuffle_labels:
        return Finding(NAME, "not checked: the labels of the validation rows were shuffled")
    try:
        answers = predictor.predict(split.val)
        shares = inputs.soft_targets(split.val, answers.labels) if curve else None
    except SerBenchError as error:
        return Finding(NAME, f"not checked: {one_line(error)}")
    if answers.rows != split.val:
        return Finding(NAME, "not checked: the predictor leaves out validation rows, which it enrols")
    smallest = SMALLEST if curve else SMALLEST_OF_HEADS
    computed, of_test = loss_of(answers, shares, smallest), loss_of(predictions, None, smallest)
    return _compared(loss, computed, of_test, _tolerance(cfg, bool(curve)), len(split.val))


def _logged_loss(cfg: Config, split: Split, curve: Mapping[int, float], logged: Mapping[str, float]) -> float | Finding:
    """Return the logged validation loss of the predictor that is stored, or the finding that there is none."""
    kept = logged.get("fit/best_epoch")
    has_loss = bool(curve) or HEAD_LOSS in logged
    if not split.val:
        if has_loss:
            return Finding(NAME, "a validation loss is logged, but the split has no validation rows", 1.0, leak=True)
        return Finding(NAME, f"{NOT_APPLICABLE}: the split has no validation rows")
    if kept is not None:
        loss = curve.get(round(kept))
        return Finding(NAME, "not checked: no validation loss of the kept epoch is logged") if loss is None else loss
    if not has_loss:
        return Finding(NAME, f"{NOT_APPLICABLE}: the predictor logs no validation loss")
    if HEAD_LOSS not in logged:
        return Finding(NAME, "not checked: the run does not name the kept epoch")
    if "head" in predictor_class(cfg.model.name).groups and cfg.head.refit:
        return Finding(NAME, f"{NOT_APPLICABLE}: after this loss the head was fitted to validation rows (head.refit)")
    return logged[HEAD_LOSS]


def loss_of(predictions: Predictions, shares: FloatArray | None = None, smallest: float = SMALLEST) -> float:
    """Return the mean cross-entropy in nats, of the labels or of shares of the labels [N, C]; NaN without rows."""
    if not predictions.rows:
        return float("nan")
    logs = np.log(np.maximum(predictions.probabilities.astype(np.float64), smallest))
    if shares is not None:
        return float(-(shares * logs).sum(axis=1).mean())
    column = {label: i for i, label in enumerate(predictions.labels)}
    return float(-np.mean([logs[i, column[truth]] for i, truth in enumerate(predictions.truth) if truth in column]))


def remarks(findings: Sequence[Finding]) -> list[str]:
    """Return the remark in the finding about the validation loss as a note; [] if there is none."""
    return [finding.text.partition("; ")[2] for finding in findings if finding.name == NAME and REMARK in finding.text]


def _compared(logged: float, computed: float, of_test: float, tolerance: float, rows: int) -> Finding:
    within = tolerance * max(abs(logged), 1e-3)
    if abs(computed - logged) <= within:
        text = f"the stored predictor has the logged loss on {rows:,} validation rows, {logged:.4f}"
        remark = f"; {REMARK}, {of_test:.4f}, which is rare unless test rows were trained on"
        return Finding(NAME, text + (remark if of_test < SUSPICIOUS * logged else ""), 0.0)
    text = f"the logged validation loss is {logged:.4f}, and that of the validation rows is {computed:.4f}"
    if abs(of_test - logged) <= within:
        text += "; the logged one is that of the test rows"
    return Finding(NAME, text, 1.0, leak=True)


def _tolerance(cfg: Config, trained_by_epochs: bool) -> float:
    mixed = trained_by_epochs and cfg.trainer.precision != FULL_PRECISION
    return MIXED_TOLERANCE if mixed else TOLERANCE
