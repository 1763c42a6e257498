"""`model=crnn`: a small network over log-mel spectrograms, trained from scratch with today's usual means.

It reads the clean clip: training takes clean rows only (blanking and mixing vary them more than the paper's variants
do), and under `split=paper` a variant has the answer of its clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from ser_bench.config import Config, CrnnConfig, LogMelConfig, model_config
from ser_bench.errors import ConfigError
from ser_bench.features import log_mel
from ser_bench.predictors.cnn.cnn import Cnn
from ser_bench.predictors.crnn.crnn_network import Crnn
from ser_bench.training.recipe import Recipe
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import CLEAN, FloatArray, Row


class CrnnPredictor(Cnn):
    """The network as a predictor: everything but features, network and recipe is that of `Cnn`."""

    name: ClassVar[str] = "crnn"
    groups: ClassVar[tuple[str, ...]] = ("model", "trainer")
    _model_cfg: Any

    @classmethod
    def input_shape(cls, cfg: Config) -> tuple[int, ...]:
        """(T, B) of one clip."""
        settings = model_config(cfg, CrnnConfig).log_mel
        return log_mel.frames(settings), settings.bands

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """As `Cnn.fit`, on the clean ones of `train`.

        Raises:
            ConfigError: none is.
        """
        clean = [row for row in train if row.variant == CLEAN]
        if not clean:
            raise ConfigError("model=crnn learns from clean rows, and no training row is: see augment.variants")
        return super().fit(clean, val, test)

    def torch_module(self) -> tuple[nn.Module, FloatArray]:
        """(module from log-mel [N, T, B] in dB to probabilities [N, C], an input example of two clips).

        The example is the mean of every band at all times, and that plus one standard deviation.
        """
        module, bands = super().torch_module()
        frames = log_mel.frames(self._model_cfg.log_mel)
        return module, np.repeat(bands[:, None, :], frames, axis=1)

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        return self.inputs.log_mel(rows, self._model_cfg.log_mel)

    def _fitted_standardizer(self, features: FloatArray) -> Standardizer:
        """One mean and deviation a band [B], over all frames of all clips."""
        return Standardizer.fit(features.reshape(-1, features.shape[-1]))

    def _new_network(self, width: int) -> nn.Module:
        return Crnn(self._model_cfg, width, len(self.labels))

    def _recipe(self) -> Recipe:
        cfg = self._model_cfg
        return Recipe(cfg.mixup, cfg.label_smoothing, cfg.weight_decay, cosine=True)

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> CrnnConfig:
        return CrnnConfig(**{**described, "log_mel": LogMelConfig(**described["log_mel"])})
