"""`model=mlp`: one hidden layer over the paper's feature vector.

It shows what a protocol is worth. Where augmented variants of test clips are in training, memorising the training rows
is enough, and this network memorises them better than the paper's deep network after few epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.predictors.network_predictor import NetworkPredictor
from ser_bench.predictors.registry import Need, register
from ser_bench.types import FloatArray, Row

if TYPE_CHECKING:
    from torch import nn


@dataclass
class MlpConfig(ModelConfig):
    """One hidden layer over the paper's feature vector."""

    name: str = "mlp"
    hidden: int = 512
    """Units of the hidden layer."""


@register("mlp", MlpConfig, groups=("model", "features", "augment", "trainer"), needs=(Need.audio,))
class Mlp(NetworkPredictor):
    """Dense → ReLU → Dense over the standardised vector."""

    @classmethod
    def untrained_network(cls, cfg: Config, classes: int) -> tuple[nn.Module, tuple[int, ...]]:
        """Return the network for `classes` labels, and the shape of one feature vector."""
        from ser_bench.features import paper_features

        length = paper_features.length(cfg.features)
        return _network(length, model_config(cfg, MlpConfig).hidden, classes), (length,)

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        return self.inputs.spectral(rows)

    def _new_network(self, width: int) -> nn.Module:
        return _network(width, self._model_cfg.hidden, len(self.labels))

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> MlpConfig:
        return MlpConfig(**described)


def _network(inputs: int, hidden: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
