"""The paper's features of rows: from audio files through augmentation to ZCR | RMS | MFCC vectors, cached on disk.

A few threads load, augment and compute a handful of clips at a time, so memory holds at most `features.batch_clips`
clips, whatever the size of the corpus. Each row has its own cache entry, whose key contains everything that decides the
vector. Only rows without an entry are computed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache as memoised
from itertools import groupby

import numpy as np

from ser_bench import audio
from ser_bench.cache import Cache, CachedComputation, float32_format
from ser_bench.config import AugmentConfig, Engine, FeaturesConfig
from ser_bench.errors import ConfigError
from ser_bench.features import augmentation, paper_vector
from ser_bench.features.torch_threads import one_torch_thread
from ser_bench.types import Clip, FloatArray, Row, digest_of

__all__ = ["extract", "fill", "length"]

length = paper_vector.length

FEATURES_VERSION = 1
"""Increase it when the same parameters give other numbers than before: older cache entries are then not read."""
CPU_CHUNK_CLIPS = 1
"""Clips in one job on a CPU. Four variants of a clip already fill a core's cache; larger batches are slower."""
JOBS_PER_THREAD = 2
"""Jobs that are submitted and not yet collected: one that is computed, one that waits."""
LARGE_BLOCK_BYTES = 24 * 1024**2
"""Less than 32 MiB, the largest threshold that glibc chooses by itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """A few clips of which the same variants are computed."""

    clips: tuple[Clip, ...]
    variants: tuple[str, ...]


@dataclass(frozen=True)
class _Result:
    """Vectors [C, V, D] of a job, and the ids of its clips that contain no signal in the part that is read."""

    job: _Job
    vectors: FloatArray
    silent: tuple[str, ...]


def extract(
    rows: Sequence[Row], clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> FloatArray:
    """Return the vectors [N, D] float32 of N rows, in order, not standardised; D = `length(features)`.

    Raises:
        BadClipError: if a file cannot be read.
        CacheError: if the cache cannot be written.
        ConfigError: if a variant or a device does not exist.
    """
    vectors = np.zeros((len(rows), length(features)), dtype=np.float32)
    with closing(_computation(clips, features, strength, cache).each(rows)) as results:
        for position, vector in results:
            vectors[position] = vector
    return vectors


def fill(
    rows: Iterable[Row], clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> int:
    """Compute the vectors that are not cached, without keeping them in memory; return how many were computed."""
    return _computation(clips, features, strength, cache).fill(list(rows))


def _computation(
    clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> CachedComputation[Row, FloatArray]:
    _check(features, strength)
    return CachedComputation(
        cache,
        _key_of(clips, features, strength),
        lambda missing: _compute(missing, clips, features, strength),
        float32_format(length(features)),
        "spectral features",
        "row",
    )


def _check(features: FeaturesConfig, config: AugmentConfig) -> None:
    augmentation.check(config)
    if features.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                f"features.device={features.device}: PyTorch finds no CUDA device; use features.device=cpu"
            )


def _key_of(clips: Mapping[str, Clip], features: FeaturesConfig, config: AugmentConfig) -> Callable[[Row], str]:
    """Row → cache key of everything that decides its vector; device and batch size do not."""
    settings = asdict(features) | {name: getattr(features, name).value for name in ("engine", "pad", "mfcc_order")}
    for name in ("pitch", "batch_clips", "device"):
        del settings[name]
    digest = digest_of(settings)
    content = memoised(lambda clip_id: audio.clip_digest(clips[clip_id]))

    def key(row: Row) -> str:
        return Cache.key(
            step="spectral",
            version=FEATURES_VERSION,
            settings=digest,
            content=content(row.clip_id),
            variant=row.variant,
            strength=augmentation.parameters(row.variant, config),
            noise_of=row.clip_id if augmentation.is_noisy(row.variant) else "",
        )

    return key


def _compute(
    rows: Sequence[Row], clips: Mapping[str, Clip], features: FeaturesConfig, config: AugmentConfig
) -> Generator[tuple[int, FloatArray], None, None]:
    """(position in `rows`, vector [D]) of every row, and at the end a warning if clips contain no signal."""
    positions = {row: position for position, row in enumerate(rows)}
    variants: dict[str, list[str]] = {}
    for row in rows:
        variants.setdefault(row.clip_id, []).append(row.variant)
    silent: list[str] = []
    with closing(_results(list(_jobs(variants, clips, features)), features, config)) as results:
        for result in results:
            for clip, vectors in zip(result.job.clips, result.vectors, strict=True):
                for variant, vector in zip(result.job.variants, vectors, strict=True):
                    yield positions[Row(clip.id, variant)], vector
            silent += result.silent
    if silent:
        log.warning(
            "warning  %d of %d clips contain no signal from features.offset_s=%g on, so their features are those of "
            "silence: %s",
            *(len(silent), len(variants), features.offset_s, ", ".join(silent[:5]) + (" …" if len(silent) > 5 else "")),
        )


def _jobs(variants: Mapping[str, Sequence[str]], clips: Mapping[str, Clip], features: FeaturesConfig) -> Iterator[_Job]:
    """Clips of which the same variants are missing, in chunks that suit the device."""
    chunk = max(1, features.batch_clips // (JOBS_PER_THREAD * _threads()))
    if features.device == "cpu":
        chunk = min(chunk, CPU_CHUNK_CLIPS)
    groups: dict[tuple[str, ...], list[Clip]] = {}
    for clip_id, names in variants.items():
        groups.setdefault(tuple(names), []).append(clips[clip_id])
    for group, members in groups.items():
        for start in range(0, len(members), chunk):
            yield _Job(tuple(members[start : start + chunk]), group)


def _results(jobs: Sequence[_Job], features: FeaturesConfig, config: AugmentConfig) -> Generator[_Result, None, None]:
    """Results in the order of the jobs, computed by as many threads as PyTorch uses."""
    if len(jobs) == 1:  # one new recording: starting threads takes longer than its features
        with one_torch_thread():
            result = _work(jobs[0], features, config)
        yield result
        return
    threads = _threads()
    _keep_freed_memory()
    with one_torch_thread(), ThreadPoolExecutor(threads) as pool:
        submitted: deque[Future[_Result]] = deque()
        for job in jobs:
            submitted.append(pool.submit(_work, job, features, config))
            if len(submitted) == JOBS_PER_THREAD * threads:
                yield submitted.popleft().result()
        while submitted:
            yield submitted.popleft().result()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _keep_freed_memory() -> None:
    """Make the C library keep the memory that a clip frees, so that the next clip can use it.

    Allocating and freeing one large block, which is never touched, raises glibc's threshold for memory that it returns
    to the system: twice the largest block that was ever freed (mallopt(3), dynamic mmap threshold). Without this, the
    page faults of allocating the same memory again took a quarter of the time. With other C libraries this has no
    effect.
    """
    import torch

    torch.empty(LARGE_BLOCK_BYTES, dtype=torch.uint8)


def _work(job: _Job, features: FeaturesConfig, config: AugmentConfig) -> _Result:
    rate, offset_s, duration_s = features.sample_rate_hz, features.offset_s, features.duration_s
    waves = [paper_vector.fit(audio.load(clip.path, rate, offset_s, duration_s), features) for clip in job.clips]
    silent = tuple(clip.id for clip, wave in zip(job.clips, waves, strict=True) if not wave.any())
    vectors = np.empty((len(job.clips), len(job.variants), length(features)), dtype=np.float32)
    engine = _by_torch if features.engine is Engine.torch else _by_librosa
    engine(job, waves, features, config, vectors)
    return _Result(job, vectors, silent)


def _by_librosa(
    job: _Job, waves: Sequence[FloatArray], features: FeaturesConfig, config: AugmentConfig, out: FloatArray
) -> None:
    for c, (clip, wave) in enumerate(zip(job.clips, waves, strict=True)):
        for v, variant in enumerate(job.variants):
            samples = augmentation.noisy(wave, clip.id, variant, config)
            if augmentation.is_shifted(variant):
                samples = augmentation.pitch_shift_librosa(samples, features.sample_rate_hz, config.pitch_semitones)
            out[c, v] = paper_vector.by_librosa(samples, features)


def _by_torch(
    job: _Job, waves: Sequence[FloatArray], features: FeaturesConfig, config: AugmentConfig, out: FloatArray
) -> None:
    import torch

    by_size = sorted(range(len(waves)), key=lambda c: len(waves[c]))  # sizes differ under pad=vector
    for size, group in groupby(by_size, key=lambda c: len(waves[c])):
        members = list(group)
        batch = np.empty((len(members), len(job.variants), size), dtype=np.float32)
        for row, c in zip(batch, members, strict=True):
            for v, variant in enumerate(job.variants):
                row[v] = augmentation.noisy(waves[c], job.clips[c].id, variant, config)
        samples = torch.from_numpy(batch).to(features.device)
        shifted = [v for v, variant in enumerate(job.variants) if augmentation.is_shifted(variant)]
        if shifted:
            moved = augmentation.pitch_shift(samples[:, shifted].flatten(0, 1), config.pitch_semitones)
            samples[:, shifted] = moved.view(len(members), len(shifted), size)
        vectors = paper_vector.by_torch(samples.flatten(0, 1), features)
        out[members] = vectors.cpu().numpy().reshape(len(members), len(job.variants), -1)
