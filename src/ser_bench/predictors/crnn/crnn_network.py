"""The network of `model=crnn`: log-mel → SpecAugment → convolutions → bidirectional GRU → attentive pooling → dense.

Convolutions with batch normalisation halve both axes step by step. A bidirectional GRU reads the result in time
order. Attentive statistics pooling (Okabe, Koshinaka & Shinoda 2018, doi:10.21437/Interspeech.2018-993) computes the
weighted mean and standard deviation over frames. In training, SpecAugment (Park et al. 2019,
doi:10.21437/Interspeech.2019-2680) masks stretches of time and bands.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ser_bench.errors import ConfigError

if TYPE_CHECKING:
    from ser_bench.predictors.crnn.crnn import CrnnConfig

FREQUENCY_STRIDE = 2
TIME_STRIDES = (2, 2, 2)
"""Strides of the first blocks in time; later blocks keep every frame. The result has one frame per 8 hops of 16 ms."""
SMALLEST_VARIANCE = 1e-6


class SpecAugment(nn.Module):
    """Set stretches of a standardised [N, T, B] spectrogram to 0, which is its mean; in training only.

    Args:
        times: number of masked stretches of time per clip.
        time_frames: longest such stretch, frames.
        bands: number of masked stretches of bands per clip.
        band_width: widest such stretch, bands.
    """

    def __init__(self, times: int, time_frames: int, bands: int, band_width: int) -> None:
        super().__init__()
        self.times, self.time_frames = times, time_frames
        self.bands, self.band_width = bands, band_width

    def forward(self, x: Tensor) -> Tensor:
        """Mask [N, T, B]; the shape stays."""
        if not self.training:
            return x
        for _ in range(self.times):
            x = x.masked_fill(_stretch(len(x), x.shape[1], self.time_frames, x.device)[:, :, None], 0.0)
        for _ in range(self.bands):
            x = x.masked_fill(_stretch(len(x), x.shape[2], self.band_width, x.device)[:, None, :], 0.0)
        return x


def _stretch(rows: int, length: int, longest: int, device: torch.device) -> Tensor:
    """Return [rows, length] bool: one stretch per row, 0 to `longest` long, at a random position."""
    size = torch.randint(0, longest + 1, (rows, 1), device=device)
    start = (torch.rand(rows, 1, device=device) * (length - size + 1)).long()
    position = torch.arange(length, device=device)[None]
    return (position >= start) & (position < start + size)


class AttentivePooling(nn.Module):
    """[N, T, D] → [N, 2 D]: mean and standard deviation over time, with weights from a small network."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Pool the time axis; `inside` [N, T] is True for the frames of each row, where rows have unequal lengths."""
        scores = self.score(x)
        if inside is not None:
            scores = scores.masked_fill(~inside[:, :, None], -math.inf)
        weights = torch.softmax(scores, dim=1)
        mean = (weights * x).sum(1)
        variance = (weights * (x - mean[:, None]).square()).sum(1)
        return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()], dim=1)


class CrnnNetwork(nn.Module):
    """Standardised log-mel [N, T, B] → logits [N, C].

    Args:
        cfg: widths, dropout and masking.
        bands: B, number of mel bands.
        classes: C, number of labels.

    Raises:
        ConfigError: there are more blocks than the bands can be halved.
    """

    def __init__(self, cfg: CrnnConfig, bands: int, classes: int) -> None:
        super().__init__()
        blocks = len(cfg.channels)
        if not blocks or bands // FREQUENCY_STRIDE**blocks < 1:
            raise ConfigError(f"model.channels has {blocks} blocks, and {bands} bands cannot be halved so often")
        self.mask = SpecAugment(cfg.time_masks, cfg.time_mask_frames, cfg.band_masks, cfg.band_mask_width)
        layers: list[nn.Module] = []
        before = 1
        for block, width in enumerate(cfg.channels):
            stride = (TIME_STRIDES[block] if block < len(TIME_STRIDES) else 1, FREQUENCY_STRIDE)
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Dropout2d(cfg.conv_dropout)]
            bands = -(-bands // FREQUENCY_STRIDE)
            before = width
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(before * bands, cfg.recurrent, batch_first=True, bidirectional=True)
        self.pool = AttentivePooling(2 * cfg.recurrent, cfg.attention)
        self.out = nn.Sequential(nn.Dropout(cfg.dropout), nn.Linear(4 * cfg.recurrent, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, C]."""
        maps = self.convolutions(self.mask(x).unsqueeze(1).contiguous(memory_format=torch.channels_last))
        in_time = maps.permute(0, 2, 3, 1).flatten(2)
        logits: Tensor = self.out(self.pool(self.recurrent(in_time)[0]))
        return logits
