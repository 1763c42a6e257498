"""The paper's five Conv1D blocks in PyTorch, with the semantics that Keras gives the same table.

What differs between the two frameworks and is settled here: 'same' max pooling, which pads more on the right; the
order in which a flattened feature map meets the first dense layer (time-major); BatchNorm's epsilon, momentum and
running variance; the initial weights; what counts as a parameter. The proof is `tests/oracles/make_keras_oracle.py`.

Between the blocks a feature map is [N, C, 1, L] with channels varying fastest in memory: PyTorch's kernels for images
in that order, pooling above all, take half the time of those for [N, C, L].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_bench.config import CnnConfig
from ser_bench.errors import ConfigError
from ser_bench.types import FloatArray

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
        """What `print(module)` shows."""
        return f"size={self.size}, stride={self.stride}"


class KerasBatchNorm(nn.BatchNorm1d):
    """BatchNorm with Keras's epsilon and momentum, whose running variance averages the batches' population variances.

    PyTorch averages sample variances, n / (n − 1) times as large: 3 % more after a dense layer with batches of 32.
    """

    def __init__(self, width: int, momentum: float) -> None:
        # Keras counts the share of the old statistic, PyTorch that of the new one.
        super().__init__(width, eps=BATCH_NORM_EPS, momentum=1 - momentum)
        self.kept = momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of [N, C] or [N, C, 1, L]."""
        if not self.training or self.running_var is None:
            return super().forward(x)
        n = x.numel() // x.shape[1]
        kept = self.running_var * self.kept
        out = super().forward(x)
        # A new tensor, because autograd holds on to the one that the forward pass was given.
        self.running_var = kept + (self.running_var - kept) * ((n - 1) / n)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """BatchNorm1d would refuse four axes."""


class FlattenTimeMajor(nn.Module):
    """[N, C, 1, L] to [N, L · C] with channels varying fastest, as Keras flattens [N, L, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but the first axis."""
        return x.permute(0, 2, 3, 1).flatten(1)


class PaperCNN(nn.Module):
    """Conv1D → ReLU → BatchNorm → MaxPool blocks, then Dense + ReLU → BatchNorm → Dense.

    Args:
        inputs: length of one feature vector, which is read as a signal of one channel.
        classes: how many labels.
        channels: channels of each block's convolution.
        hidden: width of the first dense layer.
        kernels: kernel length of each block's convolution.
        pools: window of each block's pooling.
        pool_stride: step of every pooling.
        dropout_after: blocks, counted from 1, that a dropout follows.
        dropout: probability that a dropout drops.
        batch_norm_momentum: share of the old running statistics that a step keeps.

    Raises:
        ConfigError: the lists do not describe one network.
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
        """The network that `model=cnn` or `model=cnn_text` describes."""
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


class FeaturesToProbabilities(nn.Module):
    """A trained network with its standardisation in front and a softmax behind: raw features in, probabilities out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: FloatArray, std: FloatArray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.from_numpy(np.array(mean)))
        self.register_buffer("std", torch.from_numpy(np.array(std)))

    def forward(self, features: Tensor) -> Tensor:
        """Raw features [N, inputs] to probabilities [N, classes]."""
        logits = self.network((features - self.mean) / self.std)
        return torch.softmax(logits.float(), dim=1)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(total, trainable) as Keras counts: running means and variances are parameters, batch counters are not."""
    trainable = sum(parameter.numel() for parameter in module.parameters())
    running = sum(b.numel() for name, b in module.named_buffers() if not name.endswith("num_batches_tracked"))
    return trainable + running, trainable


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
