"""Support vector machine with an RBF kernel, one against one, whose margins become probabilities.

K(x, v) = exp(−gamma · ‖x − v‖²), gamma = `head.svm_gamma` / total variance of training rows: D where all columns are
standardised, less after principal components. The kernel matrix is one matrix product here and handed to libsvm
ready-made: libsvm's own loops over the same 6,000 rows take a minute. The pairwise decisions are linear in K, so their
sum for each class is too: what is stored is one weight a support vector and class.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import Array, Labelled, Labels, Member, log_loss, softmax

CACHE_MIB = 500
TEMPERATURES = np.geomspace(0.5, 32.0, 25)
"""Factors tried on scores whose pairwise margins are 1; the best by log-loss on validation rows is kept."""
USUAL_TEMPERATURE = 4.0
"""Where there are no validation rows."""


class Svm(Member):
    """scikit-learn's SVC; C is the best of `head.svm_c` by log-loss on validation rows."""

    _vectors: Array
    _weights: Array
    _intercepts: Array
    _gamma = 0.0
    _best = 0.0
    _temperature = USUAL_TEMPERATURE

    def fit(self, train: Labelled, val: Labelled) -> dict[str, float]:
        """Each value of `head.svm_c` in turn; without validation rows the first alone."""
        self._gamma = self._cfg.svm_gamma / float(train.x.var(axis=0).sum())
        gram = kernel(train.x, train.x, self._gamma)
        best = np.inf
        kept: tuple[Any, ...] | None = None
        for value in self._cfg.svm_c if len(val.y) else self._cfg.svm_c[:1]:
            self._fit(train, gram, value)
            loss, temperature = self._calibrated(val)
            if loss < best or kept is None:
                best, kept = loss, (value, temperature, self._vectors, self._weights, self._intercepts)
        assert kept is not None
        self._best, self._temperature, self._vectors, self._weights, self._intercepts = kept
        return {"c": self._best, "temperature": self._temperature, "vectors": float(len(self._vectors))}

    def refit(self, train: Labelled) -> None:
        """With the C and the temperature that were chosen."""
        self._fit(train, kernel(train.x, train.x, self._gamma), self._best)

    def predict_proba(self, x: Array) -> Array:
        """[N, C]."""
        return softmax(self._temperature * self._scores(x))

    def arrays(self) -> dict[str, Array]:
        """Support vectors [V, D] float32, weights [V, C], intercepts [C]."""
        return {"vectors": self._vectors, "weights": self._weights, "intercepts": self._intercepts}

    def settings(self) -> dict[str, Any]:
        """Kernel width and temperature."""
        return {"gamma": self._gamma, "temperature": self._temperature}

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """From `arrays` and `settings`."""
        member = cls(HeadConfig(), classes, 0)
        member._vectors, member._weights = arrays["vectors"], arrays["weights"]
        member._intercepts = arrays["intercepts"]
        member._gamma, member._temperature = float(settings["gamma"]), float(settings["temperature"])
        return member

    def _scores(self, x: Array) -> Array:
        """[N, C] sums of pairwise decisions, −inf for a label without training rows."""
        scores: Array = kernel(x, self._vectors, self._gamma) @ self._weights + self._intercepts
        return scores

    def _calibrated(self, val: Labelled) -> tuple[float, float]:
        """(log-loss, temperature) at the best temperature for these rows."""
        if not len(val.y):
            return 0.0, USUAL_TEMPERATURE
        scores = self._scores(val.x)
        return min((log_loss(softmax(t * scores), val.y), float(t)) for t in TEMPERATURES)

    def _fit(self, train: Labelled, gram: Array, penalty: float) -> None:
        from sklearn.svm import SVC

        machine = SVC(C=penalty, kernel="precomputed", cache_size=CACHE_MIB).fit(gram, train.y)
        weights, intercepts = by_class(machine.dual_coef_, machine.intercept_, machine.n_support_)
        self._vectors = train.x[machine.support_].astype(np.float32)
        self._weights = np.zeros((len(self._vectors), self._classes))
        self._intercepts = np.full(self._classes, -np.inf)  # a label without training rows has probability 0
        self._weights[:, machine.classes_] = weights
        self._intercepts[machine.classes_] = intercepts


def kernel(x: Array, vectors: Array, gamma: float) -> Array:
    """[N, V] of [N, D] and [V, D]."""
    x, vectors = x.astype(np.float64), vectors.astype(np.float64)
    squares = np.square(x).sum(axis=1)[:, None] + np.square(vectors).sum(axis=1) - 2 * (x @ vectors.T)
    found: Array = np.exp(-gamma * np.maximum(squares, 0.0))
    return found


def by_class(dual: Array, intercepts: Array, support: Labels) -> tuple[Array, Array]:
    """Weights [V, C] and intercepts [C] of the mean of the decisions that a class takes part in.

    Args:
        dual: [C − 1, V], as libsvm orders it: row k of a vector of class i belongs to the pair of i and the k-th other.
        intercepts: [C (C − 1) / 2], one a pair; positive decisions are for the pair's first class. Of two classes
            scikit-learn turns the signs of both round.
        support: [C] support vectors of each class.
    """
    classes, ends = len(support), np.cumsum(support)
    sign = -1.0 if classes == 2 else 1.0
    weights, offsets = np.zeros((dual.shape[1], classes)), np.zeros(classes)
    for pair, (i, j) in enumerate(combinations(range(classes), 2)):
        decision = np.zeros(dual.shape[1])
        for one, row in ((i, j - 1), (j, i)):
            own = slice(ends[one] - support[one], ends[one])
            decision[own] = dual[row, own]
        for one, towards in ((i, sign), (j, -sign)):
            weights[:, one] += towards * decision / (classes - 1)
            offsets[one] += towards * intercepts[pair] / (classes - 1)
    return weights, offsets
