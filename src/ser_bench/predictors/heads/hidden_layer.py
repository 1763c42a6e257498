"""`head=mlp`: networks with one hidden layer, dropout, mixup and label smoothing, averaged over several seeds.

They are trained by PyTorch with AdamW and a cosine schedule for a fixed number of epochs. There is no early stopping,
so validation rows choose nothing. Predictions are two matrix products in NumPy. Mixup: Zhang et al. 2018,
arXiv 1710.09412.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.predictors.heads.classifier import HeadClassifier, LabelledVectors
from ser_bench.predictors.probabilities import Array, softmax

if TYPE_CHECKING:
    import torch

ARRAY_NAMES = ("hidden_weights", "hidden_biases", "out_weights", "out_biases")


class HiddenLayerClassifier(HeadClassifier):
    """D inputs → `head.hidden` units with ReLU → C scores, softmax; the mean over `head.seeds` networks."""

    _arrays: Mapping[str, Array]

    def fit(self, train: LabelledVectors, val: LabelledVectors) -> dict[str, float]:
        """Fit on training rows; validation rows are not used."""
        self.refit(train)
        return {}

    def refit(self, train: LabelledVectors) -> None:
        """Train one network per seed."""
        networks = [self._trained_arrays(train, self._seed * 1000 + number) for number in range(self._cfg.seeds)]
        self._arrays = {name: np.stack([network[name] for network in networks]) for name in ARRAY_NAMES}
        present = train.y if train.shares is None else np.flatnonzero(train.shares.any(axis=0))
        absent = np.setdiff1d(np.arange(self._classes), present)
        self._arrays["out_biases"][:, absent] = -np.inf  # a label without training rows has probability 0

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C], the mean over the networks."""
        by_network = []
        for weights, biases, out_weights, out_biases in zip(*(self._arrays[n] for n in ARRAY_NAMES), strict=True):
            hidden = np.maximum(x @ weights.astype(np.float64).T + biases, 0.0)
            by_network.append(softmax(hidden @ out_weights.astype(np.float64).T + out_biases))
        mean: Array = np.mean(by_network, axis=0)
        return mean

    def arrays(self) -> dict[str, Array]:
        """Return weights [S, H, D], [S, C, H] and biases [S, H], [S, C] of S networks with H hidden units, float32."""
        return dict(self._arrays)

    @classmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """Return the classifier with these arrays."""
        classifier = cls(HeadConfig(), classes, 0)
        classifier._arrays = {name: arrays[name] for name in ARRAY_NAMES}
        return classifier

    def _trained_arrays(self, train: LabelledVectors, seed: int) -> dict[str, Array]:
        """Return weights and biases of one trained network, by `ARRAY_NAMES`."""
        import torch

        # The global random state is restored afterwards: training a head does not change later random numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            x = torch.from_numpy(train.x.astype(np.float32))
            targets = torch.nn.functional.one_hot(torch.from_numpy(train.y), self._classes).float()
            if train.shares is not None:
                targets = torch.from_numpy(train.shares.astype(np.float32))
            smoothing = self._cfg.label_smoothing
            network = self._trained_network(x, targets * (1 - smoothing) + smoothing / self._classes)
        parameters = [parameter.detach().numpy() for parameter in network.parameters()]
        return dict(zip(ARRAY_NAMES, parameters, strict=True))

    def _trained_network(self, x: torch.Tensor, targets: torch.Tensor) -> torch.nn.Sequential:
        """Return a network trained on vectors [N, D] and soft targets [N, C]."""
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
            inputs, soft_labels = x[batch], targets[batch]
            if beta is not None:
                partner, share = torch.randperm(len(batch)), beta.sample((len(batch), 1))
                inputs = share * inputs + (1 - share) * inputs[partner]
                soft_labels = share * soft_labels + (1 - share) * soft_labels[partner]
            return nn.functional.cross_entropy(network(inputs), soft_labels)

        fixed_epochs.train(network, len(x), cfg, loss_of, "head.learning_rate")
        return network
