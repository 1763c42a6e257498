"""F0 of a clip in Hz, by Praat's autocorrelation method (Boersma 1993), over the whole clip at the file's own rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import PitchConfig
from ser_bench.types import Clip, FloatArray

PERIODS_PER_WINDOW = 3
"""Praat's analysis window holds three periods of the lowest F0; a shorter clip has no frame at all."""
SEMITONES_PER_OCTAVE = 12
REVISION = 1
"""Raised when the measurement changes, so that cached values of the old one are not read."""


@dataclass(frozen=True, slots=True)
class Pitch:
    """Statistics of F0 over the voiced frames of one clip.

    Attributes:
        mean_hz: arithmetic mean.
        median_hz: median.
        std_hz: standard deviation (population).
        min_hz: lowest value.
        max_hz: highest value.
        range_semitones: 12 · log2(max / min), at least 0.
        voiced_fraction: voiced frames / all frames, in (0, 1].
    """

    mean_hz: float
    median_hz: float
    std_hz: float
    min_hz: float
    max_hz: float
    range_semitones: float
    voiced_fraction: float


def measure(clips: Sequence[Clip], cfg: PitchConfig, cache: Cache) -> list[Pitch | None]:
    """F0 statistics of each clip, in order; None where no frame is voiced (silence, whisper, noise).

    Raises:
        BadClipError: a file that cannot be read.
        CacheError: the cache cannot be written.
    """
    return [
        _cached(clip, cfg, cache) for clip in tqdm(clips, desc="pitch", unit="clip", disable=None, delay=2, leave=False)
    ]


def track(samples: FloatArray, sample_rate_hz: int, cfg: PitchConfig) -> FloatArray:
    """F0 of every frame, Hz; 0 where a frame is not voiced; [frames], one frame every 0.75 / floor seconds."""
    import parselmouth

    if len(samples) < sample_rate_hz * PERIODS_PER_WINDOW / cfg.floor_hz:
        return np.zeros(0, dtype=np.float32)
    sound = parselmouth.Sound(samples.astype(np.float64), sampling_frequency=sample_rate_hz)
    contour = sound.to_pitch_ac(pitch_floor=cfg.floor_hz, pitch_ceiling=cfg.ceiling_hz)
    return np.asarray(contour.selected_array["frequency"], dtype=np.float32)


def summarise(f0_hz: FloatArray) -> Pitch | None:
    """Statistics of a contour; zeros are frames that are not voiced; None where all are."""
    voiced = f0_hz[f0_hz > 0].astype(np.float64)
    if not len(voiced):
        return None
    low, high = float(voiced.min()), float(voiced.max())
    return Pitch(
        mean_hz=float(voiced.mean()),
        median_hz=float(np.median(voiced)),
        std_hz=float(voiced.std()),
        min_hz=low,
        max_hz=high,
        range_semitones=SEMITONES_PER_OCTAVE * float(np.log2(high / low)),
        voiced_fraction=len(voiced) / len(f0_hz),
    )


def _cached(clip: Clip, cfg: PitchConfig, cache: Cache) -> Pitch | None:
    key = Cache.key(kind="pitch", revision=REVISION, clip=clip.digest, floor=cfg.floor_hz, ceiling=cfg.ceiling_hz)
    stored = cache.read_json(key) if clip.digest else None
    if stored is None:
        samples, rate = audio.read(clip.path, math.inf)  # its length was judged when the corpus was read
        pitch = summarise(track(samples, rate, cfg))
        # An empty object, so that "nothing is voiced" is not taken for "nothing is stored".
        stored = {} if pitch is None else asdict(pitch)
        if clip.digest:
            cache.write_json(key, stored)
    return Pitch(**stored) if stored else None
