"""PyTorch modules and counts that every network shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ser_bench.types import FloatArray


class FeaturesToProbabilities(nn.Module):
    """A trained network between its standardisation and a softmax: raw features in, probabilities out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: FloatArray, std: FloatArray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.from_numpy(np.array(mean)))
        self.register_buffer("std", torch.from_numpy(np.array(std)))

    def forward(self, features: Tensor) -> Tensor:
        """Map raw features [N, …] to probabilities [N, C]."""
        logits = self.network((features - self.mean) / self.std)
        return torch.softmax(logits.float(), dim=1)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return (total, trainable) as Keras counts: running means and variances are parameters, batch counters are not."""
    trainable = sum(parameter.numel() for parameter in module.parameters())
    running = sum(b.numel() for name, b in module.named_buffers() if not name.endswith("num_batches_tracked"))
    return trainable + running, trainable
