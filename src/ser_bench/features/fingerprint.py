"""Fingerprints of clips from their spectral vectors, which detect the same recording in another encoding.

A fingerprint is the shape of the lower spectrum over time, without the properties that encoding changes:

1. The inverse DCT of the MFCCs of the clean vector gives the smooth mel spectrum. Only the 70 of 128 bands below
   2.4 kHz are used, so the upper limit of a codec or a telephone has no effect.
2. A second DCT gives nine coefficients of its shape, without the level.
3. The mean of each coefficient over the clip is subtracted (microphone, equaliser). The rest is divided by the usual
   spread of the coefficient.
4. Each frame is weighted by its loudness, from 1 in the loudest frame to 0 at 30 dB below it, so padding and background
   have no effect.

The similarity of two fingerprints is their cosine, at the best of five shifts by one frame (23 ms) each.

Fingerprints find candidates quickly among millions of pairs. The decision is made with the waveforms (`correlation`):
voices of a synthesiser can have fingerprints as similar as those of two encodings, but their waveforms do not
correlate.

`docs/audit.md` has the measurements and the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ser_bench import audio
from ser_bench.config import FeaturesConfig
from ser_bench.config.choices import Engine
from ser_bench.features import paper_vector
from ser_bench.types import FloatArray

THRESHOLD = 0.80
"""Smallest cosine of two candidates. This and the next value were chosen with `benchmarks/fingerprint.py`."""
CORRELATED = 0.70
"""Smallest correlation of the waveforms of candidates that count as one recording."""
WAVEFORM_HZ = 8_000
BANDS, BAND_POINTS = 70, 20
"""The number of bands that are used, and at how many of them the smooth spectrum is sampled."""
SPREAD = (12.0, 12.8, 7.3, 6.3, 5.1, 4.4, 4.1, 3.7, 4.0)
"""Standard deviation of the nine coefficients, dB, measured on CREMA-D by `benchmarks/fingerprint.py`."""
SIZE = len(SPREAD)
RANGE_DB = 30.0
"""A frame that is softer than the loudest by this much has weight 0."""
MAX_SHIFT = 2
"""Largest shift in either direction, frames."""
BLOCK_CLIPS = 512
SILENCE = 1e-9


def applies_to(features: FeaturesConfig) -> bool:
    """Return whether fingerprints can be made with these settings: the paper's settings, with either engine."""
    paper = FeaturesConfig()
    same = replace(features, engine=Engine.torch, batch_clips=paper.batch_clips, device=paper.device, pitch=paper.pitch)
    return same == paper


def fingerprints(vectors: FloatArray) -> FloatArray:
    """Return the fingerprints [N, 108, 9] of clean vectors [N, 2376], each of unit length; zeros for a silent clip."""
    frames = paper_vector.frames_in(FeaturesConfig())
    out = np.empty((len(vectors), frames, SIZE), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_CLIPS):
        block = vectors[start : start + BLOCK_CLIPS]
        weights = _loudness(block[:, frames : 2 * frames])[..., None]
        values = shapes(block)
        total = np.maximum(weights.sum(axis=1, keepdims=True), SILENCE)
        centred = (values - (values * weights).sum(axis=1, keepdims=True) / total) * weights / np.array(SPREAD)
        norm = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
        out[start : start + BLOCK_CLIPS] = np.where(norm > SILENCE, centred / np.maximum(norm, SILENCE), 0.0)
    return out


def shapes(vectors: FloatArray) -> FloatArray:
    """Return coefficients 1 to 9 [N, 108, 9] of the lower spectrum of vectors [N, 2376], dB, not centred or scaled."""
    from scipy.fft import dct, idct

    features = FeaturesConfig()
    frames = paper_vector.frames_in(features)
    mfcc = vectors[:, 2 * frames :].reshape(len(vectors), frames, features.n_mfcc)
    points = np.linspace(2, BANDS, BAND_POINTS).round().astype(int)
    mel = idct(np.eye(features.n_mfcc, paper_vector.N_MELS), norm="ortho", axis=1)[:, points]
    to_shape = dct(mel, norm="ortho", axis=1)[:, 1 : SIZE + 1]
    values: FloatArray = mfcc @ to_shape.astype(np.float32)
    return values


def similar(
    queries: FloatArray, references: FloatArray, threshold: float = THRESHOLD
) -> Iterator[tuple[int, int, float]]:
    """Yield (query index, reference index, cosine) of every pair of fingerprints at or above the threshold."""
    for start, block in similarities(queries, references):
        for i, j in np.argwhere(block >= threshold):
            yield start + int(i), int(j), float(block[i, j])


def similarities(queries: FloatArray, references: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield (index of the first query, cosines [block, M] at the best shift) for each block of queries."""
    flat, frames = references.reshape(len(references), -1).T, queries.shape[1]
    for start in range(0, len(queries), BLOCK_CLIPS):
        block = queries[start : start + BLOCK_CLIPS]
        best = np.full((len(block), len(references)), -1.0, dtype=np.float32)
        for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
            moved = np.zeros_like(block)
            to, since = max(0, shift), max(0, -shift)
            moved[:, to : frames - since] = block[:, since : frames - to]
            np.maximum(best, moved.reshape(len(block), -1) @ flat, out=best)
        yield start, best


def same_recording(first: Path, second: Path) -> bool:
    """Return whether two audio files contain one recording; encoding, level and a shift between them do not matter.

    Raises:
        BadClipError: if a file cannot be read.
    """
    return correlation(audio.load(first, WAVEFORM_HZ), audio.load(second, WAVEFORM_HZ)) >= CORRELATED


def correlation(first: FloatArray, second: FloatArray) -> float:
    """Return the largest absolute cross-correlation of waveforms [T], [U] over all shifts, 0 to 1; 0 for silence."""
    from scipy.signal import correlate

    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.abs(correlate(first, second, method="fft")).max()) / norm if norm > SILENCE else 0.0


def _loudness(rms: FloatArray) -> FloatArray:
    """Weights [N, 108] from 1 in the loudest frame to 0 at `RANGE_DB` below it; all 0 in a silent clip."""
    loudest = rms.max(axis=1, keepdims=True)
    decibels = 20.0 * np.log10(np.maximum(rms, SILENCE) / np.maximum(loudest, SILENCE))
    weights: FloatArray = np.clip(1.0 + decibels / RANGE_DB, 0.0, 1.0) * (loudest > SILENCE)
    return weights
