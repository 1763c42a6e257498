"""What the predictors over fixed vectors have in common: vectors of clips, adaptation to the speaker, a light head.

A new one names itself and says in `_raw` what its vectors are; `fit`, `predict`, `save`, `load` and the audit's view of
it are here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ser_bench.errors import SerBenchError
from ser_bench.predictors.base import Plain
from ser_bench.predictors.embeddings.speaker_adaptation import Speakers
from ser_bench.predictors.heads import Head
from ser_bench.predictors.heads.classifier import Labels
from ser_bench.types import FloatArray, Predictions, Row


class Probe(Plain, ABC):
    """Vectors → (adapted to the speaker) → head."""

    groups: ClassVar[tuple[str, ...]] = ("head", "adapt")
    _head: Head | None = None
    _speakers: Speakers | None = None

    @abstractmethod
    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] vectors of clean clips, as they are."""

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit the head on clean training rows, its settings chosen on validation rows; returns the head's facts.

        Raises:
            ConfigError: the training rows have one label only; `adapt` and `split` do not go together.
        """
        rows, truth = self._clean(train)
        y, y_val = self._places(truth), self._places(self._inputs.truth(val))
        soft, soft_val = (self._inputs.soft_targets(part, self._labels) for part in (rows, val))
        shares = None if soft is None or soft_val is None else (soft, soft_val)
        if self._cfg.shuffle_labels:
            # Validation rows too: with `head.refit` they are trained on.
            shuffle = np.random.default_rng(self._seed)
            order, order_val = shuffle.permutation(len(y)), shuffle.permutation(len(y_val))
            y, y_val = y[order], y_val[order_val]
            shares = None if shares is None else (shares[0][order], shares[1][order_val])
        self._speakers = Speakers.fitted(self._cfg, self._inputs, rows, self._raw)
        self._head = Head(self._cfg.head, len(self._labels), self._seed)
        vectors = self.scaled_vectors(rows)
        return self._head.fit(vectors, y, self.scaled_vectors(val) if val else vectors[:0], y_val, shares)

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Probabilities of all labels; the latency is that of the head, not of the vectors.

        Under `adapt=speaker_stats` the clips that the speaker was learnt from are left out.

        Raises:
            SerBenchError: not trained, or vectors of another length than those it was trained on.
        """
        if self._head is None or self._speakers is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        enrolled = self._speakers.enrolled(rows)
        asked = [row for row in rows if row.clip_id not in enrolled]
        if not asked:
            return self._predictions((), np.zeros((0, len(self._labels))), "softmax")
        vectors = self.scaled_vectors(asked)
        started = time.perf_counter()
        probabilities = self._head.predict_proba(vectors)
        return self._predictions(asked, probabilities, "softmax", time.perf_counter() - started)

    def scaled_vectors(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] as the head's scaler is given them: the audit computes the scaler's statistics anew from these.

        Raises:
            SerBenchError: not trained.
        """
        if self._speakers is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        return self._speakers.adapted(rows, self._raw)

    def _places(self, truth: Sequence[str]) -> Labels:
        """[N] places of labels in the run's list."""
        return np.array([self._labels.index(label) for label in truth], dtype=np.int64)

    def _state(self, folder: Path) -> dict[str, Any]:
        if self._head is None or self._speakers is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit before save")
        self._head.save(folder)
        self._speakers.save(folder)
        return {}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        self._head = Head.load(folder)
        self._speakers = Speakers.load(folder, self._cfg, self._inputs)
