"""Detection rate and false alarms of fingerprints on real recordings.

    python benchmarks/fingerprint.py --corpus cremad --root CREMA-D/AudioWAV --clips 300
    python benchmarks/fingerprint.py --corpus emodb --root emodb
    python benchmarks/fingerprint.py --corpus cremad --root copy/AudioWAV --other CREMA-D/AudioWAV

The benchmark takes `--clips` clips, spread evenly over the speakers. Each is encoded again or changed as in `CHANGES`,
and compared with itself. For false alarms, every clip of the corpus is compared with every other one; the most similar
ones have the same speaker and sentence. Pairs with the same bytes do not count. The correlation of the waveforms shows
whether a pair is one recording in two encodings, and so not a false alarm. With `--other`, the clips of a second copy
of the corpus, whose encoding is different, are compared with those of the same names.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from ser_bench import audio, config, corpora
from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, Config, CorpusConfig, FeaturesConfig, Protocol, SplitConfig
from ser_bench.corpora.audio_files import find_audio
from ser_bench.features import fingerprint, paper_features, paper_vector
from ser_bench.types import Clip, FloatArray, clean_rows

FEATURES = FeaturesConfig()
AUGMENT = AugmentConfig(name="none", variants=["clean"])
CANDIDATES = (0.76, 0.80, 0.84, 0.88)
PAIRS_SHOWN = 20
Sound = tuple[FloatArray, int]


def encoded(kind: str, subtype: str | None = None) -> Callable[[Sound], Sound]:
    """Return a change that writes a sound in a format and reads it."""

    def change(sound: Sound) -> Sound:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound[0], sound[1], format=kind, subtype=subtype)
        buffer.seek(0)
        samples, rate = soundfile.read(buffer, dtype="float32")
        return samples, rate

    return change


def resampled(rate_hz: int) -> Callable[[Sound], Sound]:
    """Return a change that resamples a sound to another rate and back."""
    return lambda sound: (audio.resample(audio.resample(sound[0], sound[1], rate_hz), rate_hz, sound[1]), sound[1])


def noisy(snr_db: float) -> Callable[[Sound], Sound]:
    """Return a change that adds white noise at this ratio to the mean power of the clip."""

    def change(sound: Sound) -> Sound:
        samples, rate = sound
        level = np.sqrt(np.square(samples).mean()) * 10 ** (-snr_db / 20)
        return samples + (level * np.random.default_rng(0).standard_normal(len(samples))).astype(np.float32), rate

    return change


CHANGES: dict[str, Callable[[Sound], Sound]] = {
    "FLAC": encoded("FLAC", "PCM_16"),
    "Ogg Vorbis": encoded("OGG", "VORBIS"),
    "MP3": encoded("MP3"),
    "to 8 kHz and back": resampled(8_000),
    "12 dB softer": lambda sound: (sound[0] * np.float32(0.25), sound[1]),
    "5 ms cut off the front": lambda sound: (sound[0][round(0.005 * sound[1]) :], sound[1]),
    "30 ms cut off the front": lambda sound: (sound[0][round(0.03 * sound[1]) :], sound[1]),
    "noise at 30 dB": noisy(30.0),
    "noise at 20 dB": noisy(20.0),
    "12 dB louder, clipped": lambda sound: (np.clip(sound[0] * 4, -1, 1), sound[1]),
}


def vector_of(sound: Sound) -> FloatArray:
    """Return the vector [2376] of a sound in memory, cut as `audio.load` cuts a file."""
    samples, rate = sound
    start = int(FEATURES.offset_s * rate)
    part = samples[start : start + int(FEATURES.duration_s * rate)]
    part = paper_vector.fit(audio.resample(part, rate, FEATURES.sample_rate_hz), FEATURES)
    vector: FloatArray = paper_vector.by_torch(torch.from_numpy(part)[None], FEATURES)[0].numpy()
    return vector


def spread(vectors: FloatArray) -> FloatArray:
    """Return the standard deviation [9] of the coefficients, centred by clip, in frames within 20 dB of the loudest."""
    frames = paper_vector.frames_in(FEATURES)
    rms = vectors[:, frames : 2 * frames]
    loud = rms > 0.1 * rms.max(axis=1, keepdims=True)
    parts = [fingerprint.shapes(v[None])[0][frame] for v, frame in zip(vectors, loud, strict=True) if frame.any()]
    deviation: FloatArray = np.concatenate([part - part.mean(axis=0) for part in parts]).std(axis=0)
    return deviation


def paired(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cosines [N] of fingerprints with equal index."""
    cosines = [next(fingerprint.similarities(a[None], b[None]))[1][0, 0] for a, b in zip(first, second, strict=True)]
    return np.array(cosines, dtype=np.float32)


def correlated(first: Sequence[Sound], second: Sequence[Sound]) -> str:
    """Return the lowest correlation of waveforms with equal index, as text."""
    rate = fingerprint.WAVEFORM_HZ
    waves = [[audio.resample(samples, hz, rate) for samples, hz in sounds] for sounds in (first, second)]
    return f"{min(fingerprint.correlation(a, b) for a, b in zip(*waves, strict=True)):6.3f}"


def show(name: str, cosines: FloatArray, lowest: str = "") -> None:
    """Print minimum, 1st percentile and median, the detection rate at each threshold, and the lowest correlation."""
    shares = "  ".join(f"{(cosines >= threshold).mean():7.2%}" for threshold in CANDIDATES)
    low, median = np.quantile(cosines, [0.01, 0.5])
    print(f"  {name:26} {len(cosines):5}  {cosines.min():6.3f} {low:6.3f} {median:6.3f}   {shares}   {lowest}")


def false_alarms(clips: list[Clip], prints: FloatArray) -> None:
    """Print the nearest other clip of every clip, the pairs above each threshold, and the most similar pairs."""
    nearest = np.full(len(clips), -1.0, dtype=np.float32)
    pairs: list[tuple[float, int, int]] = []
    digests = np.array([clip.digest for clip in clips])
    for start, block in fingerprint.similarities(prints, prints):
        rows = np.arange(start, start + len(block))
        block[digests[rows][:, None] == digests[None]] = -1.0  # the clip itself, and pairs with the same bytes
        nearest[rows] = block.max(axis=1)
        pairs += [(float(block[i, j]), start + i, j) for i, j in np.argwhere(block >= CANDIDATES[0]) if start + i < j]
    show("nearest other clip", nearest)
    counts = ", ".join(f"{sum(pair[0] >= threshold for pair in pairs)} at {threshold}" for threshold in CANDIDATES)
    print(f"  pairs above a threshold among {len(clips) * (len(clips) - 1) // 2:,} pairs: {counts}")
    print("  the most similar pairs: cosine, correlation of the waveforms")
    for cosine, i, j in sorted(pairs, reverse=True)[:PAIRS_SHOWN]:
        waves = [audio.load(clips[k].path, fingerprint.WAVEFORM_HZ) for k in (i, j)]
        print(f"    {cosine:.3f} {fingerprint.correlation(*waves):.3f} {clips[i].id} {clips[j].id}")


def second_copy(clips: list[Clip], prints: FloatArray, root: Path) -> None:
    """Compare the clips of a second copy with those of the same names."""
    index = {clip.id: i for i, clip in enumerate(clips) if prints[i].any()}
    files = [path for path in find_audio(root) if path.stem in index]
    sounds = [audio.read(path) for path in files]
    rows = [index[path.stem] for path in files]
    others = fingerprint.fingerprints(np.stack([vector_of(sound) for sound in sounds]))
    lowest = correlated(sounds, [audio.read(clips[i].path) for i in rows])
    show("the second copy", paired(others, prints[rows]), lowest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="cremad")
    parser.add_argument("--root", required=True)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--other", type=Path, help="second copy of the same corpus; it can be incomplete")
    arguments = parser.parse_args()
    cfg = Config(
        corpus=CorpusConfig(name=arguments.corpus, root=arguments.root), split=SplitConfig(protocol=Protocol.speaker)
    )
    clips = sorted(corpora.load(cfg).clips, key=lambda clip: (clip.speaker, clip.id))
    by_id = {clip.id: clip for clip in clips}
    cache = Cache(config.cache_dir(cfg) / "spectral")
    vectors = paper_features.extract(clean_rows(by_id), by_id, FEATURES, AUGMENT, cache)
    prints = fingerprint.fingerprints(vectors)
    print(f"{arguments.corpus}: {len(clips)} clips, {int((~prints.any(axis=(1, 2))).sum())} of them silent")
    print(f"  spread of the coefficients, dB: {' '.join(f'{value:.1f}' for value in spread(vectors))}")
    print(
        f"  {'':26} {'clips':>5}  lowest     1% median   detected at "
        + "  ".join(f"{t:7.2f}" for t in CANDIDATES)
        + "   lowest correlation"
    )
    sounding = np.flatnonzero(prints.any(axis=(1, 2)))
    chosen = sounding[np.linspace(0, len(sounding) - 1, min(arguments.clips, len(sounding))).astype(int)]
    sounds = [audio.read(clips[i].path) for i in chosen]
    for name, change in CHANGES.items():
        changed = [change(sound) for sound in sounds]
        changed_prints = fingerprint.fingerprints(np.stack([vector_of(sound) for sound in changed]))
        show(name, paired(changed_prints, prints[chosen]), correlated(changed, sounds))
    if arguments.other:
        second_copy(clips, prints, arguments.other)
    false_alarms(clips, prints)
    return 0


if __name__ == "__main__":
    sys.exit(main())
