"""Do fingerprints know a recording again, and only that one? Detection and false alarms on real recordings.

    python benchmarks/fingerprint.py --corpus cremad --root CREMA-D/AudioWAV --clips 300
    python benchmarks/fingerprint.py --corpus emodb --root emodb
    python benchmarks/fingerprint.py --corpus cremad --root copy/AudioWAV --other CREMA-D/AudioWAV

Each of `--clips` clips, spread evenly over the speakers, is encoded anew and changed in the ways listed below, then
compared with itself. False alarms are looked for by comparing every clip of the corpus with every other one: the
hardest are of the same speaker and sentence. Pairs of the same bytes do not count; whether a pair is one recording in
two encodings, and so no false alarm, is what the correlation of its waveforms tells. With `--other` the clips of a
second copy of the corpus are compared with those of the same names: known re-encodings by other hands.
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
from ser_bench.corpora.catalogue import find
from ser_bench.features import fingerprint, paper_features, paper_vector
from ser_bench.types import Clip, FloatArray, clean_rows

FEATURES = FeaturesConfig()
AUGMENT = AugmentConfig(name="none", variants=["clean"])
CANDIDATES = (0.76, 0.80, 0.84, 0.88)
PAIRS_SHOWN = 20
Sound = tuple[FloatArray, int]


def encoded(kind: str, subtype: str | None = None) -> Callable[[Sound], Sound]:
    """Written in a format, and read back."""

    def change(sound: Sound) -> Sound:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound[0], sound[1], format=kind, subtype=subtype)
        buffer.seek(0)
        samples, rate = soundfile.read(buffer, dtype="float32")
        return samples, rate

    return change


def resampled(rate_hz: int) -> Callable[[Sound], Sound]:
    """To another rate and back."""
    return lambda sound: (audio.resample(audio.resample(sound[0], sound[1], rate_hz), rate_hz, sound[1]), sound[1])


def noisy(snr_db: float) -> Callable[[Sound], Sound]:
    """White noise so far below the clip's mean power."""

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
    """[2376] of a sound in memory, cut as `audio.load` cuts a file."""
    samples, rate = sound
    start = int(FEATURES.offset_s * rate)
    part = samples[start : start + int(FEATURES.duration_s * rate)]
    part = paper_vector.fit(audio.resample(part, rate, FEATURES.sample_rate_hz), FEATURES)
    found: FloatArray = paper_vector.by_torch(torch.from_numpy(part)[None], FEATURES)[0].numpy()
    return found


def spread(vectors: FloatArray) -> FloatArray:
    """Standard deviation [9] of the coefficients over frames within 20 dB of the loudest, each clip's mean removed."""
    frames = paper_vector.frames_in(FEATURES)
    rms = vectors[:, frames : 2 * frames]
    loud = rms > 0.1 * rms.max(axis=1, keepdims=True)
    kept = [fingerprint.shapes(one[None])[0][keep] for one, keep in zip(vectors, loud, strict=True) if keep.any()]
    found: FloatArray = np.concatenate([part - part.mean(axis=0) for part in kept]).std(axis=0)
    return found


def paired(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosines [N] of fingerprints at equal places."""
    cosines = [next(fingerprint.similarities(a[None], b[None]))[1][0, 0] for a, b in zip(first, second, strict=True)]
    return np.array(cosines, dtype=np.float32)


def correlated(first: Sequence[Sound], second: Sequence[Sound]) -> str:
    """Lowest correlation of the waveforms at equal places, to print."""
    rate = fingerprint.WAVEFORM_HZ
    waves = [[audio.resample(samples, hz, rate) for samples, hz in sounds] for sounds in (first, second)]
    return f"{min(fingerprint.correlation(a, b) for a, b in zip(*waves, strict=True)):6.3f}"


def show(name: str, cosines: FloatArray, lowest: str = "") -> None:
    """One line: lowest, 1st percentile, median, share found at each candidate threshold; lowest correlation."""
    shares = "  ".join(f"{(cosines >= threshold).mean():7.2%}" for threshold in CANDIDATES)
    low, median = np.quantile(cosines, [0.01, 0.5])
    print(f"  {name:26} {len(cosines):5}  {cosines.min():6.3f} {low:6.3f} {median:6.3f}   {shares}   {lowest}")


def false_alarms(clips: list[Clip], prints: FloatArray) -> None:
    """Nearest other clip of every clip, the pairs that pass each threshold, and the five most alike."""
    nearest = np.full(len(clips), -1.0, dtype=np.float32)
    pairs: list[tuple[float, int, int]] = []
    digests = np.array([clip.digest for clip in clips])
    for start, block in fingerprint.similarities(prints, prints):
        own = np.arange(start, start + len(block))
        block[digests[own][:, None] == digests[None]] = -1.0  # itself, and pairs of the same bytes
        nearest[own] = block.max(axis=1)
        pairs += [(float(block[i, j]), start + i, j) for i, j in np.argwhere(block >= CANDIDATES[0]) if start + i < j]
    show("nearest other clip", nearest)
    counts = ", ".join(f"{sum(pair[0] >= threshold for pair in pairs)} at {threshold}" for threshold in CANDIDATES)
    print(f"  pairs alike among {len(clips) * (len(clips) - 1) // 2:,} pairs: {counts}")
    print("  the pairs that are most alike: cosine, correlation of the waveforms")
    for cosine, i, j in sorted(pairs, reverse=True)[:PAIRS_SHOWN]:
        waves = [audio.load(clips[k].path, fingerprint.WAVEFORM_HZ) for k in (i, j)]
        print(f"    {cosine:.3f} {fingerprint.correlation(*waves):.3f} {clips[i].id} {clips[j].id}")


def second_copy(clips: list[Clip], prints: FloatArray, root: Path) -> None:
    """Clips of a second copy against those of the same names."""
    place = {clip.id: i for i, clip in enumerate(clips) if prints[i].any()}
    files = [path for path in find(root) if path.stem in place]
    sounds = [audio.read(path) for path in files]
    ours = [place[path.stem] for path in files]
    others = fingerprint.fingerprints(np.stack([vector_of(sound) for sound in sounds]))
    lowest = correlated(sounds, [audio.read(clips[i].path) for i in ours])
    show("the second copy", paired(others, prints[ours]), lowest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="cremad")
    parser.add_argument("--root", required=True)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--other", type=Path, help="a second copy of the same corpus, of which some clips may do")
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
        f"  {'':26} {'clips':>5}  lowest     1% median   found at "
        + "  ".join(f"{t:7.2f}" for t in CANDIDATES)
        + "   lowest correlation"
    )
    sounding = np.flatnonzero(prints.any(axis=(1, 2)))
    chosen = sounding[np.linspace(0, len(sounding) - 1, min(arguments.clips, len(sounding))).astype(int)]
    sounds = [audio.read(clips[i].path) for i in chosen]
    for name, change in CHANGES.items():
        changed = [change(sound) for sound in sounds]
        found = fingerprint.fingerprints(np.stack([vector_of(sound) for sound in changed]))
        show(name, paired(found, prints[chosen]), correlated(changed, sounds))
    if arguments.other:
        second_copy(clips, prints, arguments.other)
    false_alarms(clips, prints)
    return 0


if __name__ == "__main__":
    sys.exit(main())
