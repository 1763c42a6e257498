"""Probabilities over labels: the softmax, the log-loss, and the metrics of validation rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.evaluation import metrics

Array = npt.NDArray[Any]
"""Floating-point numbers; float64 unless a docstring says otherwise."""
Labels = npt.NDArray[np.int64]
"""Label indices [N], from 0 to C − 1."""
SMALLEST = 1e-12
"""Smallest probability before the logarithm."""


def softmax(scores: Array) -> Array:
    """Return probabilities [N, C] of scores [N, C]; a score of −inf gives probability 0.

    The same formula as `scipy.special.softmax`, without the import of SciPy by every command.
    """
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def log_loss(probabilities: Array, labels: Labels) -> float:
    """Return the mean of −ln P(label), in nats, 0 or more.

    Settings are chosen by the log-loss, because the UAR of a few hundred validation rows varies more by chance than by
    the settings.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 3)
    0.49
    """
    of_labels = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_labels, SMALLEST)).mean())


def validation_uar(probabilities: Array, labels: Labels) -> float:
    """Return the UAR, in [0, 1]: the mean recall of the labels that occur in `labels`.

    >>> validation_uar(np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0]]), np.array([0, 1, 1]))
    0.75
    """
    return metrics.uar_of(labels, probabilities.argmax(axis=1), probabilities.shape[1])


def validation_metrics(probabilities: Array, labels: Labels) -> dict[str, float]:
    """Return `fit/val_uar` and `fit/val_log_loss` of validation rows, from probabilities [N, C] and labels [N]."""
    return {
        "fit/val_uar": validation_uar(probabilities, labels),
        "fit/val_log_loss": log_loss(probabilities, labels),
    }
