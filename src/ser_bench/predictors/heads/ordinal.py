"""`head=ordinal`: cumulative logit, the proportional-odds model, for labels that are ordered levels.

    P(level ≤ k) = σ(θ_k − w · x),   θ_0 < θ_1 < … < θ_K−2

One direction w orders all levels, and thresholds cut it. The objective is ½|w|² − C Σ ln P(level), as in
`head=logistic`; thresholds are not penalised. It is convex in w and θ. Source: McCullagh (1980), Regression models for
ordinal data, Journal of the Royal Statistical Society B 42, 109-142.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import HeadClassifier, LabelledVectors
from ser_bench.predictors.probabilities import Array, Labels, log_loss

log = logging.getLogger(__name__)

MAX_ITERATIONS = 1_000
TOLERANCE = 1e-5
"""Largest component of the gradient of the mean objective at which a fit ends."""
SMALLEST_GAP = 1e-6
"""Smallest difference of two thresholds."""


class OrdinalClassifier(HeadClassifier):
    """Cumulative logit with an L2 penalty; C is the value of `head.logistic_c` with the lowest log-loss on validation
    rows. Soft targets are not used: levels of intensity have none.
    """

    _weights: Array
    _thresholds: Array
    _levels: tuple[int, ...] = ()
    """Indices of the levels that have training rows; the others have probability 0."""
    _best_c = 0.0

    def fit(self, train: LabelledVectors, val: LabelledVectors) -> dict[str, float]:
        """Try the values of `head.logistic_c` in ascending order until the log-loss on validation rows rises.

        Without validation rows the first listed value is used.
        """
        self._best_c = self._cfg.logistic_c[0]
        lowest = np.inf
        for value in sorted(self._cfg.logistic_c) if len(val.y) else ():
            self._fit(train, value)
            loss = log_loss(self.predict_proba(val.x), val.y)
            if loss >= lowest:
                break
            lowest, self._best_c = loss, value
        self._fit(train, self._best_c)
        return {"c": self._best_c}

    def refit(self, train: LabelledVectors) -> None:
        """Fit with the chosen C."""
        self._fit(train, self._best_c)

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C]; each row is summed independently of the others."""
        scores = np.einsum("nd,d->n", x.astype(np.float64), self._weights)
        below = expit(self._thresholds - scores[:, None])
        edges = np.concatenate([np.zeros((len(x), 1)), below, np.ones((len(x), 1))], axis=1)
        probabilities = np.zeros((len(x), self._classes))
        probabilities[:, list(self._levels)] = np.diff(edges, axis=1)
        return probabilities

    def arrays(self) -> dict[str, Array]:
        """Return weights [D] and thresholds [K − 1]."""
        return {"weights": self._weights, "thresholds": self._thresholds}

    def settings(self) -> dict[str, Any]:
        """Return the indices of the levels that have training rows."""
        return {"levels": list(self._levels)}

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """Return the classifier with these arrays."""
        classifier = cls(HeadConfig(), classes, 0)
        classifier._weights, classifier._thresholds = arrays["weights"], arrays["thresholds"]
        classifier._levels = tuple(int(level) for level in settings["levels"])
        return classifier

    def _fit(self, train: LabelledVectors, c: float) -> None:
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        present, y = np.unique(train.y, return_inverse=True)
        self._levels = tuple(int(level) for level in present)
        x, levels = train.x.astype(np.float64), len(present)
        shares = np.cumsum(np.bincount(y))[:-1] / len(y)
        thresholds = np.log(shares / (1 - shares))  # the solution for w = 0
        start = np.concatenate([np.zeros(x.shape[1]), thresholds[:1], np.diff(thresholds)])
        bounds = [(None, None)] * (x.shape[1] + 1) + [(SMALLEST_GAP, None)] * (levels - 2)
        with threadpool_limits(1):
            found = minimize(
                objective,
                start,
                args=(x, y, c),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 1e-12},
            )
        if found.nit >= MAX_ITERATIONS:
            log.warning(
                "warning  head=ordinal with C=%g has not converged after %d iterations; remove this value from "
                "head.logistic_c", c, found.nit
            )  # fmt: skip
        self._weights, self._thresholds = found.x[: x.shape[1]], np.cumsum(found.x[x.shape[1] :])


def objective(parameters: Array, x: Array, y: Labels, c: float) -> tuple[float, Array]:
    """Return (½|w|² / C − Σ ln P(y)) / N and its gradient.

    Args:
        parameters: w [D], the lowest threshold, and the differences of the following ones [K − 2].
        x: vectors [N, D].
        y: levels [N], 0 to K − 1, each of which occurs.
        c: inverse strength of the penalty.
    """
    rows, columns = x.shape
    w, thresholds = parameters[:columns], np.cumsum(parameters[columns:])
    scores = x @ w
    # ln(σ(a) − σ(b)) = ln σ(a) + ln σ(−b) + ln(1 − exp(b − a)) does not cancel where both are near 0 or 1.
    a = np.append(thresholds, np.inf)[y] - scores
    b = np.concatenate([[-np.inf], thresholds])[y] - scores
    gap = a - b
    log_likelihood = -np.logaddexp(0, -a) - np.logaddexp(0, b) + np.log(-np.expm1(-gap))
    inverse = np.where(np.isfinite(gap), 1 / np.expm1(np.minimum(gap, 500.0)), 0.0)
    by_a, by_b = expit(-a) + inverse, -expit(b) - inverse
    by_threshold = np.bincount(y, by_a, len(thresholds) + 1)[:-1] + np.bincount(y, by_b, len(thresholds) + 1)[1:]
    by_step = np.cumsum(by_threshold[::-1])[::-1]  # a difference moves every threshold above it
    value = (w @ w / (2 * c) - log_likelihood.sum()) / rows
    gradient = np.concatenate([w / c + x.T @ (by_a + by_b), -by_step]) / rows
    return float(value), gradient


def expit(scores: Array) -> Array:
    """Return 1 / (1 + exp(−score)), without overflow; the formula of `scipy.special.expit`."""
    return np.asarray(np.exp(-np.logaddexp(0, -scores)))
