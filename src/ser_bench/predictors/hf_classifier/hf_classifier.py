"""`model=hf_classifier`: the answers of a public audio-classification checkpoint; nothing is trained."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import weights
from ser_bench.config import Config, KeyRole, ModelConfig, key, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.evaluation import metrics
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import StatesTrainingData, UsesLicensedParts
from ser_bench.predictors.hf_classifier.checkpoint_labels import LabelMatch, match, probabilities_of
from ser_bench.predictors.registry import Need, register
from ser_bench.types import Predictions, Row
from ser_bench.weights import LicensedPart

log = logging.getLogger(__name__)


@dataclass
class HfClassifierConfig(ModelConfig):
    """A Hugging Face audio-classification checkpoint, as it is."""

    name: str = "hf_classifier"
    id: str = ""
    """A folder that save_pretrained wrote, or name@revision on the Hugging Face hub; safetensors only."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Label of a checkpoint, in lower case → label here; other names are read as those in tables of corpora."""
    trained_on: list[str] | None = key(KeyRole.neutral, None)
    """Corpora on which the checkpoint was trained, from its model card: cremad, iemocap …; null: not known."""
    device: str = key(KeyRole.machine, "cpu")
    """Device of the checkpoint: cpu, cuda, cuda:1 …"""


@register("hf_classifier", HfClassifierConfig, needs=(Need.audio,))
class HfClassifier(LightPredictor, StatesTrainingData, UsesLicensedParts):
    """Scores of the checkpoint's labels → softmax over those that the corpus has; clean clips only."""

    _labels_match: LabelMatch | None = None
    _supported_uar: float | None = None

    @classmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return the checkpoint."""
        return [weights.licensed_part(model_config(cfg, HfClassifierConfig).id)]

    @classmethod
    def training_data(cls, cfg: Config) -> dict[str, tuple[str, ...] | None]:
        """Return the checkpoint and the corpora of `model.trained_on`."""
        model = model_config(cfg, HfClassifierConfig)
        stated = None if model.trained_on is None else tuple(name.lower() for name in model.trained_on)
        return {weights.name_without_folder(model.id): stated}

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Compare the labels of checkpoint and corpus; no row is read, and nothing is trained.

        Raises:
            ConfigError: the checkpoint has no revision, or knows fewer than two labels of the corpus.
            WeightsError: it is not available as safetensors.
        """
        labels = self._matched()
        if labels.missing:
            log.warning("labels   model.id does not know %s: these clips count as wrong", ", ".join(labels.missing))
        if labels.dropped:
            log.info("labels   of model.id that the corpus does not have are left out: %s", ", ".join(labels.dropped))
        return {}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the probabilities of every row; variants of a clip have those of the clean clip."""
        labels = self._matched()
        name, revision = self._checkpoint()
        started = time.perf_counter()
        scores = self._inputs.class_scores([Row(row.clip_id) for row in rows], name, revision, self._device())
        seconds = time.perf_counter() - started
        if not np.isfinite(scores).all():
            raise SerBenchError(f"model.id={name}: gives scores that are not finite; choose another checkpoint")
        probabilities = probabilities_of(scores, labels, len(self._labels))
        predictions = self._predictions(rows, probabilities, "softmax", seconds)
        self._supported_uar = _uar_of_supported(predictions, labels.supported)
        return predictions

    def facts(self) -> Mapping[str, float]:
        """Return `hf/supported_labels`, and after `predict` `hf/uar_supported`.

        The latter is the UAR over the rows whose label the checkpoint knows, in [0, 1].
        """
        supported = {"hf/supported_labels": float(len(self._matched().supported))}
        return supported if self._supported_uar is None else supported | {"hf/uar_supported": self._supported_uar}

    def _checkpoint(self) -> tuple[str, str | None]:
        """Return (folder, None), or (name on the hub, revision).

        Raises:
            ConfigError: a name on the hub has no revision: what is there today may change.
        """
        stated = model_config(self._cfg, HfClassifierConfig).id
        if not stated:
            raise ConfigError("model.id names no checkpoint; set model.id=FOLDER, or model.id=NAME@COMMIT for the hub")
        if Path(stated).expanduser().is_dir():
            return stated, None
        name, _, revision = stated.partition("@")
        if not revision:
            raise ConfigError(
                f"model.id={stated}: no such folder; for a checkpoint on the hub, add its commit: "
                f"model.id={stated}@COMMIT"
            )
        return name, revision

    def _device(self) -> str:
        return model_config(self._cfg, HfClassifierConfig).device

    def _matched(self) -> LabelMatch:
        if self._labels_match is None:
            from ser_bench.features.encoders import audio_classifier

            name, revision = self._checkpoint()
            own = audio_classifier.own_labels(name, revision)
            labels = match(own, self._labels, model_config(self._cfg, HfClassifierConfig).aliases)
            if len(labels.supported) < 2:
                raise ConfigError(
                    f"model.id={name} has the labels {', '.join(own)}, of which the corpus has "
                    f"{', '.join(labels.supported) or 'none'}; the corpus has {', '.join(self._labels)}. Say what they "
                    f"stand for: '+model.aliases={{{own[0].lower()}: {self._labels[0]}}}'"
                )
            self._labels_match = labels
        return self._labels_match

    def _state(self, folder: Path) -> dict[str, Any]:
        from ser_bench.features.encoders import audio_classifier

        name, revision = self._checkpoint()
        return {
            "checkpoint": weights.name_without_folder(name),
            "commit": audio_classifier.commit(name, revision),
            "sha256": audio_classifier.identity(name, revision),
        }

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from ser_bench.features.encoders import audio_classifier

        name, revision = self._checkpoint()
        if audio_classifier.identity(name, revision) != stored.get("sha256"):
            raise SerBenchError(
                f"model.id={name}: not the checkpoint of this run (sha256 {str(stored.get('sha256'))[:12]}…); "
                "set model.id to that one, or run again with force=true"
            )


def _uar_of_supported(predictions: Predictions, supported: Sequence[str]) -> float | None:
    """Return the UAR of the rows whose label is among these; None without such rows."""
    index = {label: i for i, label in enumerate(predictions.labels)}
    rows = [i for i, label in enumerate(predictions.truth) if label in supported]
    if not rows:
        return None
    truth = np.array([index[predictions.truth[i]] for i in rows])
    return float(metrics.uar_of(truth, predictions.probabilities[rows].argmax(axis=1), len(index)))
