"""How the answers of several predictors become one: a stacked regression over their log-probabilities, or their mean.

[N, M, C] below: N rows, M members, C labels.
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
"""A smaller probability counts as this: one-hot answers and shares of votes are 0 at places, and log 0 is no input."""


@dataclass(frozen=True)
class Stack:
    """A fitted regression: P(c) = softmax_c(x · coefficients_c + intercept_c), x the M·C log-probabilities of a row.

    Attributes:
        coefficients: [C, M·C], member by member.
        intercepts: [C].
        iterations: of L-BFGS; 0 where it was read from a file.
    """

    coefficients: Array
    intercepts: Array
    iterations: int = 0

    def __call__(self, logs: Array) -> Array:
        """[N, M, C] log-probabilities → [N, C] probabilities."""
        from scipy.special import softmax

        flat = logs.reshape(len(logs), self.coefficients.shape[1])
        # einsum sums each row by itself: a matrix product may round a row differently in other company.
        scores = np.einsum("nd,cd->nc", flat, self.coefficients) + self.intercepts
        return np.asarray(softmax(scores, axis=1), dtype=np.float64)

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return self.coefficients.size + self.intercepts.size


def log_probabilities(answers: Sequence[Predictions]) -> Array:
    """[N, M, C] natural logarithms, at least log `FLOOR`; an abstention is uniform, so it favours nothing."""
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.log(np.maximum(stacked, FLOOR)))


def fit(logs: Array, truth: npt.NDArray[np.int64], inverse_penalty: float, max_iter: int) -> Stack:
    """Multinomial logistic regression with an L2 penalty (scikit-learn's `LogisticRegression`).

    Args:
        logs: [N, M, C].
        truth: [N] places in the label list; each of the C labels is there at least once.
        inverse_penalty: scikit-learn's C, the inverse strength of the penalty, above 0.
        max_iter: of L-BFGS; where they do not suffice, a warning says so.
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
    return Stack(coefficients, intercepts, iterations)


def mean(answers: Sequence[Predictions]) -> Array:
    """[N, C] arithmetic mean over the members that answered a row; uniform where none did."""
    answered = np.stack([~answer.abstained for answer in answers], axis=1).astype(np.float64)
    answered[answered.sum(axis=1) == 0] = 1.0  # abstentions are uniform, and so is their mean
    stacked = np.stack([answer.probabilities.astype(np.float64) for answer in answers], axis=1)
    return np.asarray(np.einsum("nmc,nm->nc", stacked, answered) / answered.sum(axis=1, keepdims=True))
