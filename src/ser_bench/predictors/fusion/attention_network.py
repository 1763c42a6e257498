"""Training of the attention that `attention.py` answers with: one network a seed, by PyTorch.

AdamW with a cosine schedule over a fixed number of epochs: nothing is stopped early, so nothing is chosen by other rows
than those trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ser_bench.config import FusionConfig
from ser_bench.predictors.heads.classifier import Labels
from ser_bench.training import fixed_epochs
from ser_bench.types import FloatArray


class AttentionNetwork(nn.Module):
    """Standardised vectors of M members, [N, D_m] each, to scores [N, C]; the formula is that of `attention.py`.

    W_m is kept as √D_m · W_m. An optimiser that moves every number alike would else turn the sum over 7,000 columns a
    hundred times as fast as the sum over 88, and drive the tanh of the longer vector to its ends in a few steps.

    Args:
        widths: D_m of each member.
        cfg: `width`, `dropout` and `member_dropout`.
        classes: C.
    """

    def __init__(self, widths: Sequence[int], cfg: FusionConfig, classes: int) -> None:
        super().__init__()
        # Uniform within ±1 here is uniform within ±1/√D in W: PyTorch's own start of a linear layer.
        self.weights = nn.ParameterList([torch.empty(cfg.width, width).uniform_(-1, 1) for width in widths])
        self.biases = nn.Parameter(torch.zeros(len(widths), cfg.width))
        self.query = nn.Parameter(torch.zeros(cfg.width))
        """0: attention starts as the plain mean of the members."""
        self.out = nn.Linear(cfg.width, classes)
        self.dropout = nn.Dropout(cfg.dropout)
        self.member_dropout = cfg.member_dropout

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """M tensors [N, D_m] to [N, C]."""
        projected = [
            part @ weights.T / math.sqrt(part.shape[1]) for part, weights in zip(vectors, self.weights, strict=True)
        ]
        hidden = torch.tanh(torch.stack(projected, dim=1) + self.biases)
        scores = hidden @ self.query
        if self.training and self.member_dropout > 0:
            scores = scores.masked_fill(self._left_out(*scores.shape), -math.inf)
        shares = torch.softmax(scores, dim=1)
        mixed = torch.einsum("nm,nmh->nh", shares, self.dropout(hidden))
        scored: Tensor = self.out(mixed)
        return scored

    def _left_out(self, rows: int, members: int) -> Tensor:
        """[N, M] bool: the members that a row goes without, drawn anew for every row; one at least stays."""
        out = torch.rand(rows, members) < self.member_dropout
        empty = out.all(dim=1)
        out[empty, torch.randint(members, (int(empty.sum()),))] = False
        return out

    def arrays(self) -> dict[str, FloatArray]:
        """`weights_<m>` [H, D_m], `biases` [M, H], `query` [H], `out_weights` [C, H], `out_biases` [C]."""
        found = {f"weights_{m}": w / math.sqrt(w.shape[1]) for m, w in enumerate(self.weights)}
        found |= {"biases": self.biases, "query": self.query}
        found |= {"out_weights": self.out.weight, "out_biases": self.out.bias}
        return {name: value.detach().numpy() for name, value in found.items()}


def trained(
    vectors: Sequence[FloatArray], truth: Labels, classes: int, cfg: FusionConfig, seed: int
) -> Mapping[str, FloatArray]:
    """`AttentionNetwork.arrays` of one network trained on M standardised vectors [N, D_m] and truth [N]."""
    with torch.random.fork_rng(devices=[]):  # whoever draws after us draws what they would have drawn
        torch.manual_seed(seed)
        network = AttentionNetwork([part.shape[1] for part in vectors], cfg, classes)
        _train(network, [torch.from_numpy(np.ascontiguousarray(part)) for part in vectors], truth, cfg)
    return network.arrays()


def _train(network: AttentionNetwork, vectors: Sequence[Tensor], truth: Labels, cfg: FusionConfig) -> None:
    targets = torch.from_numpy(truth)

    def loss_of(batch: Tensor) -> Tensor:
        scores = network([part[batch] for part in vectors])
        return nn.functional.cross_entropy(scores, targets[batch], label_smoothing=cfg.label_smoothing)

    fixed_epochs.train(network, len(truth), cfg, loss_of)
