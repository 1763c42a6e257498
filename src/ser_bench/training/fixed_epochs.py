"""Training of a light network on rows in memory, for a fixed number of epochs, with AdamW and a cosine schedule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ser_bench.config import FixedEpochsConfig
from ser_bench.training.divergence import DivergenceCheck


def train(network: nn.Module, rows: int, cfg: FixedEpochsConfig, loss_of: Callable[[Tensor], Tensor], key: str) -> None:
    """Train `network` in place; the order of the rows comes from PyTorch's global random state.

    Args:
        network: the network; all its parameters are trained.
        rows: number of training rows.
        cfg: epochs, batch size, learning rate at the start, weight decay.
        loss_of: function of row indices [B] of one batch that returns their mean loss.
        key: configuration key of the learning rate, for the message.

    Raises:
        SerBenchError: a loss or a weight is not finite.
    """
    check = DivergenceCheck(key, cfg.learning_rate)
    optimiser = torch.optim.AdamW(network.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    steps = -(-rows // cfg.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.epochs * steps)
    for epoch in range(1, cfg.epochs + 1):
        for batch in torch.split(torch.randperm(rows), cfg.batch_size):
            loss = loss_of(batch)
            check.loss(float(loss.detach()), "training", epoch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        check.weights(network, epoch)
