"""`model=majority` and `model=prior`: predictions from the training labels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import SerBenchError
from ser_bench.predictors.base import LightPredictor, generator_of
from ser_bench.predictors.registry import register
from ser_bench.types import Predictions, Row


@register("majority")
class Majority(LightPredictor):
    """Predict the most frequent training label for every clip; of equally frequent labels, the first in label order.

    The probabilities are the shares of the training labels. Same as scikit-learn's
    `DummyClassifier(strategy="prior")`.
    """

    _counts: tuple[int, ...] = ()

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Count the labels of the clean training rows; return `prior/<label>`, their shares."""
        counts = Counter(self._clean(train)[1])
        self._counts = tuple(counts[label] for label in self._labels)
        return {f"prior/{label}": float(share) for label, share in zip(self._labels, self._priors, strict=True)}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the same probabilities for every row; the latency is 0."""
        return self._predictions(rows, np.tile(self._priors, (len(rows), 1)), "priors")

    @property
    def _priors(self) -> npt.NDArray[np.float64]:
        """Shares [C] of the training labels, sum 1."""
        if not self._counts:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        counts = np.array(self._counts, dtype=np.float64)
        shares: npt.NDArray[np.float64] = counts / counts.sum()
        return shares

    def _state(self, folder: Path) -> dict[str, Any]:
        return {"counts": self._counts}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        self._counts = tuple(int(count) for count in stored["counts"])


@register("prior")
class Prior(Majority):
    """Predict a label drawn from the shares of the training labels.

    The draw depends on the run's seed and the clip's id only, so that a clip and its variants get the same label in
    any order. A drawn label is not a probability: rows are one-hot.
    """

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return one drawn label per clip."""
        priors = self._priors
        drawn = [int(generator_of(self._seed, row.clip_id).choice(len(priors), p=priors)) for row in rows]
        return self._predictions(rows, np.eye(len(priors))[drawn], "one_hot")
