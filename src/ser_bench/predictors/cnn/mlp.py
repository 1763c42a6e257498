"""`model=mlp`: one hidden layer over the paper's features, the simplest network that can remember its training rows.

A control. It shows what a protocol is worth: where a row's siblings are in training it only has to remember, which it
does better than a deep network of the paper's table that was trained briefly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ser_bench.config import MlpConfig
from ser_bench.predictors.cnn.cnn import Cnn


class Mlp(Cnn):
    """Dense → ReLU → Dense over the standardised vector; all else is that of `Cnn`."""

    name: ClassVar[str] = "mlp"
    groups: ClassVar[tuple[str, ...]] = ("model", "features", "augment", "trainer")

    def _new_network(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, self._model_cfg.hidden),
            nn.ReLU(),
            nn.Linear(self._model_cfg.hidden, len(self.labels)),
        )

    @staticmethod
    def _stored_settings(described: Mapping[str, Any]) -> MlpConfig:
        return MlpConfig(**described)
