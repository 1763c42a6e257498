"""`model=ssl_probe`: a Hugging Face speech encoder, pooled over time, and a light head; or fine-tuned on a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ser_bench.config import SslProbeConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.embeddings import layer_weights
from ser_bench.predictors.embeddings.finetuning import Tuned
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.types import FloatArray, Predictions, Row

MIX_FILE = "layers.safetensors"


class SslProbe(Probe):
    """Mean and deviation over time of one layer, or of a mix of all, below a head; clean clips only."""

    name: ClassVar[str] = "ssl_probe"
    _mix: npt.NDArray[np.float64] | None = None
    _tuned: Tuned | None = None

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """As every probe, after the layers' weights are known.

        Returns the head's facts and `ssl/layer/<number>`, the share of each layer; under `model.finetune` those of
        `Tuned.fit`.

        Raises:
            ConfigError: the training rows have one label only, no such layer, or fine-tuning without a GPU or with
                `adapt`.
            WeightsError: the encoder cannot be had as safetensors.
        """
        rows, truth = self._clean(train)
        if self._cfg.shuffle_labels:
            truth = list(np.random.default_rng(self._seed).permutation(truth))
        model = model_config(self._cfg, SslProbeConfig)
        if model.finetune:
            check_finetune(model.device, self._cfg.adapt.name)
            self._tuned = Tuned(model, len(self._labels))
            return self._tuned.fit(
                self._inputs.clips(rows),
                self._places(truth),
                self._inputs.clips(val),
                self._places(self._inputs.truth(val)),
                self._seed,
            )
        self._mix = layer_weights.fixed(model, self._pooled(rows[:1]).shape[1])
        if self._mix is None:
            self._mix = layer_weights.learnt(self._pooled(rows), self._places(truth), len(self._labels))
        shares = self._mix / self._mix.sum()
        return {f"ssl/layer/{i}": float(share) for i, share in enumerate(shares)} | dict(super().fit(train, val, test))

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """As every probe; fine-tuned, the latency is that of encoder and linear layer, decoding included."""
        if self._tuned is None:
            return super().predict(rows)
        started = time.perf_counter()
        probabilities = self._tuned.predict_proba(self._inputs.clips(rows))
        return self._predictions(rows, probabilities, "softmax", time.perf_counter() - started)

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        """[N, 2 · width]: means, then deviations, of the mixed layers."""
        if self._mix is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        if not rows:
            return np.zeros((0, 0), dtype=np.float32)
        # einsum sums each row by itself: a matrix product may round a row differently in other company.
        mixed: FloatArray = np.einsum("l,nld->nd", self._mix, self._pooled(rows)).astype(np.float32)
        return mixed

    def _pooled(self, rows: Sequence[Row]) -> FloatArray:
        """[N, layers, 2 · width]; N is at least 1."""
        model = model_config(self._cfg, SslProbeConfig)
        pooled = self._inputs.speech_encoder(rows, model.encoder, model.revision, model.device)
        return pooled.reshape(*pooled.shape[:2], -1)

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if self._tuned is not None:
            self._tuned.save(folder)
            return {"finetuned": True}
        state = super()._state(folder)
        assert self._mix is not None  # a head was fitted, and it had vectors
        save_file({"layers": self._mix}, folder / MIX_FILE)
        return state | {"finetuned": False}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        if stored["finetuned"]:
            self._tuned = Tuned.load(folder, model_config(self._cfg, SslProbeConfig))
            return
        super()._restore(stored, folder)
        try:
            self._mix = load_file(folder / MIX_FILE)["layers"]
        except (OSError, KeyError, SafetensorError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error


def check_finetune(device: str, adapt: str) -> None:
    """Refuse to train an encoder where that would take days, or to adapt vectors that are not there.

    Raises:
        ConfigError: no GPU, or a device that is none; `adapt`.
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
