"""The training recipe: mixup, label smoothing, weight decay and learning-rate schedule. The paper uses none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Recipe:
    """How the loss of a batch is computed, and how the optimiser is set up.

    Attributes:
        mixup: parameter α of the distribution Beta(α, α) of mixing weights (Zhang et al. 2018, arXiv 1710.09412);
            0: no mixup.
        label_smoothing: share of a target that is spread over all labels, in [0, 1].
        weight_decay: decoupled weight decay of AdamW; 0: Adam.
        cosine: whether the learning rate falls to 0 along half a cosine over `trainer.max_epochs`.
    """

    mixup: float = 0.0
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    cosine: bool = False

    def step(self, network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, C] and mean loss of one training batch; with mixup, the logits are those of mixed rows."""
        if not self.mixup:
            logits = network(x).float()
            return logits, self._loss(logits, y)
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        share = max(share, 1.0 - share)  # y is the label with the larger share, so that training accuracy has a meaning
        partner = torch.randperm(len(x), device=x.device)
        logits = network(share * x + (1.0 - share) * x[partner]).float()
        return logits, share * self._loss(logits, y) + (1.0 - share) * self._loss(logits, y[partner])

    def optimizer(self, network: nn.Module, learning_rate: float, eps: float, epochs: int) -> Any:
        """Return the optimiser, with its schedule if there is one, as Lightning's `configure_optimizers` does."""
        if self.weight_decay:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                network.parameters(), learning_rate, eps=eps, weight_decay=self.weight_decay
            )
        else:
            optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, eps=eps)
        if not self.cosine:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)}

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


PLAIN = Recipe()
"""The recipe of the paper: cross-entropy, Adam, a constant learning rate."""
