"""Augmented variants of a clip: `clean`, `noise`, `pitch` and `noise_pitch` (noise is added, then the pitch shifted).

Noise is Gaussian with standard deviation noise_amplitude · U(0,1) · max|signal|. Each (seed, clip, variant) has its own
random generator, so a variant depends neither on the order of the clips nor on the process, and is the same for both
engines.

Pitch is shifted as in `librosa.effects.pitch_shift`: a phase vocoder stretches the time (frames of 2,048 samples, hop
512, Hann window, centred), then resampling restores the length. `pitch_shift_librosa` calls that function.
`pitch_shift` does the same for a batch in PyTorch on any device.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ser_bench.config import AugmentConfig
from ser_bench.errors import ConfigError
from ser_bench.types import CLEAN, VARIANTS, FloatArray

if TYPE_CHECKING:
    import torch

VOCODER_FRAME = 2_048
"""Samples; the default of librosa, like the hop."""
VOCODER_HOP = VOCODER_FRAME // 4
SEMITONES_PER_OCTAVE = 12
SILENCE = 1e-30
"""Added to each bin of a spectrum, so that an empty bin has phase 0; full scale is about 1e3."""
SCALE = 2.0**40
"""Factor, exact in float32, with which bins down to `SILENCE` are squared without underflow. Even the phase of the
faintest bin has an effect: where sound begins after digital silence, later frames continue from it."""


def check(config: AugmentConfig) -> None:
    """Raise ConfigError if a variant does not exist, `clean` is missing, or a strength is out of range."""
    unknown = sorted(set(config.variants) - set(VARIANTS))
    if unknown or CLEAN not in config.variants:
        raise ConfigError(
            f"augment.variants={list(config.variants)}: choose from {list(VARIANTS)}, with {CLEAN!r} in it"
        )
    if config.noise_amplitude < 0 or abs(config.pitch_semitones) > SEMITONES_PER_OCTAVE:
        raise ConfigError("augment: noise_amplitude must not be negative, pitch_semitones must lie within ±12")


def is_noisy(variant: str) -> bool:
    """Return True if noise is added in this variant."""
    return variant.startswith("noise")


def is_shifted(variant: str) -> bool:
    """Return True if the pitch is shifted in this variant."""
    return variant.endswith("pitch")


def parameters(variant: str, config: AugmentConfig) -> dict[str, float | int]:
    """Return the parameters that decide this variant, for cache keys; {} for `clean`."""
    chosen: dict[str, float | int] = {}
    if is_noisy(variant):
        chosen |= {"noise_amplitude": config.noise_amplitude, "seed": config.seed}
    if is_shifted(variant):
        chosen |= {"pitch_semitones": config.pitch_semitones}
    return chosen


def generator(seed: int, clip_id: str, variant: str) -> np.random.Generator:
    """Return the random generator of one variant of one clip, the same in any order and any process."""
    digest = hashlib.blake2b(f"{seed}\0{clip_id}\0{variant}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "big")))


def add_noise(samples: FloatArray, amplitude: float, rng: np.random.Generator) -> FloatArray:
    """Return samples [T] plus Gaussian noise of standard deviation amplitude · U(0,1) · max|samples|."""
    if not samples.size:
        return samples
    deviation = np.float32(amplitude * rng.uniform() * np.abs(samples).max())
    noisy: FloatArray = rng.standard_normal(samples.shape, dtype=np.float32)
    noisy *= deviation
    noisy += samples
    return noisy


def noisy(samples: FloatArray, clip_id: str, variant: str, config: AugmentConfig) -> FloatArray:
    """Return samples [T] before the pitch is shifted: with the noise of this variant, or unchanged."""
    if not is_noisy(variant):
        return samples
    return add_noise(samples, config.noise_amplitude, generator(config.seed, clip_id, variant))


def pitch_shift_librosa(samples: FloatArray, sample_rate_hz: int, semitones: float) -> FloatArray:
    """Return samples [T] with the pitch shifted by librosa, which is the reference."""
    import librosa

    if not samples.size or not semitones:
        return samples
    shifted: FloatArray = librosa.effects.pitch_shift(samples, sr=sample_rate_hz, n_steps=semitones)
    return shifted


def pitch_shift(samples: torch.Tensor, semitones: float) -> torch.Tensor:
    """Return samples [B, T] float32 with the pitch shifted by a phase vocoder, on the same device.

    `docs/features.md` states how closely they agree with librosa's. soxr resamples them on the CPU.
    """
    import torch

    if not samples.shape[-1] or not semitones:
        return samples
    rate = 2.0 ** (-semitones / SEMITONES_PER_OCTAVE)
    length = round(samples.shape[-1] / rate)
    # In double precision, because the phase of a faint bin is continued to frames in which that bin is loud.
    spectra = stft(samples.double()).to(torch.complex64)
    stretched = istft(stretch(spectra, rate), length)
    return _resample(stretched, rate, samples.shape[-1])


def stft(samples: torch.Tensor, frame: int = VOCODER_FRAME, hop: int = VOCODER_HOP) -> torch.Tensor:
    """Return complex spectra [B, 1 + T // hop, frame // 2 + 1] of samples [B, T], in the precision of the samples.

    Frames have a Hann window, are centred, and are zero-padded at the edges.
    """
    import torch

    padded = torch.nn.functional.pad(samples, (frame // 2, frame // 2))
    window = _hann(frame, samples.device, samples.dtype)
    spectra: torch.Tensor = torch.fft.rfft(padded.unfold(-1, frame, hop) * window)
    return spectra


def power(spectra: torch.Tensor) -> torch.Tensor:
    """Return the squared magnitudes of complex spectra; twice as fast on a CPU as with real and imaginary views."""
    import torch

    squares = torch.view_as_real(spectra).square()
    return squares[..., 0] + squares[..., 1]


def stretch(spectra: torch.Tensor, rate: float) -> torch.Tensor:
    """Return spectra [B, ceil(N / rate), F] that last 1 / rate times as long as spectra [B, N, F] (phase vocoder).

    The magnitude of output frame t is interpolated between the input frames i = ⌊t · rate⌋ and i + 1. Its phase is that
    of the previous output frame plus φ[i' + 1] − φ[i'], where i' is the previous value of i. (A vocoder also wraps this
    difference around the centre frequency of each bin, which adds multiples of 2π and so has no effect.) While i
    increases by one per output frame, the sum telescopes to φ[i] plus a constant. Otherwise (a frame is used twice, or
    left out), φ[i' + 1] − φ[i] is added to the constant. So a phasor `turn` is multiplied a few times per clip, and no
    arc tangent or running sum is needed. With these, in float32 as in librosa, the error in the highest bins grows by
    about a hundredth of a radian per frame.
    """
    import torch

    steps = np.arange(0, spectra.shape[1], rate, dtype=np.float64)
    index = steps.astype(np.int64)
    weight = torch.from_numpy((steps - index).astype(np.float32)).to(spectra.device)[:, None]
    spectra = torch.nn.functional.pad(spectra, (0, 0, 0, 2)).add_(
        SILENCE
    )  # two silent frames, because i + 1 can exceed the last frame
    magnitude = power(spectra * SCALE).sqrt_().div_(SCALE).clamp_(min=SILENCE / 10)
    stretched = spectra.new_empty(spectra.shape[0], len(index), spectra.shape[2])
    turn: torch.Tensor | None = None
    bounds = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    for start, end in pairwise(bounds):  # sections of the output whose input frames are consecutive
        i, count = int(index[start]), end - start
        here, following = magnitude[:, i : i + count], magnitude[:, i + 1 : i + 1 + count]
        gain = torch.lerp(here, following, weight[start:end]).div_(here)
        if start:
            ends = spectra[:, [int(index[start - 1]) + 1, i]].to(torch.complex128).sgn()
            jump = ends[:, :1] * ends[:, 1:].conj()
            turn = jump if turn is None else turn * jump
        factor = gain if turn is None else gain * turn.to(spectra.dtype)
        torch.mul(spectra[:, i : i + count], factor, out=stretched[:, start:end])
    return stretched


def istft(spectra: torch.Tensor, length: int) -> torch.Tensor:
    """Return the samples [B, length] of spectra: inverse of `stft`, by overlap-add and division by the window sum."""
    import torch

    frames = torch.fft.irfft(spectra, VOCODER_FRAME)
    frames *= _hann(VOCODER_FRAME, frames.device, frames.dtype)
    batch, count = frames.shape[:2]
    overlaps = VOCODER_FRAME // VOCODER_HOP
    blocks = frames.view(batch, count, overlaps, VOCODER_HOP)
    summed = frames.new_zeros(batch, count + overlaps - 1, VOCODER_HOP)
    for k in range(overlaps):
        summed[:, k : k + count] += blocks[:, :, k]
    start = VOCODER_FRAME // 2
    samples = summed.view(batch, -1)[:, start : start + length] / _window_sum(count, frames.device)[start:][:length]
    missing = length - samples.shape[1]
    return torch.nn.functional.pad(samples, (0, missing)) if missing > 0 else samples


def _resample(samples: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    """Samples [B, length] at `ratio` times the sampling rate (soxr, high quality, as in librosa)."""
    import soxr
    import torch

    out = np.zeros((len(samples), length), dtype=np.float32)
    for row, signal in zip(out, samples.cpu().numpy(), strict=True):
        resampled = soxr.resample(signal, 1.0 / ratio, 1.0, quality="HQ")[:length]
        row[: len(resampled)] = resampled
    return torch.from_numpy(out).to(samples.device)


@lru_cache(maxsize=8)
def _hann(frame: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Hann window, computed in double precision: in single, the small values near the edges are wrong by 1 in 2,000."""
    import torch

    return torch.hann_window(frame, dtype=torch.float64).to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def _window_sum(count: int, device: torch.device) -> torch.Tensor:
    """Sum of the squared windows of `count` frames, float32; 1 instead of 0."""
    import torch

    window = _hann(VOCODER_FRAME, device, torch.float32)
    total = torch.zeros(VOCODER_FRAME + VOCODER_HOP * (count - 1), device=device)
    for k in range(count):
        total[k * VOCODER_HOP :][:VOCODER_FRAME] += window.square()
    return torch.where(total > 0, total, 1.0)
