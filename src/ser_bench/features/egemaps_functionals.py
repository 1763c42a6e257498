"""openSMILE's eGeMAPSv02 functionals: 88 numbers per row, computed by several processes, cached on disk.

The extended Geneva Minimalistic Acoustic Parameter Set (Eyben et al. 2016, IEEE Transactions on Affective Computing
7(2), 190–202) has statistics over time of pitch, jitter, loudness, shimmer, formants, spectral slopes and MFCC 1 to 4,
and the rate and length of voiced segments. openSMILE is made by audEERING. It is free for research but not for
commercial use, and an extra: `pip install 'ser-bench[egemaps]'`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ser_bench import audio, extras
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.config import AugmentConfig
from ser_bench.errors import BadClipError
from ser_bench.features import augmentation
from ser_bench.types import Clip, FloatArray, Row

FEATURE_SET = "eGeMAPSv02"
LENGTH = 88
SAMPLE_RATE_HZ = 16_000
"""All clips are resampled to it; otherwise the spectral measures would depend on the sampling rate of the file."""
REVISION = 2
"""Increase it when the same row gives other numbers than before: older cache entries are then not read.

Revision 1 did not clip samples, so that those beyond full scale had the opposite sign (see `functionals`).
"""
INT16_STEPS = 32_768
"""Integer steps from zero to full scale, by which opensmile multiplies samples."""
ROWS_IN_THIS_PROCESS = 64
"""Up to this many rows are computed in this process, which takes less time than starting others."""


@dataclass(frozen=True)
class _VariantOfClip:
    """A row to compute, with its clip."""

    clip: Clip
    variant: str


def extract(
    rows: Sequence[Row], clips: Mapping[str, Clip], variants: AugmentConfig, cache: Cache, processes: int | None = None
) -> FloatArray:
    """Return the functionals [N, 88] in openSMILE's order and units, not standardised.

    Args:
        rows: N rows.
        clips: id → clip.
        variants: strengths of noise and pitch shift.
        cache: where the results are stored, one entry per row.
        processes: number of processes; None: one for each core that this process may use.

    Raises:
        ConfigError: if openSMILE is not installed and a row is not cached.
        BadClipError: if a file cannot be read, or is too short for openSMILE.
        CacheError: if the cache cannot be written.
    """

    def key(row: Row) -> str:
        return Cache.key(
            step=FEATURE_SET,
            revision=REVISION,
            content=audio.clip_digest(clips[row.clip_id]),
            variant=row.variant,
            strength=augmentation.parameters(row.variant, variants),
            noise_of=row.clip_id if augmentation.is_noisy(row.variant) else "",
        )

    def compute(missing: Sequence[Row]) -> Generator[tuple[int, FloatArray], None, None]:
        check_installed()
        alone = len(missing) <= ROWS_IN_THIS_PROCESS or any(audio.is_held(clips[row.clip_id].path) for row in missing)
        count = 1 if alone else processes or len(os.sched_getaffinity(0))
        return _compute([_VariantOfClip(clips[row.clip_id], row.variant) for row in missing], variants, count)

    computation = CachedComputation(cache, key, compute, array_format(), "eGeMAPS", "row")
    values = np.empty((len(rows), LENGTH), dtype=np.float32)
    with closing(computation.each(rows)) as results:
        for position, vector in results:
            values[position] = vector
    return values


def check_installed() -> None:
    """Raise ConfigError if openSMILE is not installed."""
    extras.require("opensmile", "model=egemaps")


def functionals(samples: FloatArray) -> FloatArray:
    """Return the functionals [88] of samples [T] at 16 kHz; NaN if there are too few samples for openSMILE.

    Samples beyond full scale are clipped. Lossy formats, resampling and augmentation exceed full scale by some percent.
    opensmile multiplies by 32,768 and casts to int16, a cast that turns +1.0 into -1.0 and 1.1 into -0.9.
    """
    samples = np.clip(samples, -1.0, (INT16_STEPS - 1) / INT16_STEPS)
    with warnings.catch_warnings():  # openSMILE warns when it returns NaN; `_work` raises an error with the file's name
        warnings.simplefilter("ignore", UserWarning)
        values: FloatArray = _smile().process_signal(samples, SAMPLE_RATE_HZ).to_numpy(dtype=np.float32)[0]
    return values


def names() -> list[str]:
    """Return openSMILE's names of the 88 numbers, in order; some contain their unit.

    Raises:
        ConfigError: if openSMILE is not installed.
    """
    check_installed()
    return list(_smile().feature_names)


@lru_cache(maxsize=1)
def _smile() -> Any:
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def _compute(
    rows: Sequence[_VariantOfClip], variants: AugmentConfig, processes: int
) -> Generator[tuple[int, FloatArray], None, None]:
    """(position, functionals [88]) of every row, in the order in which they are completed."""
    if processes == 1:
        yield from ((position, _work(row, variants)) for position, row in enumerate(rows))
        return
    # Spawned and not forked: a fork of a process in which PyTorch has threads can wait for them without end.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(rows)), context, _leave_ctrl_c_to_the_parent)
    try:
        futures = {pool.submit(_work, row, variants): position for position, row in enumerate(rows)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # after an error or Ctrl-C, rows that were not started are cancelled
        pool.shutdown(cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(row: _VariantOfClip, variants: AugmentConfig) -> FloatArray:
    samples = augmentation.noisy(audio.load(row.clip.path, SAMPLE_RATE_HZ), row.clip.id, row.variant, variants)
    if augmentation.is_shifted(row.variant):
        samples = augmentation.pitch_shift_librosa(samples, SAMPLE_RATE_HZ, variants.pitch_semitones)
    values = functionals(samples)
    if not np.isfinite(values).all():
        raise BadClipError(
            f"{row.clip.path}: {len(samples) / SAMPLE_RATE_HZ:.2f} s are too short for openSMILE's eGeMAPS functionals"
        )
    return values
