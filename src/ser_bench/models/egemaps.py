"""`model=egemaps`: openSMILE's eGeMAPSv02 functionals under a light head: the field's classical baseline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ser_bench.errors import SerBenchError
from ser_bench.models.heads import Head
from ser_bench.models.plain import Plain
from ser_bench.types import Predictions, Row

Array = npt.NDArray[Any]


class Egemaps(Plain):
    """88 functionals [N, 88] → the head chosen by `head=` (logistic regression, support vectors, …)."""

    name: ClassVar[str] = "egemaps"
    groups: ClassVar[tuple[str, ...]] = ("head", "augment")
    """Variants are not trained on, but `split=paper` tests them."""
    _head: Head | None = None

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit on clean training rows; validation rows choose the head's settings and, with `head.refit`, join them.

        Returns what `heads.Head.fit` does; its seconds do not hold those of the functionals.

        Raises:
            ConfigError: openSMILE is not installed and its numbers are not cached, or the training rows have one label.
        """
        rows, truth = self._clean(train)
        val_rows, val_truth = self._clean(val) if val else ([], [])
        y, y_val = self._places(truth), self._places(val_truth)
        if self._cfg.shuffle_labels:
            shuffle = np.random.default_rng(self._seed)
            y, y_val = shuffle.permutation(y), shuffle.permutation(y_val)
        head = Head(self._cfg.head, len(self._labels), self._seed)
        facts = head.fit(self._functionals(rows), y, self._functionals(val_rows), y_val)
        self._head = head
        return facts

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """The head's probabilities; the latency is that of the head, not of the functionals.

        Raises:
            SerBenchError: not trained.
        """
        if self._head is None:
            raise SerBenchError("this egemaps is not trained; call fit, or load a stored run")
        x = self._functionals(rows)
        started = time.perf_counter()
        probabilities = self._head.predict_proba(x)
        return self._predictions(rows, probabilities, "softmax", time.perf_counter() - started)

    def _functionals(self, rows: Sequence[Row]) -> Array:
        """[N, 88] float64, not standardised: the head does that, by its training rows."""
        return self._inputs.egemaps(rows).astype(np.float64)

    def _places(self, truth: Sequence[str]) -> npt.NDArray[np.int64]:
        return np.array([self._labels.index(label) for label in truth], dtype=np.int64)

    def _state(self, folder: Path) -> dict[str, Any]:
        if self._head is None:
            raise SerBenchError("this egemaps is not trained; call fit before save")
        self._head.save(folder)
        return {}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        self._head = Head.load(folder)
