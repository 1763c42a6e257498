"""Weights of the layers of an encoder: given by the configuration, or fitted to training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import ConfigError
from ser_bench.predictors.embeddings.ssl_probe import Mix, SslProbeConfig
from ser_bench.types import FloatArray

STEPS = 200
LEARNING_RATE = 0.05
WEIGHT_DECAY = 1e-2

Array = npt.NDArray[np.float64]


def fixed(cfg: SslProbeConfig, layers: int) -> Array | None:
    """Return the weights [layers] that the configuration gives; None where they are learnt.

    Raises:
        ConfigError: `model.layers` is not last, all, or the index of a layer of the encoder.

    >>> fixed(SslProbeConfig(layers="last"), 3), fixed(SslProbeConfig(layers="1"), 3)
    (array([0., 0., 1.]), array([0., 1., 0.]))
    """
    if cfg.layers == "all":
        return None if cfg.mix is Mix.learnt else np.full(layers, 1 / layers)
    number = layers - 1 if cfg.layers == "last" else int(cfg.layers) if cfg.layers.isdecimal() else -1
    if not 0 <= number < layers:
        raise ConfigError(f"model.layers={cfg.layers}: use last, all, or a number from 0 to {layers - 1}")
    weights: Array = np.eye(layers)[number]
    return weights


def learnt(pooled: FloatArray, targets: npt.NDArray[np.int64], classes: int) -> Array:
    """Return positive weights [layers], fitted together with a linear classifier over the weighted sum.

    s = softmax(a); logits = W · Σ_l s_l x_l / d_l + b, where d_l is the root mean square
    spread of layer l over the rows, so that the scale of a layer does not decide its weight. The loss is the mean
    cross-entropy, the optimiser Adam with weight decay of W.
    Source: SUPERB's weighted sum (Yang et al. 2021, arXiv 2105.01051), here over pooled states instead of frames.

    Args:
        pooled: pooled states [N, layers, D] of training rows.
        targets: label indices [N].
        classes: number of labels.

    Returns:
        s_l / d_l, the factors of the pooled states.
    """
    import torch

    spread = pooled.std(axis=0, dtype=np.float64)
    scale = np.maximum(np.sqrt(np.square(spread).mean(axis=-1)), 1e-12)
    centred = (pooled - pooled.mean(axis=0, dtype=np.float64)) / scale[:, None]
    rows, labels = torch.from_numpy(centred.astype(np.float32)), torch.from_numpy(targets)
    raw = torch.zeros(len(scale), requires_grad=True)
    weights = torch.zeros(classes, pooled.shape[-1], requires_grad=True)
    biases = torch.zeros(classes, requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [raw, biases]}, {"params": [weights], "weight_decay": WEIGHT_DECAY}]
    optimiser = torch.optim.Adam(groups, lr=LEARNING_RATE)
    for _ in range(STEPS):
        mixed = torch.einsum("l,nld->nd", raw.softmax(0), rows)
        loss = torch.nn.functional.cross_entropy(mixed @ weights.T + biases, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weighted: Array = raw.detach().softmax(0).numpy().astype(np.float64) / scale
    return weighted
