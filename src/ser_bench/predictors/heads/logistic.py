"""Multinomial logistic regression: P(c) = softmax_c(x · coefficients_c + intercept_c)."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import Array, Labelled, Labels, Member, log_loss, softmax

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

log = logging.getLogger(__name__)

MAX_ITERATIONS = 1_000
GRADIENT, GRADIENT_OF_SEARCH = 1e-4, 1e-3
"""Largest component of the mean loss's gradient at which a fit ends; to choose a penalty, the coarser one will do."""


class Logistic(Member):
    """scikit-learn's LogisticRegression (L-BFGS, L2); C is the best of `head.logistic_c` by validation log-loss."""

    _coefficients: Array
    _intercepts: Array
    _best = 0.0

    _regression: LogisticRegression | None = None

    def fit(self, train: Labelled, val: Labelled) -> dict[str, float]:
        """The values of `head.logistic_c` from the smallest, each from the solution before, until one is worse.

        Between too strong and too weak a penalty the loss has one valley, and the weakest penalties take the longest.
        Without validation rows the first value listed is taken.
        """
        best = np.inf
        kept: tuple[float, LogisticRegression | None] | None = None
        for value in sorted(self._cfg.logistic_c) if len(val.y) else self._cfg.logistic_c[:1]:
            self._fit(train, value, GRADIENT_OF_SEARCH)
            loss = log_loss(self.predict_proba(val.x), val.y) if len(val.y) else 0.0
            if kept is not None and loss >= best:
                break
            best, kept = loss, (value, copy.deepcopy(self._regression))
        assert kept is not None
        self._best, self._regression = kept
        self._fit(train, self._best)
        return {"c": self._best}

    def refit(self, train: Labelled) -> None:
        """With the C that was chosen, from the solution on the training rows alone."""
        self._fit(train, self._best)

    def predict_proba(self, x: Array) -> Array:
        """[N, C]."""
        # einsum sums each row by itself: a matrix product may round a row differently in other company.
        return softmax(np.einsum("nd,cd->nc", x, self._coefficients) + self._intercepts)

    def arrays(self) -> dict[str, Array]:
        """Coefficients [C, D] and intercepts [C]."""
        return {"coefficients": self._coefficients, "intercepts": self._intercepts}

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """From `arrays`."""
        member = cls(HeadConfig(), classes, 0)
        member._coefficients, member._intercepts = arrays["coefficients"], arrays["intercepts"]
        return member

    def _fit(self, train: Labelled, inverse_penalty: float, gradient: float = GRADIENT) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        x, labels, weights = _weighted(train)
        known = self._regression
        if known is None or not np.array_equal(known.classes_, np.unique(labels)):
            known = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
        regression = self._regression = known.set_params(C=inverse_penalty, tol=gradient)
        # Products of a few thousand rows with six columns: two threads wait for each other longer than they compute.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below, with what to do about it
            regression.fit(x, labels, weights)
        if int(regression.n_iter_.max()) >= MAX_ITERATIONS:
            log.warning("warning  logistic head has not converged at C=%g: leave such a value out", inverse_penalty)
        self._take()

    def _take(self) -> None:
        """Coefficients and intercepts of all labels, from those that the regression knows."""
        regression = self._regression
        assert regression is not None
        found, intercepts = regression.coef_, regression.intercept_
        if len(regression.classes_) == 2:  # scikit-learn stores the second class alone, against a first of zeros
            found, intercepts = np.concatenate([0 * found, found]), np.concatenate([0 * intercepts, intercepts])
        self._coefficients = np.zeros((self._classes, found.shape[1]))
        self._intercepts = np.full(self._classes, -np.inf)  # a label without training rows has probability 0
        self._coefficients[regression.classes_] = found
        self._intercepts[regression.classes_] = intercepts


def _weighted(train: Labelled) -> tuple[Array, Labels, Array | None]:
    """Rows, labels and weights to fit: soft targets become one row a label that has a share, which is its weight.

    The weighted sum of their log-losses is the cross-entropy against the shares.
    """
    if train.shares is None:
        return train.x, train.y, None
    rows, labels = np.nonzero(train.shares)
    return train.x[rows], labels, train.shares[rows, labels]
