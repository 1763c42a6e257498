"""The check of every training for divergence: losses and weights that are not finite stop it in the same epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ser_bench.errors import SerBenchError


@dataclass(frozen=True)
class DivergenceCheck:
    """Raises where a loss or a weight is infinite or not a number.

    Attributes:
        key: configuration key of the learning rate.
        learning_rate: its value.
        remedy: what else may help, after "or"; "" for nothing else.
    """

    key: str
    learning_rate: float
    remedy: str = ""

    def loss(self, value: float, part: str, epoch: int) -> None:
        """Check the loss of a batch or of a part in an epoch, counted from 1.

        Raises:
            SerBenchError: it is not finite.
        """
        if not math.isfinite(value):
            self._stop(f"the {part} loss became {value}", epoch)

    def weights(self, network: nn.Module, epoch: int) -> None:
        """Check all parameters and buffers at the end of an epoch, counted from 1.

        The loss of a batch is computed before its step, so the weights can be lost although every loss is finite.

        Raises:
            SerBenchError: one is not finite.
        """
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                self._stop(f"the weights {name} are not finite any more", epoch)

    def _stop(self, what: str, epoch: int) -> None:
        other = f", or {self.remedy}" if self.remedy else ""
        raise SerBenchError(f"{what} in epoch {epoch}; lower {self.key} (now {self.learning_rate:g}){other}")
