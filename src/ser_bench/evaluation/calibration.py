"""Calibration by a temperature: probabilities become softmax(ln p / T), so that their size agrees with accuracy.

One T > 0 per run is fitted on predictions of the validation speakers, by the model that was fitted to training rows
only. The answers do not change, because the order of the probabilities does not. Stored predictions stay as the
predictor gave them. The calibration is the artifact `calibration.json` of the run.

Source: Guo, Pleiss, Sun & Weinberger (2017), On Calibration of Modern Neural Networks, ICML, section 4.2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import SerBenchError, one_line
from ser_bench.evaluation import metrics
from ser_bench.evaluation.metrics import SMALLEST_PROBABILITY, Float64Array
from ser_bench.types import FloatArray, Predictions

CALIBRATION_FILE = "calibration.json"
FORMAT = 1
LOWEST, HIGHEST = 0.05, 20.0
"""Range of T. It is reached where validation rows are all right (T → 0), or where answers say nothing (T → ∞)."""
STEPS = 60
"""Halvings of the range of ln T, which leave 1e-17 of it."""
CALIBRATED = "_calibrated"
"""End of the names of the scores of calibrated probabilities."""
PROBABILITY_SCORES = ("log_loss", "ece")


@dataclass(frozen=True)
class Calibration:
    """The temperature of one run, and what it did on the rows that it was fitted to.

    Attributes:
        temperature: T; above 1 the probabilities were too large, below 1 too small.
        rows: number of validation rows.
        speakers: number of their speakers.
        ece_before, ece_after: expected calibration error on these rows, in [0, 1].
        log_loss_before, log_loss_after: on these rows, nats.
    """

    temperature: float
    rows: int
    speakers: int
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float

    def apply(self, probabilities: npt.NDArray[Any]) -> FloatArray:
        """Return calibrated probabilities [N, C] float32 of probabilities [N, C]; rows sum to 1.

        Probabilities below 1.2e-7 count as that, as in the log-loss. Uniform rows, so abstentions, stay uniform.
        """
        return tempered(probabilities, self.temperature).astype(np.float32)

    def applied(self, predictions: Predictions) -> Predictions:
        """Return the predictions with calibrated probabilities; those of one-hot predictions do not change."""
        if not predictions.gives_probabilities or not predictions.rows:
            return predictions
        return replace(predictions, probabilities=self.apply(predictions.probabilities))

    def as_json(self) -> str:
        """Return the text of `calibration.json`."""
        return json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n"

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read `calibration.json`.

        Raises:
            SerBenchError: the file cannot be read, or its temperature is not a positive number.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            found = cls(**stored)
            if not (math.isfinite(found.temperature) and found.temperature > 0):
                raise ValueError(f"temperature {found.temperature} is not a positive number")
        except Exception as error:  # a damaged file can raise any exception
            raise SerBenchError(
                f"{path}: this calibration cannot be read ({one_line(error)}); restore the file, or carry out the run "
                "again with force=true"
            ) from error
        return found


def fit(predictions: Predictions, speakers: Mapping[str, str]) -> Calibration:
    """Return the calibration with the smallest log-loss on held-out predictions.

    The log-loss is convex in 1 / T, so its derivative has at most one zero, which is found by halving.

    Args:
        predictions: of rows that the model was not fitted to; one row or more, with probabilities.
        speakers: clip id → speaker.

    Raises:
        ValueError: there are no rows, a truth is not a label, or the predictor gives no probabilities.
    """
    truth, _ = metrics.label_indices(predictions)
    before = {name: float(metrics.METRICS[name].compute(predictions)) for name in PROBABILITY_SCORES}
    temperature = _best_temperature(_logs(predictions.probabilities), truth)
    found = Calibration(
        temperature,
        len(predictions.rows),
        len({speakers[row.clip_id] for row in predictions.rows}),
        before["ece"],
        0.0,
        before["log_loss"],
        0.0,
    )
    after = {name: float(metrics.METRICS[name].compute(found.applied(predictions))) for name in PROBABILITY_SCORES}
    return replace(found, ece_after=after["ece"], log_loss_after=after["log_loss"])


def tempered(probabilities: npt.NDArray[Any], temperature: float) -> Float64Array:
    """Return softmax(ln p / T) [N, C] of probabilities [N, C], in float64.

    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()  # √.8 : √.2 = 2 : 1
    [[0.6667, 0.3333]]
    """
    scaled = _logs(probabilities) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Float64Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def scores(predictions: Predictions, calibration: Calibration | None, prefix: str) -> dict[str, float]:
    """Return `ece_calibrated` and `log_loss_calibrated` with the prefix; {} without calibration or probabilities."""
    if calibration is None or not predictions.gives_probabilities:
        return {}
    calibrated = calibration.applied(predictions)
    return {
        f"{prefix}{name}{CALIBRATED}": float(metrics.METRICS[name].compute(calibrated)) for name in PROBABILITY_SCORES
    }


def _best_temperature(logs: Float64Array, truth: npt.NDArray[np.int64]) -> float:
    """Return the T of the smallest log-loss, from `LOWEST` to `HIGHEST`; 1 if every T gives the same."""
    of_truth = logs[np.arange(len(truth)), truth]
    if np.allclose(logs, of_truth[:, None]):
        return 1.0
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        scaled = logs / math.exp(middle)
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        expected = (weights * logs).sum(axis=1) / weights.sum(axis=1)
        # Derivative of the log-loss by 1 / T: the mean of E[ln p] − ln p(truth). Positive: 1 / T is too large.
        if float((expected - of_truth).mean()) > 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _logs(probabilities: npt.NDArray[Any]) -> Float64Array:
    """Return ln p [N, C] in float64, p clipped from below; rows need not sum to 1."""
    logs: Float64Array = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY))
    return logs
