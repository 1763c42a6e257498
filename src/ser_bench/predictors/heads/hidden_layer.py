"""One hidden layer with dropout, mixup and label smoothing; networks of several seeds are averaged.

AdamW with a cosine schedule over a fixed number of epochs: nothing is stopped early, so validation rows choose nothing
here. Mixup: Zhang et al. 2018, arXiv 1710.09412. Trained by PyTorch; the answers are two matrix products in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import Array, Labelled, Member, softmax

if TYPE_CHECKING:
    import torch

NAMES = ("hidden_weights", "hidden_biases", "out_weights", "out_biases")


class Mlp(Member):
    """D → `head.hidden` → C, rectified."""

    _arrays: Mapping[str, Array]

    def fit(self, train: Labelled, val: Labelled) -> dict[str, float]:
        """Fit on training rows; validation rows are not used."""
        self.refit(train)
        return {}

    def refit(self, train: Labelled) -> None:
        """One network a seed."""
        trained = [self._network(train, self._seed * 1000 + number) for number in range(self._cfg.seeds)]
        self._arrays = {name: np.stack([one[name] for one in trained]) for name in NAMES}
        known = train.y if train.shares is None else np.flatnonzero(train.shares.any(axis=0))
        absent = np.setdiff1d(np.arange(self._classes), known)
        self._arrays["out_biases"][:, absent] = -np.inf  # a label without training rows has probability 0

    def predict_proba(self, x: Array) -> Array:
        """[N, C], the mean over the networks."""
        shares = []
        for first, offset, second, last in zip(*(self._arrays[name] for name in NAMES), strict=True):
            hidden = np.maximum(x @ first.astype(np.float64).T + offset, 0.0)
            shares.append(softmax(hidden @ second.astype(np.float64).T + last))
        mean: Array = np.mean(shares, axis=0)
        return mean

    def arrays(self) -> dict[str, Array]:
        """Weights [S, H, D], [S, C, H] and biases [S, H], [S, C] of S networks, float32."""
        return dict(self._arrays)

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """From `arrays`."""
        member = cls(HeadConfig(), classes, 0)
        member._arrays = {name: arrays[name] for name in NAMES}
        return member

    def _network(self, train: Labelled, seed: int) -> dict[str, Array]:
        """Weights and biases of one trained network, by `NAMES`."""
        import torch

        with torch.random.fork_rng(devices=[]):  # whoever draws after us draws what they would have drawn
            torch.manual_seed(seed)
            x = torch.from_numpy(train.x.astype(np.float32))
            targets = torch.nn.functional.one_hot(torch.from_numpy(train.y), self._classes).float()
            if train.shares is not None:
                targets = torch.from_numpy(train.shares.astype(np.float32))
            smoothing = self._cfg.label_smoothing
            network = self._train(x, targets * (1 - smoothing) + smoothing / self._classes)
        parameters = [parameter.detach().numpy() for parameter in network.parameters()]
        return dict(zip(NAMES, parameters, strict=True))

    def _train(self, x: torch.Tensor, targets: torch.Tensor) -> torch.nn.Sequential:
        import torch

        from ser_bench.training import fixed_epochs

        cfg, nn = self._cfg, torch.nn
        network = nn.Sequential(
            nn.Dropout(cfg.input_dropout),
            nn.Linear(x.shape[1], cfg.hidden),
            nn.ReLU(),
            nn.Dropout(cfg.dropout),
            nn.Linear(cfg.hidden, self._classes),
        )
        beta = torch.distributions.Beta(cfg.mixup, cfg.mixup) if cfg.mixup > 0 else None

        def loss_of(batch: torch.Tensor) -> torch.Tensor:
            inputs, wanted = x[batch], targets[batch]
            if beta is not None:
                other, share = torch.randperm(len(batch)), beta.sample((len(batch), 1))
                inputs = share * inputs + (1 - share) * inputs[other]
                wanted = share * wanted + (1 - share) * wanted[other]
            return nn.functional.cross_entropy(network(inputs), wanted)

        fixed_epochs.train(network, len(x), cfg, loss_of)
        return network
