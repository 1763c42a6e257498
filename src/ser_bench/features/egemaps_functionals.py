"""openSMILE's eGeMAPSv02 functionals: 88 numbers of a whole row, computed by several processes, cached on disk.

The extended Geneva Minimalistic Acoustic Parameter Set (Eyben et al. 2016, IEEE Transactions on Affective Computing
7(2), 190–202): statistics over time of pitch, jitter, loudness, shimmer, formants, spectral slopes and MFCC 1 to 4, and
of how often and how long there is voice. openSMILE is audEERING's, free for research and not for commercial use; it is
an extra, `pip install 'ser-bench[egemaps]'`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from typing import Any

import numpy as np
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.features import augmentation
from ser_bench.types import Clip, FloatArray, Row

FEATURE_SET = "eGeMAPSv02"
LENGTH = 88
SAMPLE_RATE_HZ = 16_000
"""All clips are brought to it: the set's spectral measures would else depend on the rate of the file."""
REVISION = 1
"""Raised when the same row would give other numbers than before, so that cached values are not read."""
ALONE = 64
"""So few rows are sooner computed here than by processes that must first start."""


@dataclass(frozen=True)
class _Job:
    """A row that is not cached, with its clip and its key."""

    row: Row
    clip: Clip
    key: str


def extract(
    rows: Sequence[Row], clips: Mapping[str, Clip], variants: AugmentConfig, cache: Cache, processes: int | None = None
) -> FloatArray:
    """[N, 88] in openSMILE's order of names and its units, not standardised.

    Args:
        rows: in the order wanted.
        clips: by id.
        variants: strengths of noise and pitch shift.
        cache: one entry a row.
        processes: how many compute; None: one a core that this process may use.

    Raises:
        ConfigError: openSMILE is not installed, and a row is not cached.
        BadClipError: a file that cannot be read, or is too short for openSMILE.
        CacheError: the cache cannot be written.
    """
    found: dict[Row, Any] = {}
    missing: dict[Row, _Job] = {}
    for row in rows:
        key = _key(row, clips[row.clip_id], variants)
        found[row] = cache.read_array(key)
        if found[row] is None:
            missing[row] = _Job(row, clips[row.clip_id], key)
    if missing:
        check_installed()
    count = 1 if len(missing) <= ALONE else processes or len(os.sched_getaffinity(0))
    with (
        closing(_computed(list(missing.values()), variants, count)) as results,
        tqdm(total=len(missing), desc="eGeMAPS", unit="row", disable=None if missing else True) as bar,
    ):
        for job, values in results:
            cache.write_array(job.key, values)
            found[job.row] = values
            bar.update()
    return np.array([found[row] for row in rows], dtype=np.float32).reshape(len(rows), LENGTH)


def check_installed() -> None:
    """Raise ConfigError where openSMILE is not here."""
    if util.find_spec("opensmile") is None:
        raise ConfigError(
            "model=egemaps needs openSMILE, which is not installed: pip install 'ser-bench[egemaps]' "
            "(audEERING's licence: research, not commercial use)"
        )


def functionals(samples: FloatArray) -> FloatArray:
    """[88] of samples [T] at 16 kHz; NaN where they are too few for openSMILE."""
    with warnings.catch_warnings():  # it warns where it fills with NaN; `_work` names the clip instead
        warnings.simplefilter("ignore", UserWarning)
        values: FloatArray = _smile().process_signal(samples, SAMPLE_RATE_HZ).to_numpy(dtype=np.float32)[0]
    return values


def names() -> list[str]:
    """openSMILE's names of the 88 numbers, in order, some with their units.

    Raises:
        ConfigError: openSMILE is not installed.
    """
    check_installed()
    return list(_smile().feature_names)


@lru_cache(maxsize=1)
def _smile() -> Any:
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def _key(row: Row, clip: Clip, variants: AugmentConfig) -> str:
    """Of all that decides a row's numbers."""
    content = clip.digest or hashlib.blake2b(clip.path.read_bytes(), digest_size=audio.DIGEST_BYTES).hexdigest()
    return Cache.key(
        step=FEATURE_SET,
        revision=REVISION,
        content=content,
        variant=row.variant,
        strength=augmentation.parameters(row.variant, variants),
        noise_of=row.clip_id if augmentation.is_noisy(row.variant) else "",
    )


def _computed(
    jobs: Sequence[_Job], variants: AugmentConfig, processes: int
) -> Generator[tuple[_Job, FloatArray], None, None]:
    """Each job with its numbers, in the order in which they are done."""
    if processes == 1:
        yield from ((job, _work(job, variants)) for job in jobs)
        return
    # Spawned and not forked: a fork of a process in which PyTorch has threads may wait for them for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, _leave_ctrl_c_to_the_parent)
    try:
        futures = {pool.submit(_work, job, variants): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # after an error or Ctrl-C, what has not begun is not begun
        pool.shutdown(cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: _Job, variants: AugmentConfig) -> FloatArray:
    samples = augmentation.noisy(audio.load(job.clip.path, SAMPLE_RATE_HZ), job.clip.id, job.row.variant, variants)
    if augmentation.is_shifted(job.row.variant):
        samples = augmentation.pitch_shift_librosa(samples, SAMPLE_RATE_HZ, variants.pitch_semitones)
    values = functionals(samples)
    if not np.isfinite(values).all():
        raise BadClipError(
            f"{job.clip.path}: {len(samples) / SAMPLE_RATE_HZ:.2f} s are too short for openSMILE's eGeMAPS functionals"
        )
    return values
