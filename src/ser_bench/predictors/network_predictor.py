"""What the predictors with a network share: standardise, train with Lightning, predict in batches, save and load."""

from __future__ import annotations

import contextlib
import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config, ModelConfig
from ser_bench.errors import SerBenchError
from ser_bench.predictors.capabilities import HasNetwork, PredictsHeldOut, ScalesFeatures
from ser_bench.predictors.registry import Need
from ser_bench.predictors.stored_model import check_description, read_description, reading
from ser_bench.types import EpochLog, FloatArray, Inputs, Predictions, Row

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import TensorDataset

    from ser_bench.training.recipe import Recipe
    from ser_bench.training.standardizer import Standardizer

FORMAT = 1
"""Version of the saved folder; raised when `load` can no longer read older ones."""
WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
TRAINING_ROWS_FILE = "training_rows.json"
"""Written by the training: the rows that the optimiser read, and how often. Runs of older versions do not have it."""
FEW_ROWS = 4
"""Rows up to which a prediction uses one thread."""
PREDICT_BATCH_ROWS = 64
"""Bounds memory: the first activation of the paper's network takes 4.9 MB per row."""


class NetworkPredictor(HasNetwork, ScalesFeatures, PredictsHeldOut):
    """A PyTorch network over standardised features. A subclass gives its features and its network."""

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[Need]]

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
        self._rows_read: tuple[tuple[Row, int], ...] = ()

    @abstractmethod
    def _features(self, rows: Sequence[Row]) -> FloatArray:
        """Return the raw features [N, …, D] of these rows."""

    @abstractmethod
    def _new_network(self, width: int) -> nn.Module:
        """Return an untrained network; `width` is the length of the features' last axis."""

    @staticmethod
    @abstractmethod
    def _stored_settings(described: Mapping[str, Any]) -> ModelConfig:
        """Return the network's settings, from the JSON that `save` wrote."""

    def _fitted_standardizer(self, features: FloatArray) -> Standardizer:
        """Return the standardisation by these training rows."""
        from ser_bench.training.standardizer import Standardizer

        return Standardizer.fit(features)

    def _recipe(self) -> Recipe:
        """Return how the network is trained: the paper's recipe unless a subclass has another."""
        from ser_bench.training.recipe import PLAIN

        return PLAIN

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Train on `train`, choose the epoch on `val`, and log the metrics of `test` after each epoch.

        The standardisation uses training rows only.

        Returns:
            `fit/seconds` (time in epochs, those of interrupted runs included), `fit/epochs`, `fit/best_epoch` (the
            epoch whose weights are used, counted from 1), `params/total` and `params/trainable`.
        """
        import pytorch_lightning as pl

        from ser_bench.training import lightning_loop
        from ser_bench.training.row_data import RowData

        features = self._checked_features(train)
        self._standardizer = self._fitted_standardizer(features)
        pl.seed_everything(self.cfg.seed, workers=True, verbose=False)
        shuffle = np.random.default_rng(self.cfg.seed) if self.cfg.shuffle_labels else None
        data = self._dataset(train, features, shuffle)
        curves = {lightning_loop.VAL: self._dataset(val, self._checked_features(val), shuffle)} if val else {}
        if test:
            curves[lightning_loop.TEST_CURVE] = self._dataset(test, self._checked_features(test), None)
        network = self._new_network(features.shape[-1])
        result = lightning_loop.train(
            network,
            RowData(data, curves, self.cfg.trainer.batch_size, self.cfg.seed),
            len(self.labels),
            self.cfg.trainer,
            self.work_dir,
            self.on_epoch,
            self._recipe(),
        )
        self._network = network.eval()
        self._rows_read = tuple((row, times) for row, times in zip(train, result.times_read, strict=False) if times)
        from ser_bench.predictors.network_modules import count_parameters

        total, trainable = count_parameters(network)
        return {
            "fit/seconds": result.seconds,
            "fit/epochs": result.epochs,
            "fit/best_epoch": result.best_epoch,
            "params/total": total,
            "params/trainable": trainable,
        }

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return softmax probabilities; the latency is that of standardisation and network, not of the features."""
        import torch

        module, _ = self.torch_module()
        features = self._checked_features(rows)
        device = torch.device("cuda" if self.cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        if device.type != "cpu":  # moving takes as long as a small network, even where it stays
            module.to(device)
        probabilities = np.empty((len(rows), len(self.labels)), dtype=np.float32)
        latency_s = np.empty(len(rows), dtype=np.float32)
        with torch.inference_mode(), _few_threads(len(rows)):
            for start in range(0, len(rows), PREDICT_BATCH_ROWS):
                part = slice(start, min(start + PREDICT_BATCH_ROWS, len(rows)))
                began = time.perf_counter()
                probabilities[part] = module(torch.from_numpy(features[part]).to(device)).cpu().numpy()
                latency_s[part] = (time.perf_counter() - began) / (part.stop - part.start)
        if device.type != "cpu":
            module.to("cpu")
        if not np.isfinite(probabilities).all():  # finite weights can be so large that their products overflow
            raise SerBenchError(
                f"the network of {self.name} gives probabilities that are not finite, because its training diverged; "
                f"lower trainer.learning_rate (it was {self.cfg.trainer.learning_rate:g}) and run again"
            )
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self.inputs.truth(rows)),
            labels=self.labels,
            probabilities=probabilities,
            abstained=np.zeros(len(rows), dtype=np.bool_),
            latency_s=latency_s,
            cost_usd=np.zeros(len(rows), dtype=np.float32),
        )

    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return the predictions of these rows: they chose the epoch, and no weight was fitted to them."""
        return self.predict(val)

    def facts(self) -> Mapping[str, float]:
        """Return {}: the predictions hold everything."""
        return {}

    def torch_module(self) -> tuple[nn.Module, FloatArray]:
        """Return the module from raw features [N, D] to probabilities [N, C], and an input example of two rows.

        The example is the mean training row, and that plus one standard deviation; it holds no data of a clip.
        """
        from ser_bench.predictors.network_modules import FeaturesToProbabilities

        if self._network is None or self._standardizer is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        scaler = self._standardizer
        module = FeaturesToProbabilities(self._network, scaler.mean, scaler.std).eval()
        return module, np.stack([scaler.mean, scaler.mean + scaler.std])

    def save(self, folder: Path) -> None:
        """Write weights and standardisation as safetensors, and as JSON their description and the rows trained on."""
        from safetensors.torch import save_file

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
        if self._rows_read:
            read = {"rows": [row for row, _ in self._rows_read], "times": [times for _, times in self._rows_read]}
            (folder / TRAINING_ROWS_FILE).write_text(json.dumps(read, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """Restore what `save` wrote. Nothing in the folder is executed, and the network is built as stored.

        Raises:
            SerBenchError: the folder holds another predictor, other labels, or files that cannot be read.
        """
        from safetensors.torch import load_file

        from ser_bench.training.standardizer import Standardizer

        description = read_description(folder / DESCRIPTION_FILE, FORMAT)
        check_description(description, folder, cls.name, labels)
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, metrics: None)
        with reading(folder):
            tensors = load_file(folder / WEIGHTS_FILE)
            predictor._model_cfg = cls._stored_settings(description["network"])
            network = predictor._new_network(description["inputs"])
            scaler = Standardizer(tensors.pop("mean").numpy(), tensors.pop("std").numpy())
            network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
            predictor._rows_read = rows_read(folder)
        predictor._network, predictor._standardizer = network.eval(), scaler
        return predictor

    def scaler_inputs(self, rows: Sequence[Row]) -> FloatArray:
        """Return the raw features [N, D]."""
        return self._features(rows)

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
        """Return standardised features with label indices [N], or with shares of votes [N, C] as soft targets."""
        import torch
        from torch.utils.data import TensorDataset

        index = {label: i for i, label in enumerate(self.labels)}
        truth = self.inputs.truth(rows)
        unknown = sorted(set(truth) - set(index))
        if unknown:
            raise SerBenchError(f"labels {unknown} of training rows are not among {', '.join(self.labels)}")
        targets: npt.NDArray[np.int64] = np.array([index[label] for label in truth], dtype=np.int64)
        soft = self.inputs.soft_targets(rows, self.labels)
        goal = torch.from_numpy(targets if soft is None else soft)
        if shuffle is not None:
            goal = goal[torch.from_numpy(shuffle.permutation(len(goal)))]
        assert self._standardizer is not None
        return TensorDataset(torch.from_numpy(self._standardizer(features)), goal)


def rows_read(folder: Path) -> tuple[tuple[Row, int], ...]:
    """Return the rows that the optimiser read and how often, from a stored network; () if it was stored without them.

    Raises:
        SerBenchError: the file cannot be read.
    """
    path = folder / TRAINING_ROWS_FILE
    if not path.exists():
        return ()
    with reading(folder):
        stored = json.loads(path.read_text(encoding="utf-8"))
        return tuple((Row(*row), int(times)) for row, times in zip(stored["rows"], stored["times"], strict=True))


@contextlib.contextmanager
def _few_threads(rows: int) -> Iterator[None]:
    """Use one PyTorch thread for few rows.

    Each layer is then so short that threads wait for each other longer than they compute: on a loaded machine ten times
    as long as one thread takes.
    """
    import torch

    threads = torch.get_num_threads()
    if rows <= FEW_ROWS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
