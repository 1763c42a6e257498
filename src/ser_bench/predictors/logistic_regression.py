"""Multinomial logistic regression: fitted by scikit-learn, stored as numbers, applied by NumPy.

P(c) = softmax_c(x · coefficients_c + intercept_c). Used by `head=logistic`, `model=text_only` and stacked fusions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ser_bench.predictors.probabilities import Array, softmax

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

log = logging.getLogger(__name__)


def fit(
    regression: LogisticRegression,
    x: Array,
    labels: npt.NDArray[Any] | Sequence[str],
    weights: Array | None = None,
    *,
    subject: str,
    remedy: str,
) -> int:
    """Fit `regression` in place and return the number of L-BFGS iterations.

    If `max_iter` iterations do not suffice, one warning is logged in place of scikit-learn's.

    Args:
        regression: its settings; with `warm_start`, the fit begins at the solution that it holds.
        x: vectors [N, D].
        labels: labels [N].
        weights: weight of each row [N]; None: 1.
        subject: what is fitted, the first words of the warning.
        remedy: what the user can do, the last words of the warning.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(x, labels, weights)
    iterations = int(regression.n_iter_.max())
    if iterations >= regression.max_iter:
        log.warning("warning  %s has not converged after %d iterations; %s", subject, iterations, remedy)
    return iterations


def coefficients_by_label(regression: LogisticRegression, labels: Sequence[Any]) -> tuple[Array, Array]:
    """Return coefficients [C, D] and intercepts [C], float64, of a fitted regression in the order of `labels`.

    Of two classes scikit-learn stores one row, that of the second class; the row of the first is 0. A label without
    training rows has coefficients of 0 and an intercept of −inf, hence probability 0.

    Args:
        regression: fitted to some or all of `labels`.
        labels: all C labels, as they were given to `fit`; `range(C)` if it was fitted to label indices.
    """
    fitted, fitted_intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:
        fitted = np.concatenate([np.zeros_like(fitted), fitted])
        fitted_intercepts = np.concatenate([np.zeros_like(fitted_intercepts), fitted_intercepts])
    coefficients = np.zeros((len(labels), fitted.shape[1]))
    intercepts = np.full(len(labels), -np.inf)
    for label, row, intercept in zip(regression.classes_, fitted, fitted_intercepts, strict=True):
        index = labels.index(label)
        coefficients[index], intercepts[index] = row, intercept
    return coefficients, intercepts


def predict_proba(x: Array, coefficients: Array, intercepts: Array) -> Array:
    """Return probabilities [N, C] of vectors [N, D], coefficients [C, D] and intercepts [C].

    `einsum` sums each row independently of the others. A matrix product may round a row differently when it is
    computed with other rows, so that the prediction of a clip would depend on the batch.
    """
    return softmax(np.einsum("nd,cd->nc", x, coefficients) + intercepts)
