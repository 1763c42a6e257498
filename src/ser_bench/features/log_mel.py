"""Log-mel spectrograms of clips [T, B], cached on disk: what a network that reads time and frequency looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import LogMelConfig
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

LOGMEL_VERSION = 1
"""Raised when the same clip and parameters would give other numbers: old cache entries are then not read."""
POWER_FLOOR = 1e-8
"""Power that counts as silence, −80 dB of full scale."""
SHOWN_AFTER_S = 2.0


def frames(cfg: LogMelConfig) -> int:
    """T, frames of one clip: centred, so one more than hops.

    >>> frames(LogMelConfig())
    219
    """
    return 1 + round(cfg.duration_s * cfg.sample_rate_hz) // cfg.hop_length


def extract(clips: Sequence[Clip], cfg: LogMelConfig, cache: Cache) -> FloatArray:
    """[N, T, B] float32, dB of full scale, −80 at least; clips are cut or zero-padded to `cfg.duration_s`.

    Mel bands as HTK spaces them (2595 · log10(1 + f / 700)), triangles of equal height.

    Raises:
        BadClipError: a file cannot be read.
        CacheError: the cache cannot be written.
    """
    shape = (frames(cfg), cfg.bands)
    out = np.empty((len(clips), *shape), dtype=np.float32)
    settings = asdict(cfg)
    keys = [Cache.key(step="logmel", version=LOGMEL_VERSION, clip=_content(c), settings=settings) for c in clips]
    missing = []
    for place, key in enumerate(keys):
        stored = cache.read_array(key)
        if stored is None or stored.shape != shape:
            missing.append(place)
        else:
            out[place] = stored
    with (
        ThreadPoolExecutor(_threads()) as pool,
        tqdm(total=len(missing), desc="log-mel", unit="clip", disable=None, delay=SHOWN_AFTER_S, leave=False) as bar,
    ):
        for place, one in zip(missing, pool.map(lambda i: _spectrogram(clips[i], cfg), missing), strict=True):
            # Half precision is 0.06 dB at most here, and half the disk.
            cache.write_array(keys[place], one.astype(np.float16))
            out[place] = one.astype(np.float16)
            bar.update()
    return out


def _spectrogram(clip: Clip, cfg: LogMelConfig) -> FloatArray:
    import torch

    wanted = round(cfg.duration_s * cfg.sample_rate_hz)
    samples = audio.load(clip.path, cfg.sample_rate_hz, duration_s=cfg.duration_s)[:wanted]
    padded = torch.from_numpy(np.pad(samples, (0, wanted - len(samples))))
    window = torch.hann_window(cfg.frame_length)
    spectrum = torch.stft(
        padded, cfg.frame_length, cfg.hop_length, window=window, center=True, pad_mode="constant", return_complex=True
    )
    # A sine of full scale has a power of 0 dB in its bin.
    power = (spectrum.abs() * (2.0 / window.sum())).square()
    mel = power.T @ _filters(cfg.frame_length, cfg.sample_rate_hz, cfg.bands)
    decibels: FloatArray = mel.clamp(min=POWER_FLOOR).log10().mul(10.0).numpy()
    return decibels


@lru_cache(maxsize=4)
def _filters(frame_length: int, sample_rate_hz: int, bands: int) -> torch.Tensor:
    """[bins, B]."""
    from ser_bench.features.torchaudio_cpu import torchaudio

    filters: torch.Tensor = torchaudio.functional.melscale_fbanks(
        frame_length // 2 + 1, 0.0, sample_rate_hz / 2, bands, sample_rate_hz
    )
    return filters


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _content(clip: Clip) -> str:
    """Digest of the file's bytes; read now where the corpus did not note it."""
    return clip.digest or hashlib.blake2b(clip.path.read_bytes(), digest_size=audio.DIGEST_BYTES).hexdigest()
