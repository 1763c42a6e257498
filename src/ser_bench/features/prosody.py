"""Pitch and prosody of a clip, measured by Praat over the whole clip at the file's own sampling rate.

- F0 is measured by Praat's autocorrelation method (Boersma 1993).
- Loudness is the mean of Praat's intensity over the spoken part, in dB. The distance of the microphone is not known, so
  loudness can only be compared between recordings that were made alike.
- Syllables are counted as in de Jong and Wempe (2009): peaks of the intensity that are voiced and at least 2 dB above
  the dip before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench import audio, extras
from ser_bench.cache import Cache, CachedComputation, json_format
from ser_bench.config import PitchConfig
from ser_bench.types import Clip, FloatArray

PERIODS_PER_WINDOW = 3
"""Periods of the lowest F0 in Praat's window for pitch; a shorter clip has no frame."""
SEMITONES_PER_OCTAVE = 12
REFERENCE_HZ = 100.0
"""The F0 that counts as 0 semitones."""
SILENCE_DB = 25.0
"""Intensity counts as silence from this far below the loudest moment."""
LOUDEST_PERCENTILE = 99
"""Percentile of the intensity that is taken for the loudest moment."""
PAUSE_S = 0.1
"""A shorter silence is not a pause."""
DIP_DB = 2.0
"""Smallest rise of the intensity from a dip to the peak of a syllable."""
WINDOW_PERIODS = 6.4
"""Periods of the lowest F0 in Praat's window for intensity; a shorter clip has no intensity."""
PERIOD_RANGE_S, PERIOD_FACTOR, AMPLITUDE_FACTOR = (0.0001, 0.02), 1.3, 1.6
"""Praat's standard limits for jitter and shimmer."""
HARMONICITY_STEP_S, HARMONICITY_SILENCE, HARMONICITY_PERIODS = 0.01, 0.1, 1.0
"""Praat's standard parameters of the harmonics-to-noise ratio."""
NOT_HARMONIC_DB = -200.0
"""Praat's harmonics-to-noise ratio of unvoiced frames."""
PITCH_REVISION = 1
"""Increase it when the measurement of `Pitch` changes: older cache entries are then not read."""
PROSODY_REVISION = 1
"""The same for `Prosody`."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pitch:
    """Statistics of F0 over the voiced frames of one clip.

    Attributes:
        mean_hz: arithmetic mean.
        median_hz: median.
        std_hz: standard deviation (population).
        min_hz: smallest value.
        max_hz: largest value.
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


@dataclass(frozen=True, slots=True)
class Prosody:
    """Measures of one clip; None if the clip does not have what is measured.

    Attributes:
        pitch_semitones: median F0 of the voiced frames, semitones above `REFERENCE_HZ`.
        pitch_range_semitones: difference of the 10th and the 90th percentile of F0, at least 0.
        pitch_slope: slope of a straight line through F0, semitones per second; negative if the pitch falls.
        loudness_db: mean intensity of the spoken part, dB.
        syllables_per_second: syllable nuclei per second of the spoken part, pauses included.
        pause_percent: share of pauses of at least `PAUSE_S` in the spoken part, 0 to 100.
        jitter_percent: mean difference of consecutive periods, in percent of the mean period.
        shimmer_percent: mean difference of consecutive amplitudes, in percent of the mean amplitude.
        harmonicity_db: mean harmonics-to-noise ratio of the voiced frames, dB.
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


NO_PROSODY = Prosody(*[None] * 9)
"""The measures of a clip that is too short or contains no signal."""


def measure_pitch(clips: Sequence[Clip], cfg: PitchConfig, cache: Cache) -> list[Pitch | None]:
    """Return the F0 statistics of each clip, in order; None if no frame is voiced (silence, whisper, noise).

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
    """

    def described(samples: FloatArray, sample_rate_hz: int) -> dict[str, float]:
        """{} stands for a clip without voiced frames."""
        pitch = summarise_f0(track_f0(samples, sample_rate_hz, cfg))
        return {} if pitch is None else asdict(pitch)

    stored = _measured(clips, cfg, cache, "pitch", PITCH_REVISION, described)
    return [Pitch(**values) if values else None for values in stored]


def measure_prosody(clips: Sequence[Clip], cfg: PitchConfig, cache: Cache) -> list[Prosody]:
    """Return the measures of each clip, in order.

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
    """

    def described(samples: FloatArray, sample_rate_hz: int) -> dict[str, float | None]:
        return asdict(prosody_of(samples, sample_rate_hz, cfg))

    return [Prosody(**values) for values in _measured(clips, cfg, cache, "prosody", PROSODY_REVISION, described)]


def _measured(
    clips: Sequence[Clip],
    cfg: PitchConfig,
    cache: Cache,
    kind: str,
    revision: int,
    describe: Callable[[FloatArray, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Values of a description (samples, sampling rate) → JSON object, of each clip."""

    def key(clip: Clip) -> str:
        content = audio.clip_digest(clip)
        return Cache.key(kind=kind, revision=revision, clip=content, floor=cfg.floor_hz, ceiling=cfg.ceiling_hz)

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, dict[str, Any]], None, None]:
        for position, clip in enumerate(missing):
            # Without a limit on the length, which was checked when the corpus was read.
            yield position, describe(*audio.read(clip.path, math.inf))

    return CachedComputation(cache, key, compute, json_format(), kind).values(clips)


def track_f0(samples: FloatArray, sample_rate_hz: int, cfg: PitchConfig) -> FloatArray:
    """Return F0 [frames] of samples [T], Hz, one frame every 0.75 / floor seconds; 0 in unvoiced frames."""
    extras.require("parselmouth", "F0 in a prompt")
    import parselmouth

    if len(samples) < sample_rate_hz * PERIODS_PER_WINDOW / cfg.floor_hz:
        return np.zeros(0, dtype=np.float32)
    sound = parselmouth.Sound(samples.astype(np.float64), sampling_frequency=sample_rate_hz)
    contour = sound.to_pitch_ac(pitch_floor=cfg.floor_hz, pitch_ceiling=cfg.ceiling_hz)
    return np.asarray(contour.selected_array["frequency"], dtype=np.float32)


def summarise_f0(f0_hz: FloatArray) -> Pitch | None:
    """Return the statistics of F0 [frames], in which 0 stands for an unvoiced frame; None if no frame is voiced."""
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


def prosody_of(samples: FloatArray, sample_rate_hz: int, cfg: PitchConfig) -> Prosody:
    """Return the measures of samples [T]."""
    extras.require("parselmouth", "prosody in a prompt")
    import parselmouth

    shortest_s = max(PERIODS_PER_WINDOW, WINDOW_PERIODS) / cfg.floor_hz
    if len(samples) <= sample_rate_hz * shortest_s or not np.any(samples):
        return NO_PROSODY
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
    """Level, range and slope of F0 [frames] at these times; None with fewer than three voiced frames."""
    voiced = f0_hz > 0
    names = ("pitch_semitones", "pitch_range_semitones", "pitch_slope")
    if voiced.sum() < 3:
        return dict.fromkeys(names)
    semitones = SEMITONES_PER_OCTAVE * np.log2(f0_hz[voiced] / REFERENCE_HZ)
    low, high = np.percentile(semitones, [10, 90])
    slope = np.polyfit(times_s[voiced], semitones, 1)[0]
    return dict(zip(names, map(float, (np.median(semitones), high - low, slope)), strict=True))


def _timing(level_db: Array, step_s: float, voiced: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    """Loudness, rate and pauses from the intensity [frames], one frame every `step_s`."""
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
    measures = (mean_db, nuclei / duration_s, 100.0 * quiet_s / duration_s)
    return dict(zip(names, map(float, measures), strict=True))


def _nuclei(level_db: Array, threshold: float, voiced: npt.NDArray[np.bool_]) -> int:
    """Number of peaks that are voiced, above the threshold, and `DIP_DB` above the lowest value since the last peak."""
    count, dip = 0, float(level_db[0]) if len(level_db) else 0.0
    for frame in range(1, len(level_db) - 1):
        dip = min(dip, level_db[frame])
        is_peak = level_db[frame - 1] < level_db[frame] >= level_db[frame + 1]
        if is_peak and level_db[frame] > threshold and voiced[frame] and level_db[frame] - dip >= DIP_DB:
            count, dip = count + 1, level_db[frame]
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
        "jitter_percent": _finite_or_none(100.0 * jitter),
        "shimmer_percent": _finite_or_none(100.0 * shimmer),
        "harmonicity_db": _finite_or_none(float(harmonic.mean())) if harmonic.size else None,
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
