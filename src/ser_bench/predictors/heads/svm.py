"""`head=svm`: support vector machine with an RBF kernel, one against one, with calibrated probabilities.

K(x, v) = exp(−gamma · ‖x − v‖²), gamma = `head.svm_gamma` / total variance of the training rows. The total variance is
D if all D columns are standardised, and less after principal components.

The kernel matrix is computed here as one matrix product and given to libsvm, because libsvm's own loops over 6,000 rows
take a minute. The pairwise decisions are linear in K, and so is their sum per class: one weight per support vector and
class is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import HeadClassifier, LabelledVectors
from ser_bench.predictors.probabilities import Array, Labels, log_loss, softmax

CACHE_MIB = 500
TEMPERATURES = np.geomspace(0.5, 32.0, 25)
"""Factors tried on the scores; the one with the lowest log-loss on validation rows is used."""
DEFAULT_TEMPERATURE = 4.0
"""The factor if there are no validation rows."""


class SvmClassifier(HeadClassifier):
    """scikit-learn's SVC; C is the value of `head.svm_c` with the lowest log-loss on validation rows."""

    _vectors: Array
    _weights: Array
    _intercepts: Array
    _gamma = 0.0
    _best_c = 0.0
    _temperature = DEFAULT_TEMPERATURE

    def fit(self, train: LabelledVectors, val: LabelledVectors) -> dict[str, float]:
        """Try each value of `head.svm_c`; without validation rows only the first."""
        self._gamma = self._cfg.svm_gamma / float(train.x.var(axis=0).sum())
        gram = rbf_kernel(train.x, train.x, self._gamma)
        lowest = np.inf
        best: tuple[Any, ...] | None = None
        for value in self._cfg.svm_c if len(val.y) else self._cfg.svm_c[:1]:
            self._fit(train, gram, value)
            loss, temperature = self._calibrated(val)
            if loss < lowest or best is None:
                lowest, best = loss, (value, temperature, self._vectors, self._weights, self._intercepts)
        assert best is not None
        self._best_c, self._temperature, self._vectors, self._weights, self._intercepts = best
        return {"c": self._best_c, "temperature": self._temperature, "vectors": float(len(self._vectors))}

    def refit(self, train: LabelledVectors) -> None:
        """Fit with the chosen C; the temperature stays as it is."""
        self._fit(train, rbf_kernel(train.x, train.x, self._gamma), self._best_c)

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C]: the softmax of temperature · scores."""
        return softmax(self._temperature * self._scores(x))

    def arrays(self) -> dict[str, Array]:
        """Return support vectors [V, D] float32, weights [V, C] and intercepts [C]."""
        return {"vectors": self._vectors, "weights": self._weights, "intercepts": self._intercepts}

    def settings(self) -> dict[str, Any]:
        """Return the width of the kernel and the temperature."""
        return {"gamma": self._gamma, "temperature": self._temperature}

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """Return the classifier with these settings and arrays."""
        classifier = cls(HeadConfig(), classes, 0)
        classifier._vectors, classifier._weights = arrays["vectors"], arrays["weights"]
        classifier._intercepts = arrays["intercepts"]
        classifier._gamma, classifier._temperature = float(settings["gamma"]), float(settings["temperature"])
        return classifier

    def _scores(self, x: Array) -> Array:
        """Return the means of the pairwise decisions [N, C]; −inf for a label without training rows."""
        scores: Array = rbf_kernel(x, self._vectors, self._gamma) @ self._weights + self._intercepts
        return scores

    def _calibrated(self, val: LabelledVectors) -> tuple[float, float]:
        """Return (log-loss, temperature) of the temperature with the lowest log-loss on these rows."""
        if not len(val.y):
            return 0.0, DEFAULT_TEMPERATURE
        scores = self._scores(val.x)
        return min((log_loss(softmax(t * scores), val.y), float(t)) for t in TEMPERATURES)

    def _fit(self, train: LabelledVectors, gram: Array, c: float) -> None:
        """Fit on the kernel matrix [N, N] of the training rows."""
        from sklearn.svm import SVC

        machine = SVC(C=c, kernel="precomputed", cache_size=CACHE_MIB).fit(gram, train.y)
        weights, intercepts = scores_by_class(machine.dual_coef_, machine.intercept_, machine.n_support_)
        self._vectors = train.x[machine.support_].astype(np.float32)
        self._weights = np.zeros((len(self._vectors), self._classes))
        self._intercepts = np.full(self._classes, -np.inf)  # a label without training rows has probability 0
        self._weights[:, machine.classes_] = weights
        self._intercepts[machine.classes_] = intercepts


def rbf_kernel(x: Array, vectors: Array, gamma: float) -> Array:
    """Return exp(−gamma · ‖x − v‖²), [N, V] float64, of x [N, D] and v [V, D]."""
    x, vectors = x.astype(np.float64), vectors.astype(np.float64)
    squared_distances = np.square(x).sum(axis=1)[:, None] + np.square(vectors).sum(axis=1) - 2 * (x @ vectors.T)
    similarities: Array = np.exp(-gamma * np.maximum(squared_distances, 0.0))
    return similarities


def scores_by_class(dual: Array, intercepts: Array, support: Labels) -> tuple[Array, Array]:
    """Return weights [V, C] and intercepts [C] of a score per class: the mean of the decisions that involve the class.

    Args:
        dual: dual coefficients [C − 1, V] in libsvm's order: row k of a support vector of class i belongs to the pair
            of i and the k-th other class.
        intercepts: [C (C − 1) / 2], one per pair; a positive decision is for the first class of the pair. If C = 2,
            scikit-learn inverts the signs of both arrays.
        support: number of support vectors of each class [C].
    """
    classes, ends = len(support), np.cumsum(support)
    sign = -1.0 if classes == 2 else 1.0
    weights, offsets = np.zeros((dual.shape[1], classes)), np.zeros(classes)
    for pair, (i, j) in enumerate(combinations(range(classes), 2)):
        decision = np.zeros(dual.shape[1])
        for label, row in ((i, j - 1), (j, i)):
            vectors_of_label = slice(ends[label] - support[label], ends[label])
            decision[vectors_of_label] = dual[row, vectors_of_label]
        for label, direction in ((i, sign), (j, -sign)):
            weights[:, label] += direction * decision / (classes - 1)
            offsets[label] += direction * intercepts[pair] / (classes - 1)
    return weights, offsets
