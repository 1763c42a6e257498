"""False alarms and hits of the flags of unsure input, on real clips and on signals that are made from them.

    python benchmarks/input_flags.py --corpus cremad --root CREMA-D/AudioWAV
    python benchmarks/input_flags.py --corpus emodb --root emodb --language 40

The first table is the share of the corpus's own clips with each flag: false alarms, as far as the clips are clean. Most
of them are not damaged, but some clips of a corpus are (one of CREMA-D is silent). The second is the share of made
signals that have the expected flag. `--language N` recognises the language of N clips, once for a predictor trained on
the language of the corpus, and once for one trained on another.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from ser_bench import audio, corpora
from ser_bench.config import Config, CorpusConfig, Protocol, SplitConfig
from ser_bench.inference import input_checks, speech_gate
from ser_bench.inference.input_checks import CODES, TrainedOn
from ser_bench.inference.recording import Recording
from ser_bench.types import Clip, FloatArray

Sound = tuple[FloatArray, int]
LONG_S = 60.0
TONE_HZ = 440.0
MADE_RATE_HZ = 16_000
NOTES = 12
OTHER_LANGUAGE = "ja"


def at_level(samples: FloatArray, peak: float) -> FloatArray:
    """Return the samples with this peak."""
    return (samples * (peak / max(float(np.abs(samples).max()), 1e-9))).astype(np.float32)


def clipped(sound: Sound) -> Sound:
    """Amplify a clip of full scale by 10 and cut it off at full scale."""
    return np.clip(10 * at_level(sound[0], 1.0), -1, 1), sound[1]


def clipped_and_turned_down(sound: Sound) -> Sound:
    """Cut it off as above, then turn it down by 10 dB."""
    return clipped(sound)[0] * np.float32(10**-0.5), sound[1]


def noisy(sound: Sound) -> Sound:
    """Add white noise of the mean power of the clip: 0 dB SNR."""
    samples, rate = sound
    noise = np.random.default_rng(0).normal(0, float(np.sqrt(np.square(samples).mean())), len(samples))
    return at_level(samples + noise.astype(np.float32), 0.5), rate


def narrow(sound: Sound) -> Sound:
    """Resample to 8 kHz and back, and store with 16 bits."""
    samples, rate = sound
    back = audio.resample(audio.resample(samples, rate, 8_000), 8_000, rate)
    return (np.round(back * 32_768) / 32_768).astype(np.float32), rate


def repeated(sound: Sound) -> Sound:
    """Repeat the clip for a minute."""
    return np.resize(sound[0], round(LONG_S * sound[1])), sound[1]


def tone(sound: Sound) -> Sound:
    """Return a sine of the length of the clip."""
    time_s = np.arange(round(len(sound[0]) / sound[1] * MADE_RATE_HZ)) / MADE_RATE_HZ
    return (0.3 * np.sin(2 * np.pi * TONE_HZ * time_s)).astype(np.float32), MADE_RATE_HZ


def melody(sound: Sound) -> Sound:
    """Return twelve decaying notes of four partials, drawn from two octaves; the notes depend on the clip's length."""
    rng = np.random.default_rng(len(sound[0]))
    length = round(len(sound[0]) / sound[1] * MADE_RATE_HZ / NOTES)
    time_s = np.arange(length) / MADE_RATE_HZ
    notes = []
    for _ in range(NOTES):
        pitch_hz = 220 * 2 ** (rng.integers(0, 25) / 12)
        partials = sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 5))
        notes.append(0.2 * partials * np.exp(-6 * time_s))
    return np.concatenate(notes).astype(np.float32), MADE_RATE_HZ


def white_noise(sound: Sound) -> Sound:
    """Return white noise of the length of the clip."""
    return np.random.default_rng(1).normal(0, 0.1, len(sound[0])).astype(np.float32), sound[1]


MADE: dict[str, tuple[Callable[[Sound], Sound], tuple[str, ...]]] = {
    "digital silence": (lambda sound: (np.zeros_like(sound[0]), sound[1]), ("silence",)),
    "a tone of 440 Hz": (tone, ("no_speech",)),
    "a melody": (melody, ("no_speech", "little_speech")),
    "white noise": (white_noise, ("no_speech",)),
    "the first 0.2 s": (lambda sound: (sound[0][: sound[1] // 5], sound[1]), ("short",)),
    "repeated for 60 s": (repeated, ("long",)),
    "clipped, ×10": (clipped, ("clipping",)),
    "clipped, then 10 dB lower": (clipped_and_turned_down, ("clipping",)),
    "never divided by 32,768": (lambda sound: (sound[0] * np.float32(32_768), sound[1]), ("too_loud",)),
    "peak at −50 dB": (lambda sound: (at_level(sound[0], 10**-2.5), sound[1]), ("low_level", "silence")),
    "8 kHz and back": (narrow, ("narrow_band",)),
    "white noise at 0 dB SNR": (noisy, ("noisy", "no_speech", "little_speech")),
}
"""Name → the signal that is made of a clip, and the codes of which one is expected."""


def found_in(sound: Sound, known: TrainedOn, cancelled: bool = False) -> set[str]:
    """Return the codes of the flags of a sound."""
    recording = Recording("made", sound[0], sound[1], "")
    return {flag.code for flag in input_checks.flags(recording, known, cancelled=cancelled)}


def show_false_alarms(clips: list[Clip], known: TrainedOn) -> None:
    """Print the share of clips with each flag, with examples."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    flagged, spent_s = 0, 0.0
    for clip in clips:
        sound, cancelled = audio.read(clip.path), audio.probe(clip.path).cancelled
        started = time.perf_counter()
        codes = found_in(sound, known, cancelled)
        spent_s += time.perf_counter() - started
        flagged += bool(codes)
        counts.update(codes)
        for code in codes:
            examples.setdefault(code, []).append(clip.id)
    print(f"flags of {len(clips)} clips, {spent_s / len(clips) * 1e3:.0f} ms each")
    for code in CODES:
        if code in counts:
            print(f"  {code:20} {counts[code] / len(clips):7.2%}   {' '.join(examples[code][:4])}")
    print(f"  {'any flag':20} {flagged / len(clips):7.2%}", flush=True)


def show_hits(clips: list[Clip], known: TrainedOn) -> None:
    """Print the share of signals made of these clips that have an expected flag."""
    print(f"signals made of {len(clips)} clips")
    for name, (make, expected) in MADE.items():
        hits = [bool(found_in(make(audio.read(clip.path)), known) & set(expected)) for clip in clips]
        print(f"  {name:28} {np.mean(hits):7.1%}   {' or '.join(expected)}", flush=True)


def show_languages(clips: list[Clip], language: str) -> None:
    """Print the share of clips that are flagged for a predictor of their own language and of another."""
    if input_checks._language_model() is None:
        sys.exit(f"the language is recognised by {input_checks.LANGUAGE_WEIGHTS}: ser-bench weights fetch whisper-base")
    spoken = [input_checks.spoken_language(*audio.read(clip.path)) for clip in clips]
    false = np.mean([code not in ("", language) for code in spoken])
    hit = np.mean([code not in ("", OTHER_LANGUAGE) for code in spoken])
    print(f"language of {len(clips)} clips: flagged for a predictor of {language} {false:.1%}, of another {hit:.1%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="cremad")
    parser.add_argument("--root", required=True)
    parser.add_argument("--clips", type=int, default=500, help="clips of the first table, evenly spread; 0: all")
    parser.add_argument("--made", type=int, default=50, help="clips of which signals are made")
    parser.add_argument("--language", type=int, default=0, help="clips whose language is recognised")
    arguments = parser.parse_args()
    cfg = Config(
        corpus=CorpusConfig(name=arguments.corpus, root=arguments.root), split=SplitConfig(protocol=Protocol.speaker)
    )
    corpus = corpora.load(cfg)

    def chosen(count: int) -> list[Clip]:
        index = np.linspace(0, len(corpus.clips) - 1, min(count or len(corpus.clips), len(corpus.clips))).astype(int)
        return [corpus.clips[i] for i in index]

    known = TrainedOn(max(clip.duration_s for clip in corpus.clips), corpus.language)
    gate = speech_gate.reason_unavailable()
    print(f"{corpus.name}: {len(corpus.clips)} clips, longest {known.longest_s:.1f} s; {gate or 'with speech gate'}")
    show_false_alarms(chosen(arguments.clips), known)
    if arguments.made:
        show_hits(chosen(arguments.made), known)
    if arguments.language:
        show_languages(chosen(arguments.language), corpus.language)
    return 0


if __name__ == "__main__":
    sys.exit(main())
