"""`head=logistic`: multinomial logistic regression."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors import logistic_regression
from ser_bench.predictors.heads.classifier import HeadClassifier, LabelledVectors
from ser_bench.predictors.probabilities import Array, Labels, log_loss

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

MAX_ITERATIONS = 1_000
TOLERANCE, SEARCH_TOLERANCE = 1e-4, 1e-3
"""Largest component of the gradient of the mean loss at which a fit ends. The search for C needs less precision."""


class LogisticClassifier(HeadClassifier):
    """scikit-learn's LogisticRegression (L-BFGS, L2 penalty); C is the value of `head.logistic_c` with the lowest
    log-loss on validation rows.
    """

    _coefficients: Array
    _intercepts: Array
    _best_c = 0.0
    _regression: LogisticRegression | None = None

    def fit(self, train: LabelledVectors, val: LabelledVectors) -> dict[str, float]:
        """Try the values of `head.logistic_c` in ascending order until the log-loss on validation rows rises.

        As a function of C the loss has one minimum, and fits with large C take longest. Each fit starts from the
        solution of the fit before. Without validation rows the first listed value is used.
        """
        if not len(val.y):
            self._best_c = self._cfg.logistic_c[0]
            self._fit(train, self._best_c, SEARCH_TOLERANCE)
        else:
            self._search(train, val)
        self._fit(train, self._best_c)
        return {"c": self._best_c}

    def refit(self, train: LabelledVectors) -> None:
        """Fit with the chosen C, from the solution on the training rows alone."""
        self._fit(train, self._best_c)

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C]."""
        return logistic_regression.predict_proba(x, self._coefficients, self._intercepts)

    def arrays(self) -> dict[str, Array]:
        """Return coefficients [C, D] and intercepts [C]."""
        return {"coefficients": self._coefficients, "intercepts": self._intercepts}

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """Return the classifier with these arrays."""
        classifier = cls(HeadConfig(), classes, 0)
        classifier._coefficients, classifier._intercepts = arrays["coefficients"], arrays["intercepts"]
        return classifier

    def _search(self, train: LabelledVectors, val: LabelledVectors) -> None:
        """Set C and the regression to those of the lowest log-loss on validation rows."""
        lowest = np.inf
        best: tuple[float, LogisticRegression | None] | None = None
        for value in sorted(self._cfg.logistic_c):
            self._fit(train, value, SEARCH_TOLERANCE)
            loss = log_loss(self.predict_proba(val.x), val.y)
            if best is not None and loss >= lowest:
                break
            lowest, best = loss, (value, copy.deepcopy(self._regression))
        assert best is not None
        self._best_c, self._regression = best

    def _fit(self, train: LabelledVectors, c: float, tolerance: float = TOLERANCE) -> None:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        x, labels, weights = _weighted_rows(train)
        regression = self._regression
        if regression is None or not np.array_equal(regression.classes_, np.unique(labels)):
            regression = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
        self._regression = regression.set_params(C=c, tol=tolerance)
        # The products of a few thousand rows with six columns are so small that a second thread costs time.
        with threadpool_limits(1):
            logistic_regression.fit(
                regression,
                x,
                labels,
                weights,
                subject=f"head=logistic with C={c:g}",
                remedy="remove this value from head.logistic_c",
            )
        self._coefficients, self._intercepts = logistic_regression.coefficients_by_label(
            regression, range(self._classes)
        )


def _weighted_rows(train: LabelledVectors) -> tuple[Array, Labels, Array | None]:
    """Return vectors, labels and weights to fit.

    Soft targets become one row per label with a share above 0, weighted by the share. The weighted sum of their
    log-losses is the cross-entropy with the shares as targets.
    """
    if train.shares is None:
        return train.x, train.y, None
    rows, labels = np.nonzero(train.shares)
    return train.x[rows], labels, train.shares[rows, labels]
