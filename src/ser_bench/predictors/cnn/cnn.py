"""`model=cnn`: the paper's 1D CNN over ZCR, RMS and MFCC."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

from ser_bench.config import CnnConfig, Config
from ser_bench.errors import SerBenchError
from ser_bench.features import paper_features
from ser_bench.predictors.cnn.paper_network import FeaturesToProbabilities, PaperCNN, count_parameters
from ser_bench.training import lightning_loop
from ser_bench.training.recipe import PLAIN, Recipe
from ser_bench.training.row_data import RowData
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import EpochLog, FloatArray, Inputs, Predictions, Row

FORMAT = 1
"""Of the saved folder; raised when `load` could no longer read what older versions wrote."""
WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
PREDICT_BATCH_ROWS = 64
"""Bounds memory: the first activation of the paper's network takes 4.9 MB a row."""


class Cnn:
    """The audio CNN as a predictor: standardise, train, predict, save."""

    name: ClassVar[str] = "cnn"
    groups: ClassVar[tuple[str, ...]] = ("model", "size", "features", "augment", "trainer")

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        self.cfg = cfg
        self.labels = labels
        self.inputs = inputs
        self.work_dir = work_dir
        self.on_epoch = on_epoch
        self._model_cfg: Any = cfg.model
        self._network: nn.Module | None = None
        self._standardizer: Standardizer | None = None

    @classmethod
    def input_shape(cls, cfg: Config) -> tuple[int, ...]:
        """Of one row of features."""
        return (cls.input_length(cfg),)

    @classmethod
    def input_length(cls, cfg: Config) -> int:
        """Numbers in one feature vector: 2,376 at the paper's settings."""
        return paper_features.length(cfg.features)

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] raw features of these rows."""
        return self.inputs.spectral(rows)

    def _fitted_standardizer(self, features: FloatArray) -> Standardizer:
        """Of the training rows' features."""
        return Standardizer.fit(features)

    def _new_network(self, width: int) -> nn.Module:
        """Untrained; `width` is the length of the features' last axis."""
        return PaperCNN.from_config(self._model_cfg, width, len(self.labels))

    def _recipe(self) -> Recipe:
        """The paper's training."""
        return PLAIN

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> Any:
        """The network's settings, from the JSON that `save` wrote."""
        return CnnConfig(**described)

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Train on `train`, choose the epoch on `val`, and draw `test`'s curve.

        Standardisation sees training rows only. Returns `fit/seconds` (time in epochs, interrupted runs included),
        `fit/epochs`, `fit/best_epoch` (the epoch kept, from 1), `params/total` and `params/trainable`.
        """
        features = self._checked_features(train)
        self._standardizer = self._fitted_standardizer(features)
        pl.seed_everything(self.cfg.seed, workers=True, verbose=False)
        shuffle = np.random.default_rng(self.cfg.seed) if self.cfg.shuffle_labels else None
        data = self._dataset(train, features, shuffle)
        curves = {lightning_loop.VAL: self._dataset(val, self._checked_features(val), shuffle)} if val else {}
        if test:
            curves[lightning_loop.TEST_CURVE] = self._dataset(test, self._checked_features(test), None)
        network = self._new_network(features.shape[-1])
        outcome = lightning_loop.train(
            network,
            RowData(data, curves, self.cfg.trainer.batch_size, self.cfg.seed),
            len(self.labels),
            self.cfg.trainer,
            self.work_dir,
            self.on_epoch,
            self._recipe(),
        )
        self._network = network.eval()
        total, trainable = count_parameters(network)
        return {
            "fit/seconds": outcome.seconds,
            "fit/epochs": outcome.epochs,
            "fit/best_epoch": outcome.best_epoch,
            "params/total": total,
            "params/trainable": trainable,
        }

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Softmax probabilities; the latency is that of standardisation and network, not of the features."""
        module, _ = self.torch_module()
        features = self._checked_features(rows)
        device = torch.device("cuda" if self.cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        module.to(device)
        probabilities = np.empty((len(rows), len(self.labels)), dtype=np.float32)
        latency_s = np.empty(len(rows), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), PREDICT_BATCH_ROWS):
                part = slice(start, min(start + PREDICT_BATCH_ROWS, len(rows)))
                began = time.perf_counter()
                probabilities[part] = module(torch.from_numpy(features[part]).to(device)).cpu().numpy()
                latency_s[part] = (time.perf_counter() - began) / (part.stop - part.start)
        module.to("cpu")
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self.inputs.truth(rows)),
            labels=self.labels,
            probabilities=probabilities,
            abstained=np.zeros(len(rows), dtype=np.bool_),
            latency_s=latency_s,
            cost_usd=np.zeros(len(rows), dtype=np.float32),
        )

    def facts(self) -> Mapping[str, float]:
        """Nothing beyond what the predictions themselves say."""
        return {}

    def torch_module(self) -> tuple[nn.Module, FloatArray]:
        """(module from raw features [N, D] to probabilities [N, C], an input example of two rows).

        The example is the mean training row, and that plus one standard deviation: typical values of nobody's clip.
        """
        if self._network is None or self._standardizer is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        scaler = self._standardizer
        module = FeaturesToProbabilities(self._network, scaler.mean, scaler.std).eval()
        return module, np.stack([scaler.mean, scaler.mean + scaler.std])

    def save(self, folder: Path) -> None:
        """Write weights and standardisation as safetensors, and what they belong to as JSON."""
        module, _ = self.torch_module()
        description = {
            "format": FORMAT,
            "predictor": self.name,
            "labels": self.labels,
            "inputs": len(self._standardizer.mean) if self._standardizer else 0,
            "network": asdict(self._model_cfg),
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, folder / WEIGHTS_FILE)
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """Restore what `save` wrote; nothing in the folder is executed, and its network is taken as stored.

        Raises:
            SerBenchError: the folder holds another predictor, other labels, or files that cannot be read.
        """
        description, tensors = _read(folder)
        if description.get("predictor") != cls.name or tuple(description.get("labels", ())) != labels:
            raise SerBenchError(
                f"{folder}: holds {description.get('predictor')} for {', '.join(description.get('labels', ()))}, not "
                f"{cls.name} for {', '.join(labels)}; choose the run that was trained on these labels"
            )
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, metrics: None)
        predictor._model_cfg = cls._stored_settings(description["network"])
        network = predictor._new_network(description["inputs"])
        scaler = Standardizer(tensors.pop("mean").numpy(), tensors.pop("std").numpy())
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
        predictor._network, predictor._standardizer = network.eval(), scaler
        return predictor

    def _checked_features(self, rows: Sequence[Row]) -> FloatArray:
        features = self._features(rows)
        finite = np.isfinite(features).all(axis=tuple(range(1, features.ndim)))
        if not finite.all():
            bad = rows[int(finite.argmin())]
            raise SerBenchError(f"clip {bad.clip_id} ({bad.variant}): its features are not finite; check the file")
        if self._standardizer is not None and features.shape[-1] != len(self._standardizer.mean):
            raise SerBenchError(
                f"{features.shape[-1]} features a clip, but {self.name} was trained on {len(self._standardizer.mean)}; "
                "use the features and text settings of its run"
            )
        return features

    def _dataset(self, rows: Sequence[Row], features: FloatArray, shuffle: np.random.Generator | None) -> TensorDataset:
        """Standardised features, and places of the labels [N] or, where listeners decide, shares of votes [N, C]."""
        index = {label: i for i, label in enumerate(self.labels)}
        truth = self.inputs.truth(rows)
        unknown = sorted(set(truth) - set(index))
        if unknown:
            raise SerBenchError(f"labels {unknown} of training rows are not among {', '.join(self.labels)}")
        targets: npt.NDArray[np.int64] = np.array([index[label] for label in truth], dtype=np.int64)
        soft = self.inputs.soft_targets(rows, self.labels)
        wanted = torch.from_numpy(targets if soft is None else soft)
        if shuffle is not None:
            wanted = wanted[torch.from_numpy(shuffle.permutation(len(wanted)))]
        assert self._standardizer is not None
        return TensorDataset(torch.from_numpy(self._standardizer(features)), wanted)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION_FILE).read_text())
        tensors: dict[str, torch.Tensor] = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise SerBenchError(f"{folder}: no readable stored model ({error}); train it again with force=true") from error
    if description.get("format") != FORMAT:
        raise SerBenchError(f"{folder}: stored in format {description.get('format')}, but {FORMAT} is read here")
    return description, tensors
