"""The paper's CNN in PyTorch: five blocks Conv1D → ReLU → BatchNorm → MaxPool, then two dense layers, as Keras does it.

Keras and PyTorch differ in five points, and this module follows Keras: 'same' max pooling pads more on the right; a
feature map is flattened time-major; BatchNorm has another epsilon, momentum and running variance; initial weights are
Glorot-uniform; running statistics count as parameters. `tests/oracles/make_keras_oracle.py` compares the two.

Between the blocks a feature map is [N, C, 1, L] with channels varying fastest in memory. PyTorch's image kernels for
that order, above all pooling, take half the time of those for [N, C, L].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_bench.errors import ConfigError

if TYPE_CHECKING:
    from ser_bench.predictors.cnn.cnn import CnnConfig

BATCH_NORM_EPS = 1e-3
"""Keras's default; PyTorch's is 1e-5."""
BATCH_NORM_MOMENTUM = 0.99
"""Share of the old average that a step keeps, as Keras counts it; PyTorch counts the share of the new batch."""


class SameConv(nn.Conv1d):
    """Convolution of [N, C, 1, L] to [N, C', 1, L], zero-padded as Keras's `padding="same"`."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__(before, after, kernel, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the last axis; the result has its channels varying fastest."""
        weight = self.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return functional.conv2d(x, weight, self.bias, padding="same")


class SameMaxPool(nn.Module):
    """Max pooling of [N, C, 1, L] to [N, C, 1, ceil(L / stride)], padded with −inf as Keras's `padding="same"`.

    The padding p = max((ceil(L / stride) − 1) · stride + size − L, 0) is split in floor(p / 2) on the left and the rest
    on the right.
    """

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size = size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Pool the last axis."""
        length = x.shape[-1]
        total = max((-(-length // self.stride) - 1) * self.stride + self.size - length, 0)
        left, right = total // 2, total - total // 2
        if self.stride == 1 and left != right:  # the shortcut below cannot express this one
            padded = functional.pad(x, (left, right), value=float("-inf"))
            return functional.max_pool2d(padded, (1, self.size), (1, self.stride))
        # ceil_mode lets the last window hang over on the right, so that no padded copy of x is made.
        return functional.max_pool2d(x, (1, self.size), (1, self.stride), padding=(0, left), ceil_mode=True)

    def extra_repr(self) -> str:
        """Return the text that `print(module)` shows."""
        return f"size={self.size}, stride={self.stride}"


class KerasBatchNorm(nn.BatchNorm1d):
    """BatchNorm with Keras's epsilon, momentum and running variance.

    Keras averages the population variances of the batches. PyTorch averages sample variances, which are n / (n − 1)
    times as large: 3 % more after a dense layer with batches of 32.
    """

    def __init__(self, width: int, momentum: float) -> None:
        # Keras counts the share of the old statistic, PyTorch that of the new one.
        super().__init__(width, eps=BATCH_NORM_EPS, momentum=1 - momentum)
        self.momentum_kept = momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of [N, C] or [N, C, 1, L]."""
        if not self.training or self.running_var is None:
            return super().forward(x)
        n = x.numel() // x.shape[1]
        old = self.running_var * self.momentum_kept
        out = super().forward(x)
        # A new tensor, because autograd holds on to the one that the forward pass was given.
        self.running_var = old + (self.running_var - old) * ((n - 1) / n)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept four axes, which BatchNorm1d refuses."""


class FlattenTimeMajor(nn.Module):
    """[N, C, 1, L] to [N, L · C] with channels varying fastest, as Keras flattens [N, L, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but the first axis."""
        return x.permute(0, 2, 3, 1).flatten(1)


class PaperCNN(nn.Module):
    """Conv1D → ReLU → BatchNorm → MaxPool blocks, then Dense + ReLU → BatchNorm → Dense.

    Args:
        inputs: length of one feature vector, read as a signal with one channel.
        classes: number of labels.
        channels: channels of each block's convolution.
        hidden: width of the first dense layer.
        kernels: kernel length of each block's convolution.
        pools: window of each block's pooling.
        pool_stride: step of every pooling.
        dropout_after: blocks, counted from 1, that a dropout follows.
        dropout: probability that a dropout drops.
        batch_norm_momentum: share of the old running statistics that a step keeps.

    Raises:
        ConfigError: the lists do not describe a network.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        channels: Sequence[int],
        hidden: int,
        kernels: Sequence[int],
        pools: Sequence[int],
        pool_stride: int = 2,
        dropout_after: Sequence[int] = (),
        dropout: float = 0.0,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        _check(channels, kernels, pools, dropout_after)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        length = inputs
        shapes = zip(pairwise([1, *channels]), kernels, pools, strict=True)
        for block, ((before, after), kernel, pool) in enumerate(shapes, start=1):
            layers[f"conv{block}"] = SameConv(before, after, kernel)
            layers[f"relu{block}"] = nn.ReLU()
            layers[f"norm{block}"] = KerasBatchNorm(after, batch_norm_momentum)
            layers[f"pool{block}"] = SameMaxPool(pool, pool_stride)
            if block in dropout_after:
                layers[f"dropout{block}"] = nn.Dropout(dropout)
            length = -(-length // pool_stride)
        layers["flatten"] = FlattenTimeMajor()
        layers["dense1"] = nn.Linear(length * channels[-1], hidden)
        layers["relu_dense1"] = nn.ReLU()
        layers["norm_dense1"] = KerasBatchNorm(hidden, batch_norm_momentum)
        layers["dense2"] = nn.Linear(hidden, classes)
        self.layers = nn.Sequential(layers)
        self.apply(_initialise)

    @classmethod
    def from_config(cls, cfg: CnnConfig, inputs: int, classes: int) -> PaperCNN:
        """Return the network that the configuration of `cnn` or `cnn_text` describes."""
        return cls(
            inputs=inputs,
            classes=classes,
            channels=cfg.channels,
            hidden=cfg.hidden,
            kernels=cfg.kernels,
            pools=cfg.pools,
            pool_stride=cfg.pool_stride,
            dropout_after=cfg.dropout_after,
            dropout=cfg.dropout,
            batch_norm_momentum=cfg.batch_norm_momentum,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature vectors [N, inputs] to logits [N, classes]."""
        n, length = x.shape
        # With one channel both orders are the same memory; only these strides tell the kernels which one is meant.
        channels_last = x.contiguous().as_strided((n, 1, 1, length), (length, 1, length, 1))
        logits: Tensor = self.layers(channels_last)
        return logits


def _initialise(module: nn.Module) -> None:
    """Keras's defaults: Glorot-uniform kernels, zero biases."""
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(channels: Sequence[int], kernels: Sequence[int], pools: Sequence[int], dropout_after: Sequence[int]) -> None:
    if not channels or not len(channels) == len(kernels) == len(pools):
        raise ConfigError(
            f"model.channels, model.kernels and model.pools need one number a block, but have {len(channels)}, "
            f"{len(kernels)} and {len(pools)}; give lists of equal length"
        )
    if any(not 1 <= block <= len(channels) for block in dropout_after):
        raise ConfigError(f"model.dropout_after={list(dropout_after)} names a block outside 1 to {len(channels)}")
