"""`model=majority` and `model=prior`: what can be had from the training labels alone, without hearing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ser_bench.errors import SerBenchError
from ser_bench.predictors.base import Plain, generator_of
from ser_bench.types import Predictions, Row


class Majority(Plain):
    """Says the most frequent training label of every clip; of equally frequent ones, the first in label order.

    Its probabilities are the shares of the training labels, so that its log-loss is that of knowing no more than
    these. Same as scikit-learn's `DummyClassifier(strategy="prior")`.
    """

    name: ClassVar[str] = "majority"
    _counts: tuple[int, ...] = ()

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Count the labels of the clean training rows; returns `prior/<label>`, their shares."""
        counts = Counter(self._clean(train)[1])
        self._counts = tuple(counts[label] for label in self._labels)
        return {f"prior/{label}": float(share) for label, share in zip(self._labels, self._priors, strict=True)}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """The same for every row; nothing is computed, so the latency is 0."""
        return self._predictions(rows, np.tile(self._priors, (len(rows), 1)), "priors")

    @property
    def _priors(self) -> npt.NDArray[np.float64]:
        """[C] shares of the training labels, sum 1."""
        if not self._counts:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        counts = np.array(self._counts, dtype=np.float64)
        shares: npt.NDArray[np.float64] = counts / counts.sum()
        return shares

    def _state(self, folder: Path) -> dict[str, Any]:
        return {"counts": self._counts}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        self._counts = tuple(int(count) for count in stored["counts"])


class Prior(Majority):
    """Says a label drawn from the shares of the training labels.

    The draw depends on the run's seed and the clip's id alone, so a clip is answered alike in any order, and so are
    its variants. A drawn label is no probability: rows are one-hot.
    """

    name: ClassVar[str] = "prior"

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """One draw a clip."""
        priors = self._priors
        drawn = [int(generator_of(self._seed, row.clip_id).choice(len(priors), p=priors)) for row in rows]
        return self._predictions(rows, np.eye(len(priors))[drawn], "one_hot")
