"""What a network's training does beyond cross-entropy and a constant learning rate; the paper's does none of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Recipe:
    """How a batch becomes a loss, and how steps become smaller.

    Attributes:
        mixup: parameters of the Beta distribution of mixing weights (Zhang et al. 2018, arXiv 1710.09412); 0: off.
        label_smoothing: share of a target that is spread over all labels.
        weight_decay: decoupled, as AdamW has it; 0: Adam.
        cosine: the learning rate falls to 0 along half a cosine over `trainer.max_epochs`.
    """

    mixup: float = 0.0
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    cosine: bool = False

    def step(self, network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [N, C], mean loss) of one training batch; the logits of a mixed batch are those of the mixture."""
        if not self.mixup:
            logits = network(x).float()
            return logits, self._loss(logits, y)
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        share = max(share, 1.0 - share)  # so that y is the larger part, and training accuracy means something
        other = torch.randperm(len(x), device=x.device)
        logits = network(share * x + (1.0 - share) * x[other]).float()
        return logits, share * self._loss(logits, y) + (1.0 - share) * self._loss(logits, y[other])

    def optimizer(self, network: nn.Module, learning_rate: float, eps: float, epochs: int) -> Any:
        """What Lightning's `configure_optimizers` returns."""
        if self.weight_decay:
            made: torch.optim.Optimizer = torch.optim.AdamW(
                network.parameters(), learning_rate, eps=eps, weight_decay=self.weight_decay
            )
        else:
            made = torch.optim.Adam(network.parameters(), lr=learning_rate, eps=eps)
        if not self.cosine:
            return made
        return {"optimizer": made, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(made, epochs)}

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


PLAIN = Recipe()
"""The paper's: cross-entropy, Adam, a constant learning rate."""
