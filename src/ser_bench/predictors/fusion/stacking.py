"""Stacked regression over the log-probabilities of several predictors, and the mean of their probabilities.

Shapes: N rows, M members, C labels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_bench.types import Predictions

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]

FLOOR = 1e-6
"""Smallest probability before the logarithm: one-hot predictions and shares of votes contain 0."""


@dataclass(frozen=True)
class StackedRegression:
    """A fitted regression: P(c) = softmax_c(x · coefficients_c + intercept_c), where x are M·C log-probabilities.

    Attributes:
        coefficients: [C, M·C], ordered by member.
        intercepts: [C].
        iterations: iterations of L-BFGS; 0 if read from a file.
    """

    coefficients: Array
    intercepts: Array
    iterations: int = 0

    def __call__(self, logs: Array) -> Array:
        """Map log-probabilities [N, M, C] to probabilities [N, C]."""
        from scipy.special import softmax

        flat = logs.reshape(len(logs), self.coefficients.shape[1])
        # einsum sums each row by itself: a matrix product may round a row differently in other company.
        scores = np.einsum("nd,cd->nc", flat, self.coefficients) + self.intercepts
        return np.asarray(softmax(scores, axis=1), dtype=np.float64)

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return self.coefficients.size + self.intercepts.size


def log_probabilities(answers: Sequence[Predictions]) -> Array:
    """Return natural logarithms [N, M, C], at least log `FLOOR`; an abstention is uniform."""
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.log(np.maximum(stacked, FLOOR)))


def fit(logs: Array, truth: npt.NDArray[np.int64], inverse_penalty: float, max_iter: int) -> StackedRegression:
    """Multinomial logistic regression with an L2 penalty (scikit-learn's `LogisticRegression`).

    Args:
        logs: log-probabilities [N, M, C].
        truth: label indices [N]; each of the C labels occurs at least once.
        inverse_penalty: scikit-learn's C, the inverse strength of the penalty, above 0.
        max_iter: largest number of L-BFGS iterations; a warning is logged if they do not suffice.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=inverse_penalty, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, with what to do about it
        regression.fit(logs.reshape(len(logs), -1), truth)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn stores the second class alone, against a first of zeros
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    iterations = int(regression.n_iter_.max())
    if iterations >= max_iter:
        log.warning("warning  stacking has not converged after %d iterations: raise model.max_iter", iterations)
    return StackedRegression(coefficients, intercepts, iterations)


def mean(answers: Sequence[Predictions]) -> Array:
    """Return the mean [N, C] over the members that did not abstain from a row; uniform if all did."""
    answered = np.stack([~answer.abstained for answer in answers], axis=1).astype(np.float64)
    answered[answered.sum(axis=1) == 0] = 1.0  # abstentions are uniform, and so is their mean
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.einsum("nmc,nm->nc", stacked, answered) / answered.sum(axis=1, keepdims=True))
