"""What all probes share: fixed vectors of clips → speaker adaptation (optional) → a light head.

A new probe names itself with `@register` and returns its vectors in `_raw`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench.config import Config
from ser_bench.errors import SerBenchError
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import AdaptsToSpeaker, GivesVectors, PredictsHeldOut, ScalesFeatures
from ser_bench.predictors.embeddings.speaker_adaptation import SpeakerAdaptation
from ser_bench.types import FloatArray, Predictions, Row

if TYPE_CHECKING:
    from ser_bench.predictors.heads import Head


class Probe(LightPredictor, GivesVectors, ScalesFeatures, AdaptsToSpeaker, PredictsHeldOut):
    """Base of the predictors over fixed vectors."""

    _head: Head | None = None
    _adaptation: SpeakerAdaptation | None = None

    @abstractmethod
    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] vectors of clean clips, neither adapted nor standardised."""

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit the head on clean training rows, with settings chosen on validation rows; return the head's facts.

        Raises:
            ConfigError: the training rows have one label only, or `adapt` and `split` do not go together.
        """
        from ser_bench.predictors.heads import Head

        rows, truth = self._clean(train)
        y, y_val = self._label_index(truth), self._label_index(self._inputs.truth(val))
        soft, soft_val = (self._inputs.soft_targets(part, self._labels) for part in (rows, val))
        shares = None if soft is None or soft_val is None else (soft, soft_val)
        if self._cfg.shuffle_labels:
            # Validation rows too: with `head.refit` the head is trained on them.
            shuffle = np.random.default_rng(self._seed)
            order, order_val = shuffle.permutation(len(y)), shuffle.permutation(len(y_val))
            y, y_val = y[order], y_val[order_val]
            shares = None if shares is None else (shares[0][order], shares[1][order_val])
        self._adaptation = SpeakerAdaptation.fitted(self._cfg, self._inputs, rows, self._raw)
        self._head = Head(self._cfg.head, len(self._labels), self._seed)
        vectors = self.vectors(rows)
        return self._head.fit(vectors, y, self.vectors(val) if val else vectors[:0], y_val, shares)

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return probabilities; the latency is that of the head, not of the vectors.

        Enrolment clips of `adapt=speaker_stats` are left out.

        Raises:
            SerBenchError: the probe is not trained, or the vectors have another length than in training.
        """
        if self._head is None or self._adaptation is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        enrolled = self._adaptation.enrolled(rows)
        scored = [row for row in rows if row.clip_id not in enrolled]
        if not scored:
            return self._predictions((), np.zeros((0, len(self._labels))), "softmax")
        vectors = self.vectors(scored)
        started = time.perf_counter()
        probabilities = self._head.predict_proba(vectors)
        return self._predictions(scored, probabilities, "softmax", time.perf_counter() - started)

    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return the predictions by the head before its second fit, which includes these rows under `head.refit`.

        Raises:
            SerBenchError: the probe was not fitted with these validation rows.
        """
        kept = None if self._head is None else self._head.validation_probabilities
        if kept is None or len(kept) != len(val):
            raise SerBenchError(f"this {self.name} was not fitted with these validation rows")
        return self._predictions(val, kept, "softmax")

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] vectors, adapted to the speaker where the run asks for it, not standardised.

        Raises:
            SerBenchError: the probe is not trained.
        """
        if self._adaptation is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        return self._adaptation.adapted(rows, self._raw)

    def enrol(self, speaker: str, rows: Sequence[Row]) -> None:
        """Standardise later clips of this speaker by the statistics of these.

        Raises:
            ConfigError: the run was made under `adapt=none`.
            SerBenchError: the probe is not trained.
        """
        if self._adaptation is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        self._adaptation.enrol(speaker, rows, self._raw)

    @classmethod
    def reason_without_vectors(cls, cfg: Config) -> str:
        """Return a reason where enrolment clips are left out."""
        return f"adapt.enrol={cfg.adapt.enrol} leaves out clips" if cfg.adapt.enrol else ""

    def scaler_inputs(self, rows: Sequence[Row]) -> FloatArray:
        """Return the vectors: the head standardises them."""
        return self.vectors(rows)

    def _state(self, folder: Path) -> dict[str, Any]:
        if self._head is None or self._adaptation is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit before save")
        self._head.save(folder)
        self._adaptation.save(folder)
        return {}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from ser_bench.predictors.heads import Head

        self._head = Head.load(folder)
        self._adaptation = SpeakerAdaptation.load(folder, self._cfg, self._inputs)
