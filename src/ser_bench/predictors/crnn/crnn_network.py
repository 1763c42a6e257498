"""A small network over log-mel spectrograms: strided convolutions, a recurrent layer, attention over time.

Convolutions with batch normalisation halve both axes step by step; a bidirectional GRU reads what is left in time
order; attentive statistics pooling (Okabe, Koshinaka & Shinoda 2018, doi:10.21437/Interspeech.2018-993) weighs the
frames and keeps their weighted mean and standard deviation. In training, SpecAugment (Park et al. 2019,
doi:10.21437/Interspeech.2019-2680) blanks stretches of time and bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ser_bench.config import CrnnConfig
from ser_bench.errors import ConfigError

FREQUENCY_STRIDE = 2
TIME_STRIDES = (2, 2, 2)
"""Of the first blocks; later ones keep every frame. Eight hops of 16 ms remain 128 ms apart: a syllable."""
SMALLEST_VARIANCE = 1e-6


class SpecAugment(nn.Module):
    """Sets stretches of a standardised [N, T, B] spectrogram to 0, its mean, in training only.

    Args:
        times: stretches of time blanked in each clip.
        time_frames: frames of one at most.
        bands: stretches of bands blanked.
        band_width: bands of one at most.
    """

    def __init__(self, times: int, time_frames: int, bands: int, band_width: int) -> None:
        super().__init__()
        self.times, self.time_frames = times, time_frames
        self.bands, self.band_width = bands, band_width

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, B] to the same."""
        if not self.training:
            return x
        for _ in range(self.times):
            x = x.masked_fill(_stretch(len(x), x.shape[1], self.time_frames, x.device)[:, :, None], 0.0)
        for _ in range(self.bands):
            x = x.masked_fill(_stretch(len(x), x.shape[2], self.band_width, x.device)[:, None, :], 0.0)
        return x


def _stretch(rows: int, length: int, longest: int, device: torch.device) -> Tensor:
    """[rows, length] bool: one stretch a row, 0 to `longest` long, anywhere."""
    size = torch.randint(0, longest + 1, (rows, 1), device=device)
    start = (torch.rand(rows, 1, device=device) * (length - size + 1)).long()
    place = torch.arange(length, device=device)[None]
    return (place >= start) & (place < start + size)


class AttentivePooling(nn.Module):
    """[N, T, D] to [N, 2 D]: mean and standard deviation over time under weights that a small network gives."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Pool the time axis; of rows of unequal length, `inside` [N, T] says which frames are theirs."""
        scores = self.score(x)
        if inside is not None:
            scores = scores.masked_fill(~inside[:, :, None], -math.inf)
        weights = torch.softmax(scores, dim=1)
        mean = (weights * x).sum(1)
        variance = (weights * (x - mean[:, None]).square()).sum(1)
        return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()], dim=1)


class Crnn(nn.Module):
    """Standardised log-mel [N, T, B] to logits [N, C].

    Args:
        cfg: widths, dropout and blanking.
        bands: B.
        classes: C.

    Raises:
        ConfigError: more blocks than the bands can be halved for.
    """

    def __init__(self, cfg: CrnnConfig, bands: int, classes: int) -> None:
        super().__init__()
        blocks = len(cfg.channels)
        if not blocks or bands // FREQUENCY_STRIDE**blocks < 1:
            raise ConfigError(f"model.channels has {blocks} blocks, and {bands} bands cannot be halved so often")
        self.blank = SpecAugment(cfg.time_masks, cfg.time_mask_frames, cfg.band_masks, cfg.band_mask_width)
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

    @property
    def layers(self) -> list[nn.Module]:
        """In the order in which they are called."""
        return [*self.convolutions, self.recurrent, self.pool, *self.out]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        maps = self.convolutions(self.blank(x).unsqueeze(1).contiguous(memory_format=torch.channels_last))
        in_time = maps.permute(0, 2, 3, 1).flatten(2)
        logits: Tensor = self.out(self.pool(self.recurrent(in_time)[0]))
        return logits
