"""Log-mel spectrograms [T, B] of clips, cached on disk: the input of networks over time and frequency."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ser_bench import audio
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.config import LogMelConfig
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

LOGMEL_VERSION = 1
"""Increase it when the same clip and parameters give other numbers than before: older cache entries are not read."""
POWER_FLOOR = 1e-8
"""Smallest power: −80 dB relative to full scale."""


def frames(cfg: LogMelConfig) -> int:
    """Return T, the number of frames of one clip. Frames are centred, so there is one more than hops.

    >>> frames(LogMelConfig())
    219
    """
    return 1 + round(cfg.duration_s * cfg.sample_rate_hz) // cfg.hop_length


def extract(clips: Sequence[Clip], cfg: LogMelConfig, cache: Cache) -> FloatArray:
    """Return log-mel spectrograms [N, T, B] float32, dB relative to full scale, at least −80.

    Clips are cut or zero-padded to `cfg.duration_s`. The mel bands are spaced as in HTK, 2595 · log10(1 + f / 700), and
    are triangles of equal height.

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
    """
    shape = (frames(cfg), cfg.bands)
    settings = asdict(cfg)

    def key(clip: Clip) -> str:
        return Cache.key(step="logmel", version=LOGMEL_VERSION, clip=audio.clip_digest(clip), settings=settings)

    computation = CachedComputation(
        cache, key, lambda missing: _compute(missing, cfg), array_format(shape), "log-mel spectrograms"
    )
    spectrograms = np.empty((len(clips), *shape), dtype=np.float32)
    with closing(computation.each(clips)) as results:
        for position, spectrogram in results:
            spectrograms[position] = spectrogram
    return spectrograms


def _compute(clips: Sequence[Clip], cfg: LogMelConfig) -> Generator[tuple[int, FloatArray], None, None]:
    """(position, [T, B] float16). Half precision is accurate to 0.06 dB here, and takes half the disk space."""
    with ThreadPoolExecutor(_threads()) as pool:
        for position, spectrogram in enumerate(pool.map(lambda clip: _spectrogram(clip, cfg), clips)):
            yield position, spectrogram.astype(np.float16)


def _spectrogram(clip: Clip, cfg: LogMelConfig) -> FloatArray:
    import torch

    wanted = round(cfg.duration_s * cfg.sample_rate_hz)
    samples = audio.load(clip.path, cfg.sample_rate_hz, duration_s=cfg.duration_s)[:wanted]
    padded = torch.from_numpy(np.pad(samples, (0, wanted - len(samples))))
    window = torch.hann_window(cfg.frame_length)
    spectrum = torch.stft(
        padded, cfg.frame_length, cfg.hop_length, window=window, center=True, pad_mode="constant", return_complex=True
    )
    # Scaled so that a sine of full scale has a power of 0 dB in its bin.
    power = (spectrum.abs() * (2.0 / window.sum())).square()
    mel = power.T @ _filters(cfg.frame_length, cfg.sample_rate_hz, cfg.bands)
    decibels: FloatArray = mel.clamp(min=POWER_FLOOR).log10().mul(10.0).numpy()
    return decibels


@lru_cache(maxsize=4)
def _filters(frame_length: int, sample_rate_hz: int, bands: int) -> torch.Tensor:
    """Weights [bins, B] of the mel bands."""
    from ser_bench.features.torchaudio_cpu import torchaudio

    filters: torch.Tensor = torchaudio.functional.melscale_fbanks(
        frame_length // 2 + 1, 0.0, sample_rate_hz / 2, bands, sample_rate_hz
    )
    return filters


def _threads() -> int:
    import torch

    return torch.get_num_threads()
