"""`model=text_only`: logistic regression over the embedding of the transcript, a baseline predictor.

Where every sentence is spoken in every emotion, it cannot do better than the sentence allows
(`evaluation/sentence_ceiling.py`), except by the errors of the recogniser, which depend on the emotion.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors import logistic_regression
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import GivesVectors, PredictsHeldOut, ScalesFeatures
from ser_bench.predictors.registry import Need, register
from ser_bench.predictors.stored_model import reading
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray, Predictions, Row

WEIGHTS_FILE = "text_only.safetensors"
ARRAYS = ("mean", "scale", "coefficients", "intercepts")
Array = npt.NDArray[np.float64]


@dataclass
class TextOnlyConfig(ModelConfig):
    """Logistic regression over the embedding of the transcript."""

    name: str = "text_only"
    C: float = 1.0
    """Inverse strength of the L2 penalty, as in scikit-learn."""
    max_iter: int = 1000
    """Largest number of L-BFGS iterations."""


@register("text_only", TextOnlyConfig, groups=("asr", "text"), needs=(Need.transcript,))
class TextOnly(LightPredictor, GivesVectors, ScalesFeatures, PredictsHeldOut):
    """Standardisation by the training rows, then multinomial logistic regression with an L2 penalty.

    It equals scikit-learn's `make_pipeline(StandardScaler(), LogisticRegression(C=model.C))`. Numbers are stored, not
    objects: P(c) = softmax_c(((x − mean) / scale) · coefficients_c + intercept_c).
    """

    _arrays: Mapping[str, Array] | None = None

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit on clean training rows, because the variants of a clip share its transcript.

        Returns:
            `fit/seconds` (embeddings not included), `fit/iterations`, `params/total` and `params/trainable`.

        Raises:
            LanguageError: the recogniser or the embedding does not support the language of the corpus.
            ConfigError: the training rows have one label only.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        cfg = model_config(self._cfg, TextOnlyConfig)
        rows, truth = self._clean(train)
        if len(set(truth)) < 2:
            raise ConfigError(f"model=text_only: all training rows are {truth[0]}; it needs two labels")
        if self._cfg.shuffle_labels:
            truth = list(np.random.default_rng(self._seed).permutation(truth))
        embedded = self._inputs.text(rows).astype(np.float64)
        regression = LogisticRegression(C=cfg.C, max_iter=cfg.max_iter)
        started = time.perf_counter()
        # Not Standardizer.fit: its rule for constant columns is coarser, and would move figures measured before.
        scaler = StandardScaler().fit(embedded)
        standardizer = Standardizer(scaler.mean_, scaler.scale_)
        iterations = logistic_regression.fit(
            regression, standardizer(embedded), truth, subject="text_only", remedy="raise model.max_iter"
        )
        seconds = time.perf_counter() - started
        coefficients, intercepts = logistic_regression.coefficients_by_label(regression, self._labels)
        self._arrays = {
            "mean": standardizer.mean,
            "scale": standardizer.std,
            "coefficients": coefficients,
            "intercepts": intercepts,
        }
        parameters = coefficients.size + intercepts.size
        return {
            "fit/seconds": seconds,
            "fit/iterations": iterations,
            "params/total": parameters,
            "params/trainable": parameters,
        }

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return probabilities; the latency is that of the regression, not of transcript and embedding.

        Raises:
            SerBenchError: not trained, or embeddings of another length than those it was trained on.
        """
        if self._arrays is None:
            raise SerBenchError("this text_only is not trained; call fit, or load a stored run")
        embedded = self._inputs.text(rows).astype(np.float64)
        if embedded.shape[1] != len(self._arrays["mean"]):
            raise SerBenchError(
                f"{embedded.shape[1]} numbers per embedding, but text_only was trained on {len(self._arrays['mean'])}; "
                "use the text settings of its run"
            )
        started = time.perf_counter()
        scaled = Standardizer(self._arrays["mean"], self._arrays["scale"])(embedded)
        probabilities = logistic_regression.predict_proba(
            scaled, self._arrays["coefficients"], self._arrays["intercepts"]
        )
        return self._predictions(rows, probabilities, "softmax", time.perf_counter() - started)

    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return the predictions of these rows, which the regression does not use."""
        return self.predict(val)

    @classmethod
    def reason_without_held_out(cls, cfg: Config) -> str:
        """Return a reason where more embeddings would cost money."""
        return "text=openai would be asked for more embeddings" if cfg.text.name == "openai" else ""

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] embeddings of the transcripts."""
        return self._inputs.text(rows)

    def scaler_inputs(self, rows: Sequence[Row]) -> FloatArray:
        """Return the same: they are standardised as they are."""
        return self.vectors(rows)

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if self._arrays is None:
            raise SerBenchError("this text_only is not trained; call fit before save")
        save_file({name: np.ascontiguousarray(self._arrays[name]) for name in ARRAYS}, folder / WEIGHTS_FILE)
        return {"inputs": len(self._arrays["mean"])}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from safetensors.numpy import load_file

        with reading(folder):
            arrays = load_file(folder / WEIGHTS_FILE)
            self._arrays = {name: arrays[name] for name in ARRAYS}
