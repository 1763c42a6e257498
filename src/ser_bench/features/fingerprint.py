"""Detection of two files with the same recording, whatever the encoding, level, start, speed and telephone band.

The search has two steps, and neither depends on the configuration of a run.

**Candidates.** The fingerprint of a clip is the shape of its spectrum between 330 and 3,100 Hz over time, a part that a
telephone keeps. Each frame of 125 ms has the levels of 16 bands in dB. The mean of each band over the clip is
subtracted (microphone, equaliser, telephone). Each frame is weighted by its loudness, so that padding and background
have no effect. A DCT over the bands gives ten coefficients. The cosine of two fingerprints is taken at the best shift
up to 1.1 s, over the overlap only, which must have 15 % of the energy of each clip.

**Decision.** Candidates are compared by narrow-band spectrograms, 350 to 3,000 Hz in steps of 1/41 octave, without
their envelope, so that the harmonics of the voice remain. Their correlation is taken at the best shift and the best of
nine speeds from 0.98 to 1.02. Two takes of one sentence by one speaker have other pitch contours and do not correlate.

`docs/audit.md` has the measured detection rates and false alarms, and the commands.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_bench import audio
from ser_bench.cache import Cache, CachedComputation, array_format, json_format
from ser_bench.types import Clip, FloatArray

VERSION = 1
"""Increase it when the same clip gives another fingerprint than before, or the same pair another decision."""
THRESHOLD = 0.75
"""Smallest cosine of candidates. This and the next value were chosen with `benchmarks/fingerprint.py`."""
CORRELATED = 0.71
"""Smallest correlation of the spectrograms of candidates that count as one recording."""
RATE_HZ = 8_000
LONGEST_S = 5.0
"""Only the beginning of a longer clip is compared."""
SHIFT_S = 1.1
SHARE = 0.15
"""Smallest share of the weighted energy of each of the two clips that must lie in their overlap."""
SILENCE = 1e-9

# The fingerprint.
HOP, WINDOW, FFT = 400, 1_000, 1_024
FRAMES = int(LONGEST_S * RATE_HZ / HOP)
BAND_EDGES_HZ = (330.0, 3_100.0)
BANDS, SIZE = 16, 10
LEVEL_WEIGHT = 0.5
"""Factor of the first coefficient, the level: compression and clipping change it most."""
RANGE_DB, FLOOR_DB = 35.0, 50.0
"""A frame this much softer than the loudest has weight 0; a band this much below the loudest counts as equal to it."""
BLOCK_CLIPS = 512
MAX_SHIFT = int(SHIFT_S * RATE_HZ / HOP)

# The spectrogram.
FINE_HOP, FINE_WINDOW = 128, 800
FINE_HZ = np.geomspace(350.0, 3_000.0, 128)
ENVELOPE_POINTS = 15
"""Points, a third of an octave, over which a spectrum is averaged to get its envelope."""
FINE_RANGE_DB, FINE_FLOOR_DB = 30.0, 60.0
SPEEDS = tuple(sorted(np.linspace(0.98, 1.02, 9), key=lambda speed: abs(speed - 1)))
MAX_FINE_SHIFT = int(SHIFT_S * RATE_HZ / FINE_HOP)


def copies(clips: Sequence[Clip], cache: Cache, compute: bool = True) -> list[tuple[str, str]] | None:
    """Return the ids of all pairs of clips with the same recording; None if they are not cached and not to be computed.

    The pairs of a set of clips are cached, because all folds and all runs of a corpus ask for the same set.

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
    """
    ordered = sorted(clips, key=lambda clip: (audio.clip_digest(clip), clip.id))

    def key(part: Sequence[Clip]) -> str:
        return Cache.key(step="copies", version=VERSION, clips=[audio.clip_digest(clip) for clip in part])

    def search(missing: Sequence[Sequence[Clip]]) -> Generator[tuple[int, list[tuple[int, int]]], None, None]:
        for number, part in enumerate(missing):
            yield number, same_recordings([clip.path for clip in part], fingerprints(part, cache))

    computation = CachedComputation(cache, key, search, json_format(), "copies of recordings", "corpus")
    pairs = computation.values([ordered])[0] if compute else computation.read(ordered)
    return None if pairs is None else [(ordered[i].id, ordered[j].id) for i, j in pairs]


def same_recordings(paths: Sequence[Path], prints: FloatArray) -> list[tuple[int, int]]:
    """Return the pairs of positions, the smaller one first, of files with the same recording."""
    return [(i, j) for i, j, _ in candidates(prints) if similarity(paths[i], paths[j]) >= CORRELATED]


def fingerprints(clips: Sequence[Clip], cache: Cache) -> FloatArray:
    """Return the fingerprints [N, 100, 10] of clips; zeros for a silent clip.

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
    """

    def key(clip: Clip) -> str:
        return Cache.key(step="fingerprint", version=VERSION, clip=audio.clip_digest(clip))

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, FloatArray], None, None]:
        for number, clip in enumerate(missing):
            yield number, fingerprint_of(audio.load(clip.path, RATE_HZ, duration_s=LONGEST_S))

    shape = (FRAMES, SIZE)
    prints = np.empty((len(clips), *shape), dtype=np.float32)
    computation = CachedComputation(cache, key, compute, array_format(shape), "fingerprints")
    with closing(computation.each(clips)) as results:
        for position, values in results:
            prints[position] = values
    return prints


def fingerprint_of(samples: FloatArray) -> FloatArray:
    """Return the fingerprint [100, 10] of a waveform [T] at `RATE_HZ`; zeros for silence."""
    from scipy.fft import dct

    out = np.zeros((FRAMES, SIZE), dtype=np.float32)
    power = np.square(_spectra(samples[: int(LONGEST_S * RATE_HZ)], WINDOW, HOP, FFT))[:FRAMES] @ _filters().T
    total = power.sum(axis=1)
    if total.max() <= SILENCE:
        return out
    weights = _loudness(total, RANGE_DB)
    levels = 10.0 * np.log10(np.maximum(power, power.max() * 10 ** (-FLOOR_DB / 10)))
    centred = (levels - (levels * weights).sum(axis=0) / weights.sum()) * weights
    values = dct(centred, norm="ortho", axis=1)[:, :SIZE]
    values[:, 0] *= LEVEL_WEIGHT
    out[: len(values)] = values
    return out


def candidates(prints: FloatArray, threshold: float = THRESHOLD) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, cosine), i < j, of every pair of fingerprints whose cosine is at least the threshold."""
    for start in range(0, len(prints), BLOCK_CLIPS):
        cosines = cosines_of(prints[start : start + BLOCK_CLIPS], prints[start:])
        for i, j in np.argwhere(cosines >= threshold):
            if i < j:
                yield start + int(i), start + int(j), float(cosines[i, j])


def cosines_of(queries: FloatArray, references: FloatArray) -> FloatArray:
    """Return the cosines [N, M] of fingerprints at the best shift, over the overlap; 0 if no overlap is long enough."""
    energies = [_cumulative(prints) for prints in (queries, references)]
    flat = [prints.reshape(len(prints), -1) for prints in (queries, references)]
    best = np.zeros((len(queries), len(references)), dtype=np.float32)
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        starts, length = (max(0, shift), max(0, -shift)), FRAMES - abs(shift)
        parts = [v[:, at * SIZE : (at + length) * SIZE] for v, at in zip(flat, starts, strict=True)]
        of_query, of_reference = (
            _inverse_norms(energy, at, at + length) for energy, at in zip(energies, starts, strict=True)
        )
        cosines = parts[0] @ parts[1].T
        cosines *= of_query[:, None]
        cosines *= of_reference[None]
        np.maximum(best, cosines, out=best)
    return best


def similarity(first: Path, second: Path) -> float:
    """Return the correlation of the spectrograms of two files at the best shift and speed, 0 to 1; 0 for silence.

    The search ends at the first speed at which the files count as the same recording.

    Raises:
        BadClipError: if a file cannot be read.
    """
    return spectral_similarity(_magnitudes(first), _magnitudes(second))


def spectral_similarity(first: FloatArray, second: FloatArray, enough: float = CORRELATED) -> float:
    """Return the correlation of magnitude spectrograms [T, F], [U, F] at the best shift and speed, 0 to 1.

    The search ends at the first speed whose correlation is `enough`.
    """
    reference, best = _harmonics(first, 1.0), 0.0
    for speed in SPEEDS:
        best = max(best, _correlation(reference, _harmonics(second, speed)))
        if best >= enough:
            break
    return best


def magnitudes(samples: FloatArray) -> FloatArray:
    """Return the magnitude spectrogram [T, F] of the beginning of a waveform at `RATE_HZ`."""
    return _spectra(samples[: int((LONGEST_S + SHIFT_S) * RATE_HZ)], FINE_WINDOW, FINE_HOP, FFT)


@lru_cache(maxsize=256)
def _magnitudes(path: Path) -> FloatArray:
    return magnitudes(audio.load(path, RATE_HZ, duration_s=LONGEST_S + SHIFT_S))


def _spectra(samples: FloatArray, window: int, hop: int, size: int) -> FloatArray:
    """Return magnitudes [T, size / 2 + 1] of Hann windows; a waveform shorter than one window is padded."""
    count = 1 + max(0, -(-(len(samples) - window) // hop))
    padded = np.pad(samples, (0, max(0, window + hop * (count - 1) - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectra: FloatArray = np.abs(np.fft.rfft(frames * np.hanning(window), size)).astype(np.float32)
    return spectra


@lru_cache(maxsize=1)
def _filters() -> FloatArray:
    """Return the triangular bands [16, 513] with edges that are equally spaced on a logarithmic axis."""
    edges = np.geomspace(*BAND_EDGES_HZ, BANDS + 2)[:, None]
    bins = np.fft.rfftfreq(FFT, 1 / RATE_HZ)[None]
    rising, falling = (
        (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]),
        (edges[2:] - bins) / (edges[2:] - edges[1:-1]),
    )
    filters: FloatArray = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return filters


def _loudness(power: FloatArray, range_db: float) -> FloatArray:
    """Return weights [T, 1] from 1 in the loudest frame to 0 at `range_db` below it."""
    decibels = 10.0 * np.log10(np.maximum(power, SILENCE * power.max()) / power.max())
    weights: FloatArray = np.clip(1.0 + decibels / range_db, 0.0, 1.0)[:, None]
    return weights


def _cumulative(prints: FloatArray) -> FloatArray:
    """Return the energies [N, T + 1] of the frames before each frame."""
    energies = np.zeros((len(prints), prints.shape[1] + 1), dtype=np.float64)
    np.cumsum(np.square(prints).sum(axis=2), axis=1, out=energies[:, 1:])
    return energies


def _inverse_norms(energies: FloatArray, start: int, stop: int) -> FloatArray:
    """Return the inverse norm [N] of each fingerprint between two frames; 0 if this is less than `SHARE` of it."""
    part, whole = energies[:, stop] - energies[:, start], energies[:, -1]
    enough = (part >= SHARE * whole) & (part > SILENCE)
    inverse: FloatArray = np.where(enough, 1.0 / np.sqrt(np.where(enough, part, 1.0)), 0.0).astype(np.float32)
    return inverse


def _harmonics(spectrogram: FloatArray, speed: float) -> FloatArray:
    """Return [T, 128], the spectrogram as it is if the recording is played at this speed, without its envelope, dB."""
    from scipy.ndimage import uniform_filter1d

    moments = np.arange(int(len(spectrogram) / speed)) * speed
    values = _interpolated(spectrogram, np.minimum(moments, len(spectrogram) - 1))
    values = _interpolated(values.T, FINE_HZ / speed * FFT / RATE_HZ).T
    power = np.square(values).sum(axis=1)
    if power.max() <= SILENCE:
        return np.zeros_like(values)
    weights = _loudness(power, FINE_RANGE_DB)
    levels = 20.0 * np.log10(np.maximum(values, values.max() * 10 ** (-FINE_FLOOR_DB / 20)))
    levels -= uniform_filter1d(levels, ENVELOPE_POINTS, axis=1)
    harmonics: FloatArray = ((levels - (levels * weights).sum(axis=0) / weights.sum()) * weights).astype(np.float32)
    return harmonics


def _interpolated(values: FloatArray, positions: npt.NDArray[np.float64]) -> FloatArray:
    """Return the rows of `values` at fractional positions [N], linearly interpolated."""
    below = positions.astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    share = (positions - below).astype(np.float32)[:, None]
    between: FloatArray = values[below] * (1 - share) + values[above] * share
    return between


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Return the largest correlation of [T, K] and [U, K] over all shifts up to `SHIFT_S`, over the overlap."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(len(first) + len(second), real=True)
    spectra = rfft(first, size, axis=0) * np.conj(rfft(second, size, axis=0))
    products = irfft(spectra.sum(axis=1), size)
    shifts = np.arange(-MAX_FINE_SHIFT, MAX_FINE_SHIFT + 1)
    start = np.clip(shifts, 0, len(first))
    stop = np.clip(len(second) + shifts, start, len(first))
    norms = []
    for values, offset in ((first, 0), (second, shifts)):
        energy = _cumulative(values[None])[0]
        part = energy[np.clip(stop - offset, 0, len(values))] - energy[np.clip(start - offset, 0, len(values))]
        norms.append(np.where((part >= SHARE * energy[-1]) & (part > SILENCE), part, np.inf))
    return max(0.0, float((products[shifts % size] / np.sqrt(norms[0] * norms[1])).max()))
