"""`model=ssl_probe`: a Hugging Face speech encoder, pooled over time, and a light head; or fine-tuned on a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from omegaconf import MISSING

from ser_bench import weights
from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.capabilities import UsesLicensedParts
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.predictors.registry import Need, register
from ser_bench.predictors.stored_model import reading
from ser_bench.types import FloatArray, Predictions, Row
from ser_bench.weights import LicensedPart

if TYPE_CHECKING:
    from ser_bench.predictors.embeddings.finetuning import FinetunedEncoder

LAYER_WEIGHTS_FILE = "layers.safetensors"


class Mix(Enum):
    """How all layers become one vector: their mean, or a weighted sum with learnt weights."""

    mean = "mean"
    learnt = "learnt"


@dataclass
class SslProbeConfig(ModelConfig):
    """A self-supervised speech encoder, frozen under a light head (group `head`), or fine-tuned on a GPU."""

    name: str = "ssl_probe"
    encoder: str = MISSING
    """A folder that save_pretrained wrote, or a name on the Hugging Face hub; safetensors only."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: the main branch."""
    layers: str = "last"
    """last, all, or the index of one layer: 0 is the input of the first transformer layer, 1 its output, and so on."""
    mix: Mix = Mix.mean
    """Only layers=all. mean: equal weights; learnt: positive weights fitted to the training rows."""
    device: str = "cpu"
    """Device of the encoder: cpu, cuda, cuda:1 …"""
    finetune: bool = False
    """Train the transformer layers too, under one linear layer; the group `head` is then not used."""
    epochs: int = 10
    """finetune: passes over the training rows; there is no early stopping."""
    batch_size: int = 8
    """finetune: clips per step."""
    learning_rate: float = 1e-5
    """finetune: initial learning rate of the encoder; it falls to 0 linearly."""
    head_learning_rate: float = 1e-3
    """finetune: initial learning rate of the linear layer; likewise."""


@register("ssl_probe", SslProbeConfig, groups=("head", "adapt"), needs=(Need.audio,))
class SslProbe(Probe, UsesLicensedParts):
    """Mean and standard deviation over time of one layer, or of a weighted sum of all; clean clips only."""

    _layer_weights: npt.NDArray[np.float64] | None = None
    _finetuned: FinetunedEncoder | None = None

    @classmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return the encoder."""
        return [weights.licensed_part(model_config(cfg, SslProbeConfig).encoder)]

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Determine the layer weights, then fit the head as every probe; or fine-tune the encoder.

        Returns:
            The head's facts and `ssl/layer/<number>`, the share of each layer; under `model.finetune` the facts of
            `FinetunedEncoder.fit`.

        Raises:
            ConfigError: the training rows have one label only, the layer does not exist, or fine-tuning is asked for
                without a GPU or with `adapt`.
            WeightsError: the encoder is not available as safetensors.
        """
        rows, truth = self._clean(train)
        if self._cfg.shuffle_labels:
            truth = list(np.random.default_rng(self._seed).permutation(truth))
        model = model_config(self._cfg, SslProbeConfig)
        if model.finetune:
            from ser_bench.predictors.embeddings.finetuning import FinetunedEncoder

            check_finetune(model.device, self._cfg.adapt.name)
            self._finetuned = FinetunedEncoder(model, len(self._labels))
            return self._finetuned.fit(
                self._inputs.clips(rows),
                self._label_index(truth),
                self._inputs.clips(val),
                self._label_index(self._inputs.truth(val)),
                self._seed,
            )
        from ser_bench.predictors.embeddings import layer_weights

        self._layer_weights = layer_weights.fixed(model, self._pooled(rows[:1]).shape[1])
        if self._layer_weights is None:
            self._layer_weights = layer_weights.learnt(self._pooled(rows), self._label_index(truth), len(self._labels))
        shares = self._layer_weights / self._layer_weights.sum()
        return {f"ssl/layer/{i}": float(share) for i, share in enumerate(shares)} | dict(super().fit(train, val, test))

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Predict as every probe; the latency of a fine-tuned encoder includes decoding, encoder and linear layer."""
        if self._finetuned is None:
            return super().predict(rows)
        started = time.perf_counter()
        probabilities = self._finetuned.predict_proba(self._inputs.clips(rows))
        return self._predictions(rows, probabilities, "softmax", time.perf_counter() - started)

    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return those of every probe; a fine-tuned encoder was fitted to training rows alone."""
        return super().held_out(val) if self._finetuned is None else self.predict(val)

    @classmethod
    def reason_without_vectors(cls, cfg: Config) -> str:
        """Return a reason also where the encoder is fine-tuned to the labels."""
        if model_config(cfg, SslProbeConfig).finetune:
            return "its encoder was fine-tuned to the labels, and has no fixed vectors"
        return super().reason_without_vectors(cfg)

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, 2 · width]: means, then standard deviations, of the weighted sum of layers."""
        if self._layer_weights is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        if not rows:
            return np.zeros((0, 0), dtype=np.float32)
        # einsum sums each row by itself: a matrix product may round a row differently in other company.
        mixed: FloatArray = np.einsum("l,nld->nd", self._layer_weights, self._pooled(rows)).astype(np.float32)
        return mixed

    def _pooled(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, layers, 2 · width]; N is at least 1."""
        model = model_config(self._cfg, SslProbeConfig)
        pooled = self._inputs.speech_encoder(rows, model.encoder, model.revision, model.device)
        return pooled.reshape(*pooled.shape[:2], -1)

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if self._finetuned is not None:
            self._finetuned.save(folder)
            return {"finetuned": True}
        state = super()._state(folder)
        assert self._layer_weights is not None  # a head was fitted, and it had vectors
        save_file({"layers": self._layer_weights}, folder / LAYER_WEIGHTS_FILE)
        return state | {"finetuned": False}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from safetensors.numpy import load_file

        if stored["finetuned"]:
            from ser_bench.predictors.embeddings.finetuning import FinetunedEncoder

            self._finetuned = FinetunedEncoder.load(folder, model_config(self._cfg, SslProbeConfig))
            return
        super()._restore(stored, folder)
        with reading(folder):
            self._layer_weights = load_file(folder / LAYER_WEIGHTS_FILE)["layers"]


def check_finetune(device: str, adapt: str) -> None:
    """Raise where an encoder cannot be fine-tuned.

    Raises:
        ConfigError: there is no GPU, the device is none, or `adapt` is set.
    """
    import torch

    here = torch.cuda.is_available()
    if not device.startswith("cuda") or not here:
        raise ConfigError(
            f"model.finetune=true trains the encoder on a GPU: set model.device=cuda (it is {device}, and this PyTorch "
            f"sees {'a' if here else 'no'} GPU), or train a head alone with model.finetune=false"
        )
    if adapt != "none":
        raise ConfigError(f"model.finetune=true has no fixed vectors for adapt={adapt}; choose one of the two")
