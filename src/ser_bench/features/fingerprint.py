"""Fingerprints of clips from their spectral vectors: the same recording is known again after it was encoded anew.

A fingerprint is the shape of the lower spectrum over time, with all that encoding changes taken away. From the clean
vector's MFCCs the smooth mel spectrum is restored (inverse DCT), of which only the 70 of 128 bands below 2.4 kHz are
kept, so that neither a codec's nor a telephone's upper limit matters; a second DCT gives nine coefficients of its
shape, without the level. Each loses its mean over the clip (microphone, equaliser), is divided by its usual spread,
and is weighted by how loud the frame is, from 1 in the loudest to 0 at 30 dB below it, so that padding and background
do not count. Two fingerprints are as similar as the cosine between them, at the best of five shifts of a frame (23 ms)
each.

Fingerprints find candidates, quickly and among millions of pairs; the waveforms decide (`correlation`). A synthesiser's
voices may have fingerprints as like as those of two encodings, but their waveforms have nothing in common.

`docs/audit.md` has what was measured, and with which command.
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
"""Cosine from which two clips are candidates; chosen with `benchmarks/fingerprint.py`, like the next."""
CORRELATED = 0.70
"""Correlation of the waveforms from which candidates are one recording."""
WAVEFORM_HZ = 8_000
BANDS, BAND_POINTS = 70, 20
"""The lowest bands kept, and at how many of them the smooth spectrum is read."""
SPREAD = (12.0, 12.8, 7.3, 6.3, 5.1, 4.4, 4.1, 3.7, 4.0)
"""Usual spread of the nine coefficients, dB; measured on CREMA-D by `benchmarks/fingerprint.py`."""
SIZE = len(SPREAD)
RANGE_DB = 30.0
MAX_SHIFT = 2
"""Frames."""
BLOCK_CLIPS = 512
SILENCE = 1e-9


def applies_to(features: FeaturesConfig) -> bool:
    """Whether vectors of these settings can be compared: the paper's, by either engine."""
    paper = FeaturesConfig()
    same = replace(features, engine=Engine.torch, batch_clips=paper.batch_clips, device=paper.device, pitch=paper.pitch)
    return same == paper


def fingerprints(vectors: FloatArray) -> FloatArray:
    """Fingerprints [N, 108, 9] of clean vectors [N, 2376], each of unit length; zeros where a clip is silent."""
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
    """Coefficients 1 to 9 [N, 108, 9] of the lower spectrum of vectors [N, 2376], dB, as they are."""
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
    """(query, reference, cosine) of every pair of fingerprints at or above the threshold."""
    for start, block in similarities(queries, references):
        for i, j in np.argwhere(block >= threshold):
            yield start + int(i), int(j), float(block[i, j])


def similarities(queries: FloatArray, references: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """(first query, cosines [block, M]) block by block, each cosine that of the best shift."""
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


def same_recording(one: Path, other: Path) -> bool:
    """Whether two audio files hold one recording, whatever their encoding, level, and a shift between them.

    Raises:
        BadClipError: a file cannot be read.
    """
    return correlation(audio.load(one, WAVEFORM_HZ), audio.load(other, WAVEFORM_HZ)) >= CORRELATED


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Largest absolute cross-correlation of two waveforms [T], [U] over all shifts, 0 to 1; 0 where one is silent."""
    from scipy.signal import correlate

    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.abs(correlate(one, other, method="fft")).max()) / norm if norm > SILENCE else 0.0


def _loudness(rms: FloatArray) -> FloatArray:
    """[N, 108] from 1 in the loudest frame to 0 at `RANGE_DB` below it; 0 throughout in a silent clip."""
    loudest = rms.max(axis=1, keepdims=True)
    decibels = 20.0 * np.log10(np.maximum(rms, SILENCE) / np.maximum(loudest, SILENCE))
    weights: FloatArray = np.clip(1.0 + decibels / RANGE_DB, 0.0, 1.0) * (loudest > SILENCE)
    return weights
