"""How a clip was said, beyond its mean F0: Praat's measures over the whole clip at the file's own rate.

Loudness is the mean of Praat's intensity over the stretch that is spoken, in dB; since nobody knows how far a
microphone was, it means something only beside other recordings made alike. Syllables are counted as de Jong and Wempe
(2009) do: peaks of the intensity that are voiced and at least 2 dB above the dip before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import PitchConfig
from ser_bench.features.pitch import PERIODS_PER_WINDOW, SEMITONES_PER_OCTAVE
from ser_bench.types import Clip, FloatArray

REFERENCE_HZ = 100.0
"""0 semitones."""
SILENCE_DB = 25.0
"""So far below the loudest moment nobody speaks."""
LOUDEST_PERCENTILE = 99
PAUSE_S = 0.1
DIP_DB = 2.0
WINDOW_PERIODS = 6.4
"""Praat's intensity looks at so many periods of the lowest F0 at once, and needs a clip of that length."""
PERIOD_RANGE_S, PERIOD_FACTOR, AMPLITUDE_FACTOR = (0.0001, 0.02), 1.3, 1.6
"""Praat's standard limits for jitter and shimmer."""
HARMONICITY_STEP_S, HARMONICITY_SILENCE, HARMONICITY_PERIODS = 0.01, 0.1, 1.0
NOT_HARMONIC_DB = -200.0
"""Praat's value where nothing is voiced."""
REVISION = 1
"""Raised when the measurement changes, so that cached values of the old one are not read."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prosody:
    """Measures of one clip; None where it does not have what is measured.

    Attributes:
        pitch_semitones: median F0 of the voiced frames, semitones above `REFERENCE_HZ`.
        pitch_range_semitones: from the 10th to the 90th percentile of F0, at least 0.
        pitch_slope: of a straight line through F0, semitones per second; negative where the voice falls.
        loudness_db: mean intensity of the spoken stretch, dB.
        syllables_per_second: syllable nuclei per second of the spoken stretch, pauses included.
        pause_percent: share of pauses of at least `PAUSE_S` in the spoken stretch, 0 to 100.
        jitter_percent: mean difference of neighbouring periods, in percent of the mean period.
        shimmer_percent: the same of amplitudes.
        harmonicity_db: mean harmonics-to-noise ratio of the voiced frames.
    """

    pitch_semitones: float | None
    pitch_range_semitones: float | None
    pitch_slope: float | None
    loudness_db: float | None
    syllables_per_second: float | None
    pause_percent: float | None
    jitter_percent: float | None
    shimmer_percent: float | None
    harmonicity_db: float | None


NOTHING = Prosody(*[None] * 9)
"""Of a clip too short, or without any signal."""


def measure(clips: Sequence[Clip], cfg: PitchConfig, cache: Cache) -> list[Prosody]:
    """Measures of each clip, in order.

    Raises:
        BadClipError: a file that cannot be read.
        CacheError: the cache cannot be written.
    """
    return [
        _cached(clip, cfg, cache)
        for clip in tqdm(clips, desc="prosody", unit="clip", disable=None, delay=2, leave=False)
    ]


def of_samples(samples: FloatArray, sample_rate_hz: int, cfg: PitchConfig) -> Prosody:
    """Measures of samples [T]."""
    import parselmouth

    shortest_s = max(PERIODS_PER_WINDOW, WINDOW_PERIODS) / cfg.floor_hz
    if len(samples) <= sample_rate_hz * shortest_s or not np.any(samples):
        return NOTHING
    sound = parselmouth.Sound(samples.astype(np.float64), sampling_frequency=sample_rate_hz)
    contour = sound.to_pitch_ac(pitch_floor=cfg.floor_hz, pitch_ceiling=cfg.ceiling_hz)
    f0_hz, times_s = np.asarray(contour.selected_array["frequency"]), np.asarray(contour.xs())
    intensity = sound.to_intensity(minimum_pitch=cfg.floor_hz)
    level_db, level_times_s = np.asarray(intensity.values[0]), np.asarray(intensity.xs())
    voiced_at = np.interp(level_times_s, times_s, (f0_hz > 0).astype(np.float64)) > 0.5
    return Prosody(
        **_melody(f0_hz, times_s),
        **_timing(level_db, level_times_s[1] - level_times_s[0] if len(level_times_s) > 1 else 0.0, voiced_at),
        **_quality(sound, contour, cfg),
    )


def _melody(f0_hz: Array, times_s: Array) -> dict[str, float | None]:
    voiced = f0_hz > 0
    names = ("pitch_semitones", "pitch_range_semitones", "pitch_slope")
    if voiced.sum() < 3:
        return dict.fromkeys(names)
    semitones = SEMITONES_PER_OCTAVE * np.log2(f0_hz[voiced] / REFERENCE_HZ)
    low, high = np.percentile(semitones, [10, 90])
    slope = np.polyfit(times_s[voiced], semitones, 1)[0]
    return dict(zip(names, map(float, (np.median(semitones), high - low, slope)), strict=True))


def _timing(level_db: Array, step_s: float, voiced: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    """Loudness, rate and pauses from the intensity contour, one value every `step_s`."""
    threshold = np.percentile(level_db, LOUDEST_PERCENTILE) - SILENCE_DB
    loud = np.flatnonzero(level_db > threshold)
    names = ("loudness_db", "syllables_per_second", "pause_percent")
    if step_s <= 0.0 or not len(loud):
        return dict.fromkeys(names)
    spoken = slice(loud[0], loud[-1] + 1)
    inside, duration_s = level_db[spoken], (loud[-1] + 1 - loud[0]) * step_s
    nuclei = _nuclei(inside, threshold, voiced[spoken])
    quiet_s = sum(length * step_s for length in _runs(inside <= threshold) if length * step_s >= PAUSE_S)
    mean_db = 10.0 * math.log10(float(np.mean(10.0 ** (inside / 10.0))))
    found = (mean_db, nuclei / duration_s, 100.0 * quiet_s / duration_s)
    return dict(zip(names, map(float, found), strict=True))


def _nuclei(level_db: Array, threshold: float, voiced: npt.NDArray[np.bool_]) -> int:
    """Peaks above the threshold, voiced, each at least `DIP_DB` above the lowest value since the last one."""
    count, dip = 0, float(level_db[0]) if len(level_db) else 0.0
    for at in range(1, len(level_db) - 1):
        dip = min(dip, level_db[at])
        is_peak = level_db[at - 1] < level_db[at] >= level_db[at + 1]
        if is_peak and level_db[at] > threshold and voiced[at] and level_db[at] - dip >= DIP_DB:
            count, dip = count + 1, level_db[at]
    return count


def _runs(flags: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _quality(sound: object, contour: object, cfg: PitchConfig) -> dict[str, float | None]:
    """Jitter, shimmer and harmonics-to-noise ratio."""
    from parselmouth.praat import call

    points = call([sound, contour], "To PointProcess (cc)")
    limits = (0.0, 0.0, *PERIOD_RANGE_S, PERIOD_FACTOR)
    jitter = call(points, "Get jitter (local)", *limits)
    shimmer = call([sound, points], "Get shimmer (local)", *limits, AMPLITUDE_FACTOR)
    harmonicity = call(
        sound, "To Harmonicity (cc)", HARMONICITY_STEP_S, cfg.floor_hz, HARMONICITY_SILENCE, HARMONICITY_PERIODS
    ).values
    harmonic = harmonicity[harmonicity > NOT_HARMONIC_DB]
    return {
        "jitter_percent": _known(100.0 * jitter),
        "shimmer_percent": _known(100.0 * shimmer),
        "harmonicity_db": _known(float(harmonic.mean())) if harmonic.size else None,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cached(clip: Clip, cfg: PitchConfig, cache: Cache) -> Prosody:
    key = Cache.key(kind="prosody", revision=REVISION, clip=clip.digest, floor=cfg.floor_hz, ceiling=cfg.ceiling_hz)
    stored = cache.read_json(key) if clip.digest else None
    if stored is None:
        samples, rate = audio.read(clip.path, math.inf)  # its length was judged when the corpus was read
        stored = asdict(of_samples(samples, rate, cfg))
        if clip.digest:
            cache.write_json(key, stored)
    return Prosody(**stored)
