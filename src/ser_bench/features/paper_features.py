"""Spectral features of rows: from audio files through augmentation to ZCR | RMS | MFCC vectors, cached on disk.

Clips stream through a few threads, each of which loads, augments and computes a handful at a time, so memory holds
`features.batch_clips` clips at most, however large the corpus is. Each row is one cache entry under all that decides
it, so that only rows never seen with these parameters are computed.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, Engine, FeaturesConfig
from ser_bench.errors import ConfigError
from ser_bench.features import augmentation, paper_vector
from ser_bench.types import Clip, FloatArray, Row, digest_of

__all__ = ["cached", "extract", "fill", "length"]

length = paper_vector.length

FEATURES_VERSION = 1
"""Raise it when the same parameters give other numbers than before: older cache entries are then never read."""
CPU_CHUNK_CLIPS = 1
"""Four variants of one clip already fill a core's cache; larger batches are slower on a CPU."""
JOBS_PER_THREAD = 2
"""Begun and not yet taken: one in work, one waiting."""
LARGE_BLOCK_BYTES = 24 * 1024**2
"""Below 32 MiB, over which glibc never raises the limit."""
READING_SHOWN_AFTER_S = 3.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """The same missing variants of a few clips."""

    clips: tuple[Clip, ...]
    variants: tuple[str, ...]


@dataclass(frozen=True)
class _Result:
    """Vectors [C, V, D] of a job, and which of its clips hold no signal where they were read."""

    job: _Job
    vectors: FloatArray
    silent: tuple[str, ...]


def extract(
    rows: Sequence[Row], clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> FloatArray:
    """Vectors [N, D] float32 of N rows, in the order asked, not standardised; D = `length(features)`.

    Raises:
        BadClipError: a file cannot be read.
        CacheError: the cache cannot be written.
        ConfigError: a variant or a device that does not exist.
    """
    out = np.zeros((len(rows), length(features)), dtype=np.float32)
    places: dict[Row, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row, []).append(place)

    def put(row: Row, values: FloatArray) -> None:
        out[places[row]] = values

    _stream(list(places), clips, features, strength, cache, put)
    return out


def cached(
    rows: Sequence[Row], clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> FloatArray | None:
    """As `extract`, but nothing is computed: None where a row is not in the cache."""
    _check(features, strength)
    out = np.empty((len(rows), length(features)), dtype=np.float32)
    keys = _keys(rows, clips, features, strength)
    for place, row in enumerate(rows):
        payload = cache.read(keys[row])
        if payload is None or len(payload) != out.itemsize * out.shape[1]:
            return None
        out[place] = np.frombuffer(payload, dtype="<f4")
    return out


def fill(
    rows: Iterable[Row], clips: Mapping[str, Clip], features: FeaturesConfig, strength: AugmentConfig, cache: Cache
) -> int:
    """As `extract`, but into the cache alone, so that memory stays flat; returns how many rows were computed."""
    return _stream(list(dict.fromkeys(rows)), clips, features, strength, cache, lambda _row, _values: None)


def _stream(
    rows: Sequence[Row],
    clips: Mapping[str, Clip],
    features: FeaturesConfig,
    config: AugmentConfig,
    cache: Cache,
    put: Callable[[Row, FloatArray], None],
) -> int:
    """Hand every row's vector to `put`, from the cache or computed; returns how many were computed."""
    _check(features, config)
    keys = _keys(rows, clips, features, config)
    missing: dict[str, list[str]] = {}
    bytes_expected = 4 * length(features)
    for row in tqdm(rows, desc="cached features", unit="row", disable=None, delay=READING_SHOWN_AFTER_S, leave=False):
        payload = cache.read(keys[row])
        if payload is None or len(payload) != bytes_expected:
            missing.setdefault(row.clip_id, []).append(row.variant)
        else:
            put(row, np.frombuffer(payload, dtype="<f4"))
    silent: list[str] = []
    with (
        closing(_compute(list(_jobs(missing, clips, features)), features, config)) as results,
        tqdm(total=len(missing), desc="spectral features", unit="clip", disable=None if missing else True) as bar,
    ):
        for result in results:
            for clip, vectors in zip(result.job.clips, result.vectors, strict=True):
                for variant, values in zip(result.job.variants, vectors, strict=True):
                    row = Row(clip.id, variant)
                    cache.write(keys[row], values.astype("<f4").tobytes())
                    put(row, values)
            silent += result.silent
            bar.update(len(result.job.clips))
    if silent:
        log.warning(
            "%d of %d clips hold no signal from features.offset_s=%g on, so their features are those of silence: %s",
            *(len(silent), len(missing), features.offset_s, ", ".join(silent[:5]) + (" …" if len(silent) > 5 else "")),
        )
    return sum(map(len, missing.values()))


def _check(features: FeaturesConfig, config: AugmentConfig) -> None:
    augmentation.check(config)
    if features.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"features.device={features.device}: torch sees no CUDA device; use features.device=cpu")


def _keys(
    rows: Sequence[Row], clips: Mapping[str, Clip], features: FeaturesConfig, config: AugmentConfig
) -> dict[Row, str]:
    """A cache key a row, made of all that decides its vector; the device and the batch size do not."""
    settings = asdict(features) | {name: getattr(features, name).value for name in ("engine", "pad", "mfcc_order")}
    for name in ("pitch", "batch_clips", "device"):
        del settings[name]
    digest = digest_of(settings)
    strengths = {variant: augmentation.parameters(variant, config) for variant in {row.variant for row in rows}}
    contents = {clip_id: _content(clips[clip_id]) for clip_id in {row.clip_id for row in rows}}
    return {
        row: Cache.key(
            step="spectral",
            version=FEATURES_VERSION,
            settings=digest,
            content=contents[row.clip_id],
            variant=row.variant,
            strength=strengths[row.variant],
            noise_of=row.clip_id if augmentation.is_noisy(row.variant) else "",
        )
        for row in rows
    }


def _content(clip: Clip) -> str:
    """Digest of the file's bytes."""
    return clip.digest or hashlib.blake2b(clip.path.read_bytes(), digest_size=audio.DIGEST_BYTES).hexdigest()


def _jobs(missing: Mapping[str, Sequence[str]], clips: Mapping[str, Clip], features: FeaturesConfig) -> Iterator[_Job]:
    """Clips that lack the same variants, in chunks that fit the device."""
    chunk = max(1, features.batch_clips // (JOBS_PER_THREAD * _threads()))
    if features.device == "cpu":
        chunk = min(chunk, CPU_CHUNK_CLIPS)
    groups: dict[tuple[str, ...], list[Clip]] = {}
    for clip_id, variants in missing.items():
        groups.setdefault(tuple(variants), []).append(clips[clip_id])
    for variants, members in groups.items():
        for start in range(0, len(members), chunk):
            yield _Job(tuple(members[start : start + chunk]), variants)


def _compute(jobs: Sequence[_Job], features: FeaturesConfig, config: AugmentConfig) -> Generator[_Result, None, None]:
    """Results in the order of the jobs, computed by as many threads as PyTorch was given."""
    if not jobs:
        return
    threads = _threads()
    _keep_freed_memory()
    with _one_torch_thread_each(), ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[_Result]] = deque()
        for job in jobs:
            begun.append(pool.submit(_work, job, features, config))
            if len(begun) == JOBS_PER_THREAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _keep_freed_memory() -> None:
    """Let the C library keep what a clip frees for the next clip.

    glibc gives freed memory back to the system beyond twice the largest block that was ever freed (mallopt(3), dynamic
    mmap threshold); the page faults of taking it again were a quarter of the time. One large block, allocated, never
    touched and freed, raises that limit. Elsewhere this does nothing.
    """
    import torch

    torch.empty(LARGE_BLOCK_BYTES, dtype=torch.uint8)


@contextmanager
def _one_torch_thread_each() -> Iterator[None]:
    """Clips side by side on several threads are faster than several threads on the small arrays of one clip."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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

    by_size = sorted(range(len(waves)), key=lambda c: len(waves[c]))  # under pad=vector sizes differ
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
