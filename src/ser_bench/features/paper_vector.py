"""The paper's feature vector of a waveform, ZCR | RMS | MFCC as librosa defines them, by librosa or batched in PyTorch.

Frames are `frame_length` samples long, `hop_length` apart and centred, so T samples give N = 1 + T // hop_length:

- ZCR [N]: share of the samples of a frame whose sign differs from the previous sample; edges are padded with the edge
  value, and |x| ≤ 1e-10 has a positive sign.
- RMS [N]: root of the mean square, edges padded with zeros.
- MFCC [n_mfcc, N]: orthonormal DCT-II of the power mel spectrum (Hann window, edges padded with zeros, 128 bands
  after Slaney, area-normalised) in dB: 10 · log10(max(power, 1e-10)), at most 80 dB below the waveform's maximum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ser_bench.config import FeaturesConfig, MfccOrder, Pad
from ser_bench.features.augmentation import power, stft
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    import torch

N_MELS = 128
MEL_GROUPS = 8
"""The mel bands are summed in this many groups, each over the bins that it spans; one matrix would be mostly zeros."""
ZERO_AMPLITUDE = 1e-10
"""librosa's threshold: a sample whose magnitude is not larger counts as zero."""
POWER_FLOOR = 1e-10
TOP_DB = 80.0


def samples_in(features: FeaturesConfig) -> int:
    """Return the number of samples of the section of a clip that is used: 55,125 with the paper's settings."""
    return round(features.duration_s * features.sample_rate_hz)


def frames_in(features: FeaturesConfig) -> int:
    """Return the number of frames of that section: 108 with the paper's settings."""
    return 1 + samples_in(features) // features.hop_length


def length(features: FeaturesConfig) -> int:
    """Return D, the length of a vector: 2,376 with the paper's settings."""
    return frames_in(features) * (2 + features.n_mfcc)


def fit(samples: FloatArray, features: FeaturesConfig) -> FloatArray:
    """Return samples [T] cut to `samples_in`, and with features.pad=audio zero-padded to it."""
    wanted = samples_in(features)
    missing = wanted - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 and features.pad is Pad.audio else samples[:wanted]


def by_librosa(samples: FloatArray, features: FeaturesConfig) -> FloatArray:
    """Return the vector [D] of samples [T] from `fit`, computed by librosa, which is the reference."""
    import librosa

    if not samples.size:
        return np.zeros(length(features), dtype=np.float32)
    frame, hop = features.frame_length, features.hop_length
    zcr = librosa.feature.zero_crossing_rate(samples, frame_length=frame, hop_length=hop)
    rms = librosa.feature.rms(y=samples, frame_length=frame, hop_length=hop)
    mfcc = librosa.feature.mfcc(
        y=samples, sr=features.sample_rate_hz, n_mfcc=features.n_mfcc, n_fft=frame, hop_length=hop, n_mels=N_MELS
    )
    matrix = mfcc.T if features.mfcc_order is MfccOrder.frame else mfcc
    vector: FloatArray = np.concatenate([zcr[0], rms[0], matrix.ravel()]).astype(np.float32)
    return np.pad(vector, (0, length(features) - len(vector)))


def by_torch(samples: torch.Tensor, features: FeaturesConfig) -> torch.Tensor:
    """Return the vectors [B, D] of samples [B, T] float32 from `fit`, on the device of the samples."""
    import torch

    batch = len(samples)
    if not samples.numel():
        return samples.new_zeros(batch, length(features))
    mfcc = _mfcc(samples, features)
    if features.mfcc_order is MfccOrder.coefficient:
        mfcc = mfcc.transpose(1, 2)
    parts = [_zero_crossing_rate(samples, features), _root_mean_square(samples, features), mfcc.reshape(batch, -1)]
    vector = torch.cat(parts, dim=1)
    return torch.nn.functional.pad(vector, (0, length(features) - vector.shape[1]))


def _zero_crossing_rate(samples: torch.Tensor, features: FeaturesConfig) -> torch.Tensor:
    """[B, N]. The first sample of a frame has no previous sample, so there are frame_length − 1 comparisons."""
    import torch

    negative = samples < -ZERO_AMPLITUDE
    crossings = (negative[:, 1:] != negative[:, :-1]).to(samples.dtype)
    half = features.frame_length // 2
    padded = torch.nn.functional.pad(crossings, (half, half))  # a repeated edge value has no crossings
    frames = padded.unfold(-1, features.frame_length - 1, features.hop_length)
    return frames.sum(-1) / features.frame_length


def _root_mean_square(samples: torch.Tensor, features: FeaturesConfig) -> torch.Tensor:
    """[B, N]."""
    import torch

    half = features.frame_length // 2
    squares = torch.nn.functional.pad(samples.square(), (half, half))
    return squares.unfold(-1, features.frame_length, features.hop_length).mean(-1).sqrt_()


def _mfcc(samples: torch.Tensor, features: FeaturesConfig) -> torch.Tensor:
    """[B, N, n_mfcc]."""
    import torch

    energy = power(stft(samples, features.frame_length, features.hop_length))
    groups, transform = _mel_and_dct(features.frame_length, features.sample_rate_hz, features.n_mfcc, samples.device)
    mel = torch.cat([energy[..., first : first + len(weights)] @ weights for first, weights in groups], dim=-1)
    decibels = mel.clamp_(min=POWER_FLOOR).log10_().mul_(10.0)
    loudest = decibels.amax(dim=(1, 2), keepdim=True)
    return torch.maximum(decibels, loudest - TOP_DB) @ transform


@lru_cache(maxsize=8)
def _mel_and_dct(
    frame: int, sample_rate_hz: int, n_mfcc: int, device: torch.device
) -> tuple[list[tuple[int, torch.Tensor]], torch.Tensor]:
    """Groups of mel filters as (first bin, weights [bins, bands]), and the DCT [128, n_mfcc]."""
    from ser_bench.features.torchaudio_cpu import torchaudio

    filters = torchaudio.functional.melscale_fbanks(
        frame // 2 + 1, 0.0, sample_rate_hz / 2, N_MELS, sample_rate_hz, norm="slaney", mel_scale="slaney"
    )
    groups = []
    for bands in filters.chunk(MEL_GROUPS, dim=1):
        used = bands.any(dim=1).nonzero().flatten().tolist() or [0]
        groups.append((used[0], bands[used[0] : used[-1] + 1].contiguous().to(device)))
    return groups, torchaudio.functional.create_dct(n_mfcc, N_MELS, norm="ortho").to(device)
