"""Hidden states of clips from frozen Whisper encoders, pooled over time or frame by frame, cached on disk.

Each clip is decoded once for all encoders that miss it. It is encoded without Whisper's padding to 30 s. For pooled
states, the mean and the standard deviation over time of every layer are stored, so a later choice of layers, encoders
and heads needs no further computation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from cachetools import LRUCache

from ser_bench import audio, extras
from ser_bench.asr import whisper_weights
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.features.encoders.pooling import mean_and_deviation, shortest_first
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

    from ser_bench.features.encoders.whisper_encoder import WhisperEncoder

VERSION = 1
"""Increase it when the same clip and weights give other numbers than before: older cache entries are then not read."""
SAMPLE_RATE_HZ = 16_000
MAX_SAMPLES = 30 * SAMPLE_RATE_HZ
"""Whisper has position encodings for 30 s; the rest of a longer clip is left out."""
MIN_SAMPLES = 400
"""One window of the spectrogram; a shorter clip is padded to it with zeros."""
BATCH_CLIPS = 16
STATISTICS = ("mean", "std")
"""Pooled over time, of every hidden unit; the deviation is that of the population."""
KEY = "model.encoders"
"""Configuration key that names the encoders, for error messages."""
MEMORY_BYTES = 2**30
"""Limit of the pooled states that this process keeps in memory; CREMA-D with both encoders takes a third of it."""
_recent: LRUCache[tuple[Path, str], FloatArray] = LRUCache(MEMORY_BYTES, getsizeof=lambda pooled: pooled.nbytes)
"""(cache folder, key) → pooled states. All folds of a sweep need the same clips."""

Summary = Callable[[Sequence["torch.Tensor"], Sequence[int]], Iterator[FloatArray]]
"""(hidden states [B, T, width] of every layer, number of frames of each clip) → what is stored for each clip."""


class _Request(NamedTuple):
    """A clip and the encoder by which it is to be encoded."""

    clip: Clip
    encoder: str


def embed(clips: Sequence[Clip], encoder: str, others: Sequence[str], device: str, cache: Cache) -> FloatArray:
    """Return the pooled hidden states of one encoder.

    Args:
        clips: N clips.
        encoder: name in the table of weights without "whisper-" ("tiny.en", "base"), or a folder in CTranslate2's
            format.
        others: encoders whose states will be needed too. They are computed now, so that each clip is decoded once.
        device: where the encoders compute, in float32.
        cache: where the states are stored, one entry per clip and encoder.

    Returns:
        [N, layers, 2, width] float32, not standardised: mean and deviation of the output of every block, and last of
        the normalised output, which is the encoder's output in CTranslate2.

    Raises:
        BadClipError: if a clip cannot be read.
        ConfigError: if an encoder does not exist.
        WeightsError: if the weights are not available, or are not float16 or float32.
        CacheError: if the cache cannot be written.
    """
    if not clips:
        return np.zeros((0, 0, len(STATISTICS), 0), dtype=np.float32)

    def key(request: _Request) -> str:
        weights = whisper_weights.sha256(request.encoder, KEY)
        content = audio.clip_digest(request.clip)
        return Cache.key(step="embedding", version=VERSION, audio=content, weights=weights)

    computation = CachedComputation(
        cache,
        key,
        lambda missing: _encoded(missing, device, mean_and_deviation),
        array_format(),
        "encoder states",
    )
    requests = [_Request(clip, name) for name in dict.fromkeys([encoder, *others]) for clip in clips]
    keys = [(cache.folder, key(request)) for request in requests]
    pooled = {position: _recent[keys[position]] for position in range(len(requests)) if keys[position] in _recent}
    absent = [position for position in range(len(requests)) if position not in pooled]
    with closing(computation.each([requests[position] for position in absent])) as results:
        for number, values in results:
            pooled[absent[number]] = values
            if not cache.in_memory:
                _recent[keys[absent[number]]] = values
    return np.stack([pooled[position] for position in range(len(clips))])


def frames(clips: Sequence[Clip], encoder: str, layer: int, device: str, cache: Cache) -> Iterator[FloatArray]:
    """Yield the states over time of one layer, clip by clip, one frame every 20 ms.

    Args:
        clips: N clips.
        encoder: as in `embed`.
        layer: index among the layers that `embed` returns.
        device: where the encoder computes.
        cache: where the states are stored in half precision: 96 kB for 2.5 s and a width of 384.

    Yields:
        [T, width] float16 of each clip, in order.

    Raises:
        BadClipError, ConfigError, WeightsError, CacheError: as in `embed`.
    """
    weights = whisper_weights.sha256(encoder, KEY)

    def key(clip: Clip) -> str:
        content = audio.clip_digest(clip)
        return Cache.key(step="frames", version=VERSION, audio=content, weights=weights, layer=layer)

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, FloatArray], None, None]:
        return _encoded([_Request(clip, encoder) for clip in missing], device, _frames_of_layer(layer))

    yield from CachedComputation(cache, key, compute, array_format(), "encoder frames").stream(clips)


def _encoded(
    requests: Sequence[_Request], device: str, summary: Summary
) -> Generator[tuple[int, FloatArray], None, None]:
    """(position, summary of the states) of each request; the shortest clips come first."""
    extras.require("faster_whisper", "model=whisper_probe")  # before weights are downloaded
    encoders = {
        name: _encoder(whisper_weights.home(name, KEY) / whisper_weights.MODEL_FILE, device)
        for name in dict.fromkeys(request.encoder for request in requests)
    }
    spectrograms = {encoder.mels: _spectrogram(encoder.mels) for encoder in encoders.values()}
    positions = {request: position for position, request in enumerate(requests)}
    clips = list(dict.fromkeys(request.clip for request in requests))
    for batch in ([clips[i] for i in members] for members in shortest_first(clips, BATCH_CLIPS)):
        waves = [_samples(clip) for clip in batch]
        padded = {mels: _stacked([log_mel(wave) for wave in waves]) for mels, log_mel in spectrograms.items()}
        for name, encoder in encoders.items():
            rows = [row for row, clip in enumerate(batch) if (clip, name) in positions]
            if rows:
                mel, counts = padded[encoder.mels]
                lengths = [counts[row] for row in rows]
                states = encoder(mel[rows, :, : max(lengths)], lengths)
                summaries = summary(states, [(length + 1) // 2 for length in lengths])
                for row, values in zip(rows, summaries, strict=True):
                    yield positions[_Request(batch[row], name)], values


@lru_cache(maxsize=2)
def _encoder(path: Path, device: str) -> WhisperEncoder:
    """The encoder in a file. It stays in memory, because reading it takes longer than encoding a clip."""
    from ser_bench.features.encoders.whisper_encoder import WhisperEncoder

    return WhisperEncoder(path, device)


def _frames_of_layer(layer: int) -> Summary:
    """[T, width] float16 of one layer."""

    def summary(states: Sequence[torch.Tensor], lengths: Sequence[int]) -> Iterator[FloatArray]:
        for row, length in enumerate(lengths):
            yield states[layer][row, :length].half().cpu().numpy()

    return summary


def _samples(clip: Clip) -> FloatArray:
    wave = audio.load(clip.path, SAMPLE_RATE_HZ)[:MAX_SAMPLES]
    return np.pad(wave, (0, max(0, MIN_SAMPLES - len(wave))))


@lru_cache(maxsize=2)
def _spectrogram(mels: int) -> Any:
    """Samples [T] → log-mel [mels, T // 160], as in the training of Whisper."""
    from faster_whisper.feature_extractor import FeatureExtractor

    extractor = FeatureExtractor(feature_size=mels)
    return lambda wave: extractor(wave, padding=0).astype(np.float32)


def _stacked(spectrograms: Sequence[FloatArray]) -> tuple[FloatArray, list[int]]:
    """[B, mels, T] padded with zeros to the longest, and the number of frames of each."""
    lengths = [spectrogram.shape[1] for spectrogram in spectrograms]
    padded = [np.pad(s, ((0, 0), (0, max(lengths) - s.shape[1]))) for s in spectrograms]
    return np.stack(padded), lengths
