"""`model=crnn`: a small network over log-mel spectrograms, trained from scratch with usual present-day methods.

It reads clean clips only. Masking and mixing vary the training clips more than the paper's variants do. Under
`split=paper` a variant gets the prediction of its clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import MISSING

from ser_bench.config import Config, LogMelConfig, ModelConfig, model_config
from ser_bench.errors import ConfigError
from ser_bench.predictors.network_predictor import NetworkPredictor
from ser_bench.predictors.registry import Need, register
from ser_bench.types import CLEAN, FloatArray, Row

if TYPE_CHECKING:
    from torch import nn

    from ser_bench.training.recipe import Recipe
    from ser_bench.training.standardizer import Standardizer


@dataclass
class CrnnConfig(ModelConfig):
    """Convolutions, a GRU and attentive pooling over a log-mel spectrogram."""

    channels: list[int] = MISSING
    """Channels of each 3 × 3 convolution. Each halves the bands, and the first three halve the frames."""
    recurrent: int = 96
    """Units of the GRU in each direction."""
    attention: int = 64
    """Hidden units of the network that weights frames."""
    conv_dropout: float = 0.1
    """Probability that a whole feature map is dropped."""
    dropout: float = 0.4
    """Probability that a pooled number is dropped."""
    time_masks: int = 2
    """Masked stretches of time per training clip."""
    time_mask_frames: int = 24
    """Longest such stretch, frames."""
    band_masks: int = 2
    """Masked stretches of bands per training clip."""
    band_mask_width: int = 8
    """Widest such stretch, bands."""
    mixup: float = 0.3
    """Parameters of the Beta distribution of mixing weights; 0: clips are not mixed."""
    label_smoothing: float = 0.1
    """Share of a training target that is spread over all labels."""
    weight_decay: float = 1e-3
    """Decoupled from the gradient, as in AdamW."""
    log_mel: LogMelConfig = field(default_factory=LogMelConfig)


@register("crnn", CrnnConfig, groups=("model", "trainer"), needs=(Need.audio,))
class Crnn(NetworkPredictor):
    """The network over log-mel spectrograms [T, B] of clean clips."""

    @classmethod
    def untrained_network(cls, cfg: Config, classes: int) -> tuple[nn.Module, tuple[int, ...]]:
        """Return the network for `classes` labels, and the shape (T, B) of one clip."""
        from ser_bench.features import log_mel
        from ser_bench.predictors.crnn.crnn_network import CrnnNetwork

        model = model_config(cfg, CrnnConfig)
        shape = log_mel.frames(model.log_mel), model.log_mel.bands
        return CrnnNetwork(model, shape[1], classes), shape

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Train as every network, on the clean rows of `train`.

        Raises:
            ConfigError: there is no clean row.
        """
        clean = [row for row in train if row.variant == CLEAN]
        if not clean:
            raise ConfigError("model=crnn is trained on clean rows, and there are none: see augment.variants")
        return super().fit(clean, val, test)

    def torch_module(self) -> tuple[nn.Module, FloatArray]:
        """Return the module from log-mel [N, T, B] in dB to probabilities [N, C], and an input example of two clips.

        The example is the mean of every band at all times, and that plus one standard deviation.
        """
        from ser_bench.features import log_mel

        module, bands = super().torch_module()
        return module, np.repeat(bands[:, None, :], log_mel.frames(self._model_cfg.log_mel), axis=1)

    def scaler_inputs(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N · T, B]: one mean and standard deviation per band serve all frames."""
        features = self._features(rows)
        return features.reshape(-1, features.shape[-1])

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        return self.inputs.log_mel(rows, self._model_cfg.log_mel)

    def _fitted_standardizer(self, features: FloatArray) -> Standardizer:
        from ser_bench.training.standardizer import Standardizer

        return Standardizer.fit(features.reshape(-1, features.shape[-1]))

    def _new_network(self, width: int) -> nn.Module:
        from ser_bench.predictors.crnn.crnn_network import CrnnNetwork

        return CrnnNetwork(self._model_cfg, width, len(self.labels))

    def _recipe(self) -> Recipe:
        from ser_bench.training.recipe import Recipe

        cfg = self._model_cfg
        return Recipe(cfg.mixup, cfg.label_smoothing, cfg.weight_decay, cosine=True)

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> CrnnConfig:
        return CrnnConfig(**{**described, "log_mel": LogMelConfig(**described["log_mel"])})
