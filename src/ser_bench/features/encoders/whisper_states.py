"""Clips → hidden states of frozen Whisper encoders, pooled over time, cached on disk.

A clip is decoded once for all encoders that still miss it, and heard with its own frames, without Whisper's padding to
30 s. Of each layer its mean and its standard deviation over time are kept, so that every choice of layers, encoders
and heads afterwards is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache
from tqdm import tqdm

from ser_bench import audio
from ser_bench.asr import whisper_weights
from ser_bench.cache import Cache
from ser_bench.errors import CacheError
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Raised when the same clip and weights would give other numbers: old cache entries are then not read."""
SAMPLE_RATE_HZ = 16_000
MAX_SAMPLES = 30 * SAMPLE_RATE_HZ
"""Whisper has no positions beyond; what follows in a longer clip is not heard."""
MIN_SAMPLES = 400
"""One window of the spectrogram; a shorter clip is padded with silence to it."""
BATCH_CLIPS = 16
STATISTICS = ("mean", "std")
"""Over time, of every hidden unit; the deviation is the population's."""
KEY = "model.encoders"
Wanted = Callable[[Clip, str], bool]
"""(clip, encoder) → whether that encoder has to hear it."""
Kept = Callable[[Sequence["torch.Tensor"], Sequence[int]], Iterator[FloatArray]]
"""What `Encoder` answers for a batch → what is kept of each clip."""
MEMORY_BYTES = 2**30
"""Of what this process has read or computed: CREMA-D by both encoders takes a third of it."""
_recent: LRUCache[tuple[Path, str], FloatArray] = LRUCache(MEMORY_BYTES, getsizeof=lambda pooled: pooled.nbytes)
"""(cache folder, key) → pooled states: all folds of a sweep ask for the same clips."""


def embed(clips: Sequence[Clip], encoder: str, others: Sequence[str], device: str, cache: Cache) -> FloatArray:
    """Pooled hidden states of one encoder.

    Args:
        clips: N clips.
        encoder: name in the table of weights without "whisper-" ("tiny.en", "base"), or a folder in CTranslate2's
            format.
        others: encoders that will be asked for too: a clip that is decoded now is heard by them as well.
        device: where the encoder computes, in float32.
        cache: where the result is kept, one entry a clip and encoder.

    Returns:
        [N, layers, 2, width] float32, not standardised: mean and deviation of every block's output, and last of the
        normalised output, which is what CTranslate2 calls the encoder's.

    Raises:
        BadClipError: a clip cannot be read.
        ConfigError: no such encoder.
        WeightsError: its weights cannot be had, or are not float16 or float32.
        CacheError: the cache cannot be written.
    """
    names = list(dict.fromkeys([encoder, *others]))
    keys = {clip.id: _key(clip, encoder) for clip in clips}
    found = {clip_id: pooled for clip_id, key in keys.items() if (pooled := _known(cache, key)) is not None}
    missing = [clip for clip in {clip.id: clip for clip in clips}.values() if clip.id not in found]
    if missing:
        new = lambda clip, name: cache.read(_key(clip, name)) is None  # noqa: E731
        for clip, name, pooled in _computed(missing, names, device, new, pool):
            cache.write_array(_key(clip, name), pooled)
            _recent[cache.folder, _key(clip, name)] = pooled
            if name == encoder:
                found[clip.id] = pooled
    if not clips:
        return np.zeros((0, 0, len(STATISTICS), 0), dtype=np.float32)
    return np.stack([found[clip.id] for clip in clips])


def frames(clips: Sequence[Clip], encoder: str, layer: int, device: str, cache: Cache) -> Iterator[FloatArray]:
    """States over time of one layer, clip by clip, one position every 20 ms.

    Args:
        clips: N clips.
        encoder: as `embed`'s.
        layer: place among the layers that `embed` returns.
        device: where the encoder computes.
        cache: where they are kept in half precision: 96 kB for 2.5 s and a width of 384.

    Yields:
        [T, width] float16 of each clip, in order.

    Raises:
        BadClipError, ConfigError, WeightsError, CacheError: as `embed`.
    """
    weights = whisper_weights.sha256(encoder, KEY)
    keys = {
        c.id: Cache.key(step="frames", version=VERSION, audio=c.digest, weights=weights, layer=layer) for c in clips
    }
    missing = [clip for clip in {clip.id: clip for clip in clips}.values() if cache.read(keys[clip.id]) is None]
    for clip, _, own in _computed(missing, [encoder], device, lambda *_: True, _only(layer)) if missing else ():
        cache.write_array(keys[clip.id], own)
    for clip in clips:
        found = cache.read_array(keys[clip.id])
        if found is None:
            raise CacheError(f"{cache.folder}: what was written is not there any more; do not empty it under a run")
        yield found


def _known(cache: Cache, key: str) -> FloatArray | None:
    """From memory or from the cache."""
    pooled = _recent.get((cache.folder, key))
    if pooled is None and (pooled := cache.read_array(key)) is not None:
        _recent[cache.folder, key] = pooled
    return pooled


def _key(clip: Clip, encoder: str) -> str:
    weights = whisper_weights.sha256(encoder, KEY)
    return Cache.key(step="embedding", version=VERSION, audio=clip.digest, weights=weights)


def _computed(
    clips: Sequence[Clip], names: Sequence[str], device: str, wanted: Wanted, kept: Kept
) -> Iterator[tuple[Clip, str, FloatArray]]:
    """(clip, encoder, what is kept of its states) of all clips that are wanted of an encoder; shortest clips first."""
    from ser_bench.features.encoders.whisper_encoder import Encoder

    encoders = {name: Encoder(whisper_weights.home(name, KEY) / whisper_weights.MODEL_FILE, device) for name in names}
    spectrograms = {encoder.mels: _spectrogram(encoder.mels) for encoder in encoders.values()}
    ordered = sorted(clips, key=lambda clip: clip.duration_s)
    with tqdm(total=len(clips), desc="embeddings", unit="clip", disable=None, leave=False) as bar:
        for start in range(0, len(ordered), BATCH_CLIPS):
            batch = ordered[start : start + BATCH_CLIPS]
            waves = [_samples(clip) for clip in batch]
            batches = {mels: _stacked([of(wave) for wave in waves]) for mels, of in spectrograms.items()}
            for name, encoder in encoders.items():
                new = [i for i, clip in enumerate(batch) if wanted(clip, name)]
                mel, frames = batches[encoder.mels]
                own = [frames[i] for i in new]
                if new:
                    states = encoder(mel[new, :, : max(own)], own)
                    yield from zip((batch[i] for i in new), [name] * len(new), kept(states, own), strict=True)
            bar.update(len(batch))


def pool(states: Sequence[torch.Tensor], frames: Sequence[int]) -> Iterator[FloatArray]:
    """[layers, 2, width] mean and deviation over its own positions of each clip, from `Encoder`'s answer."""
    import torch

    for i, count in enumerate(frames):
        own = torch.stack([state[i, : (count + 1) // 2] for state in states])
        deviation, mean = torch.std_mean(own, dim=1, correction=0)
        yield torch.stack([mean, deviation], dim=1).cpu().numpy()


def _only(layer: int) -> Kept:
    """One layer's states [T, width] of each clip, float16."""

    def kept(states: Sequence[torch.Tensor], frames: Sequence[int]) -> Iterator[FloatArray]:
        for i, count in enumerate(frames):
            yield states[layer][i, : (count + 1) // 2].half().cpu().numpy()

    return kept


def _samples(clip: Clip) -> FloatArray:
    wave = audio.load(clip.path, SAMPLE_RATE_HZ)[:MAX_SAMPLES]
    return np.pad(wave, (0, max(0, MIN_SAMPLES - len(wave))))


def _spectrogram(mels: int) -> Any:
    """Samples [T] → log-mel [mels, T // 160], as Whisper was trained on."""
    from faster_whisper.feature_extractor import FeatureExtractor

    extractor = FeatureExtractor(feature_size=mels)
    return lambda wave: extractor(wave, padding=0).astype(np.float32)


def _stacked(spectrograms: Sequence[FloatArray]) -> tuple[FloatArray, list[int]]:
    """[B, mels, T] padded with zeros to the longest, and how many frames each has of its own."""
    frames = [one.shape[1] for one in spectrograms]
    padded = [np.pad(one, ((0, 0), (0, max(frames) - one.shape[1]))) for one in spectrograms]
    return np.stack(padded), frames
