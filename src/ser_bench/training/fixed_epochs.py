"""Training of a light network over vectors in memory: AdamW on a cosine, a fixed number of epochs, no early stop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ser_bench.config import FixedEpochsConfig


def train(network: nn.Module, rows: int, cfg: FixedEpochsConfig, loss_of: Callable[[Tensor], Tensor]) -> None:
    """Train `network` in place.

    Args:
        network: whose parameters are trained.
        rows: how many rows there are.
        cfg: epochs, rows in a step, learning rate, weight decay.
        loss_of: places [B] of one batch's rows → its mean loss.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    steps = -(-rows // cfg.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.epochs * steps)
    for _ in range(cfg.epochs):
        for batch in torch.split(torch.randperm(rows), cfg.batch_size):
            loss = loss_of(batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
