"""Detection rate and false alarms of fingerprints on real recordings.

    python benchmarks/fingerprint.py --corpus cremad --root CREMA-D/AudioWAV --clips 200
    python benchmarks/fingerprint.py --corpus emodb --root emodb
    python benchmarks/fingerprint.py --corpus cremad --root copy/AudioWAV --other CREMA-D/AudioWAV --clips 0

The benchmark takes `--clips` clips, spread evenly over the speakers. Each is changed as in
`tests/support/sound_changes.py` and by a cut of one second, and compared with itself. For false alarms, every clip of
the corpus is compared with every other one, in both steps of the search; the hardest pairs have the same speaker and
sentence. Pairs with the same bytes do not count. With `--other`, the clips of a second copy of the corpus, whose
encoding is different, are compared with those of the same names.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `tests` is not installed

from tests.support.sound_changes import CHANGES, Sound, shifted

from ser_bench import audio, config, corpora
from ser_bench.cache import Cache
from ser_bench.config import Config, CorpusConfig, Protocol, SplitConfig
from ser_bench.corpora.audio_files import find_audio
from ser_bench.features import fingerprint
from ser_bench.types import Clip, FloatArray

HARD = {"1 s cut off the front": shifted(1.0)}
"""A change that leaves too little of short clips."""
PAIRS_SHOWN = 15
NO_LIMIT = 2.0
"""No correlation is this large, so that all speeds are tried."""


def at_8_khz(sound: Sound) -> FloatArray:
    """Return the samples at the rate of the search."""
    return audio.resample(sound[0], sound[1], fingerprint.RATE_HZ)


def show(name: str, first: Sequence[FloatArray], second: Sequence[FloatArray]) -> None:
    """Print how similar waveforms with equal positions are in both steps, and the share that is found."""
    cosines, correlations = np.zeros(len(first)), np.zeros(len(first))
    for i, pair in enumerate(zip(first, second, strict=True)):
        prints = np.stack([fingerprint.fingerprint_of(samples) for samples in pair])
        cosines[i] = fingerprint.cosines_of(prints[:1], prints[1:])[0, 0]
        spectrograms = [fingerprint.magnitudes(samples) for samples in pair]
        correlations[i] = fingerprint.spectral_similarity(*spectrograms, NO_LIMIT)
    found = (cosines >= fingerprint.THRESHOLD) & (correlations >= fingerprint.CORRELATED)
    print(
        f"  {name:36} {len(first):5}   {cosines.min():6.3f}   {correlations.min():6.3f}   {found.mean():7.1%}",
        flush=True,
    )


def false_alarms(clips: Sequence[Clip], prints: FloatArray) -> None:
    """Print the number of candidates, the most similar pairs, and the time of both steps."""
    started = time.perf_counter()
    pairs = [
        (i, j, cosine) for i, j, cosine in fingerprint.candidates(prints) if clips[i].digest != clips[j].digest
    ]  # fmt: skip
    searched = time.perf_counter()
    decided = [(fingerprint.similarity(clips[i].path, clips[j].path), cosine, i, j) for i, j, cosine in pairs]
    ended = time.perf_counter()
    count = len(clips) * (len(clips) - 1) // 2
    found = sum(correlation >= fingerprint.CORRELATED for correlation, *_ in decided)
    print(f"  {len(pairs):,} candidates among {count:,} pairs, of which {found} count as one recording")
    print(f"  seconds: candidates {searched - started:.0f}, decisions {ended - searched:.0f}")
    print("  the most similar pairs: correlation, cosine")
    for correlation, cosine, i, j in sorted(decided, reverse=True)[:PAIRS_SHOWN]:
        print(f"    {correlation:.3f} {cosine:.3f} {clips[i].id} {clips[j].id}")


def second_copy(clips: Sequence[Clip], prints: FloatArray, root: Path) -> None:
    """Compare the clips of a second copy with those of the same names."""
    index = {clip.id: i for i, clip in enumerate(clips) if prints[i].any()}
    files = [path for path in find_audio(root) if path.stem in index]
    others = [at_8_khz(audio.read(path)) for path in files]
    show("the second copy", others, [at_8_khz(audio.read(clips[index[path.stem]].path)) for path in files])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="cremad")
    parser.add_argument("--root", required=True)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--other", type=Path, help="second copy of the same corpus; it can be incomplete")
    arguments = parser.parse_args()
    cfg = Config(
        corpus=CorpusConfig(name=arguments.corpus, root=arguments.root), split=SplitConfig(protocol=Protocol.speaker)
    )
    clips = sorted(corpora.load(cfg).clips, key=lambda clip: (clip.speaker, clip.id))
    started = time.perf_counter()
    prints = fingerprint.fingerprints(clips, Cache(config.cache_dir(cfg) / "fingerprint"))
    seconds = time.perf_counter() - started
    sounding = np.flatnonzero(prints.any(axis=(1, 2)))
    print(f"{arguments.corpus}: {len(clips)} clips, {len(clips) - len(sounding)} of them silent", end="; ")
    print(f"fingerprints read or computed in {seconds:.0f} s")
    print(f"  {'':36} clips   lowest   lowest\n  {'':36}         cosine   correlation   found")
    chosen = sounding[np.linspace(0, len(sounding) - 1, min(arguments.clips, len(sounding))).astype(int)]
    sounds = [audio.read(clips[i].path) for i in chosen]
    originals = [at_8_khz(sound) for sound in sounds]
    for name, change in (CHANGES | HARD).items() if sounds else ():
        show(name, [at_8_khz(change(sound)) for sound in sounds], originals)
    if arguments.other:
        second_copy(clips, prints, arguments.other)
    false_alarms(clips, prints)
    return 0


if __name__ == "__main__":
    sys.exit(main())
