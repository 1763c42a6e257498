"""Stacked regression over the log-probabilities of several predictors, and the mean of their probabilities.

Shapes: N rows, M members, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_bench.predictors import logistic_regression
from ser_bench.types import Predictions

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
        flat = logs.reshape(len(logs), self.coefficients.shape[1])
        return logistic_regression.predict_proba(flat, self.coefficients, self.intercepts)

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return self.coefficients.size + self.intercepts.size


def log_probabilities(answers: Sequence[Predictions]) -> Array:
    """Return natural logarithms [N, M, C], at least log `FLOOR`; an abstention is uniform."""
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.log(np.maximum(stacked, FLOOR)))


def fit(logs: Array, truth: npt.NDArray[np.int64], inverse_penalty: float, max_iter: int) -> StackedRegression:
    """Fit a multinomial logistic regression with an L2 penalty (scikit-learn's `LogisticRegression`).

    Args:
        logs: log-probabilities [N, M, C].
        truth: label indices [N]; each of the C labels occurs at least once.
        inverse_penalty: scikit-learn's C, the inverse strength of the penalty, above 0.
        max_iter: largest number of L-BFGS iterations; a warning is logged if they do not suffice.
    """
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=inverse_penalty, max_iter=max_iter)
    iterations = logistic_regression.fit(
        regression, logs.reshape(len(logs), -1), truth, subject="stacking", remedy="raise model.max_iter"
    )
    coefficients, intercepts = logistic_regression.coefficients_by_label(regression, range(logs.shape[2]))
    return StackedRegression(coefficients, intercepts, iterations)


def mean(answers: Sequence[Predictions]) -> Array:
    """Return the mean [N, C] over the members that did not abstain from a row; uniform if all did."""
    answered = np.stack([~answer.abstained for answer in answers], axis=1).astype(np.float64)
    answered[answered.sum(axis=1) == 0] = 1.0  # abstentions are uniform, and so is their mean
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.einsum("nmc,nm->nc", stacked, answered) / answered.sum(axis=1, keepdims=True))
