"""`model=cnn` and `model=cnn_text`: the paper's 1D CNN over ZCR, RMS and MFCC, without and with text embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import MISSING

from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.predictors.network_predictor import NetworkPredictor
from ser_bench.predictors.registry import Need, register
from ser_bench.types import FloatArray, Row

if TYPE_CHECKING:
    from torch import nn


@dataclass
class CnnConfig(ModelConfig):
    """The paper's 1D CNN; the widths come from the group `size`."""

    channels: list[int] = MISSING
    """Channels of each block's convolution."""
    hidden: int = MISSING
    """Units of the first dense layer."""
    kernels: list[int] = MISSING
    """Kernel length of each block's convolution."""
    pools: list[int] = MISSING
    """Window of each block's max pooling."""
    pool_stride: int = 2
    """Stride of the max pooling."""
    dropout_after: list[int] = MISSING
    """Blocks, counted from 1, that a dropout follows."""
    dropout: float = 0.2
    """Share of units dropped in training; not given in the seed paper."""
    batch_norm_momentum: float = 0.99
    """Share of the old running mean and variance that a step keeps, as Keras counts it."""


@register("cnn", CnnConfig, groups=("model", "size", "features", "augment", "trainer"), needs=(Need.audio,))
class Cnn(NetworkPredictor):
    """The audio-only CNN."""

    @classmethod
    def input_length(cls, cfg: Config) -> int:
        """Return the length of one feature vector: 2,376 at the paper's settings."""
        from ser_bench.features import paper_features

        return paper_features.length(cfg.features)

    @classmethod
    def untrained_network(cls, cfg: Config, classes: int) -> tuple[nn.Module, tuple[int, ...]]:
        """Return the network for `classes` labels, and the shape of one feature vector."""
        from ser_bench.predictors.cnn.paper_network import PaperCNN

        length = cls.input_length(cfg)
        return PaperCNN.from_config(model_config(cfg, CnnConfig), length, classes), (length,)

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        return self.inputs.spectral(rows)

    def _new_network(self, width: int) -> nn.Module:
        from ser_bench.predictors.cnn.paper_network import PaperCNN

        return PaperCNN.from_config(self._model_cfg, width, len(self.labels))

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> CnnConfig:
        return CnnConfig(**described)


@register(
    "cnn_text",
    CnnConfig,
    groups=("model", "size", "features", "augment", "trainer", "asr", "text"),
    needs=(Need.audio, Need.transcript),
)
class CnnText(Cnn):
    """The CNN with the text embedding appended to its input; the variants of a clip share one transcript."""

    @classmethod
    def input_length(cls, cfg: Config) -> int:
        """Return the length of one feature vector: 2,760 at the paper's settings."""
        return super().input_length(cfg) + cfg.text.dim

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] audio features followed by the text embedding."""
        return np.concatenate([super()._features(rows), self.inputs.text(rows)], axis=1)
