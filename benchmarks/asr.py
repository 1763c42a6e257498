"""Time and word error rate of the default recogniser, with Whisper's padding to 30 s and with less padding.

    python benchmarks/asr.py                                          # generated (synthetic) clips: about a minute
    python benchmarks/asr.py --root CREMA-D/AudioWAV --clips 1000     # real speech: about 15 minutes on two cores

Every setting is `asr=faster_whisper` with tiny.en, int8, greedy decoding and batches of 16. Times include decoding of
the audio and the log-mel spectrogram, but not loading of the model. The settings take turns on slices of the clips, so
other load on the machine affects all of them. The clips are every k-th of the corpus, sorted by sentence, emotion and
speaker. Each slice is a sample of all clips, and the table is printed after each slice.

"ms/clip" is wall-clock time, which the targets use. "CPU ms" is the sum over threads, which is more reliable on a busy
machine. "WER" is the word error rate that runs log (`asr.words.normalise`). "as written" keeps digits as the recogniser
wrote them, so "It's 11 o'clock" has an error. "points" is the difference in WER from 30 s of padding, in percentage
points. The exit status is 1 if no setting reaches a target: 4 times as fast within 2.5 points, and 2.5 times as fast
within 1 point. The targets are not checked on synthetic speech.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import tempfile
import time
from pathlib import Path

import jiwer
import numpy as np
import numpy.typing as npt
import soundfile

from ser_bench import audio
from ser_bench.asr.faster_whisper import Whisper
from ser_bench.asr.words import APOSTROPHES, normalise
from ser_bench.config import AsrConfig
from ser_bench.corpora.demo_speech import generator
from ser_bench.corpora.sheets import cremad
from ser_bench.types import Clip

REFERENCE = "3000 (30 s)"
PADDED = AsrConfig(name="faster_whisper", model="tiny.en", batch_size=16, max_frames=None, fallback_frames=None)
FAST = dataclasses.replace(PADDED, max_frames=1000)
SETTINGS = {
    REFERENCE: PADDED,
    "1000": FAST,
    "1000, below -0.5 again at 3000": dataclasses.replace(FAST, fallback_frames=3000, fallback_logprob=-0.5),
    "1000, below -0.35 again at 3000": dataclasses.replace(FAST, fallback_frames=3000, fallback_logprob=-0.35),
}
SLICE_CLIPS = 100
SYNTHETIC_CLIPS = 48
TARGETS = ((4.0, 2.5), (2.5, 1.0))
"""(speed-up, largest increase in WER, percentage points)."""


def clips_of(root: Path, wanted: int) -> list[Clip]:
    """Return every k-th clip of a folder in CREMA-D's layout, sorted by sentence, emotion and speaker."""
    paths = {path.stem: path for path in root.iterdir() if path.suffix.lower() in audio.EXTENSIONS}
    named = [(cremad.parse(stem), path) for stem, path in paths.items()]
    named.sort(key=lambda pair: (pair[0].sentence, pair[0].emotion, pair[0].speaker, pair[0].id))
    wanted = min(wanted, len(named))
    return [
        Clip(
            fields.id, path, fields.emotion, fields.speaker, text=fields.text, duration_s=soundfile.info(path).duration
        )
        for fields, path in (named[i * len(named) // wanted] for i in range(wanted))
    ]


def as_written(text: str) -> str:
    """Return the text in lower case, without punctuation, with digits unchanged."""
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower().translate(APOSTROPHES)).split())


def measure(clips: list[Clip], names: list[str]) -> list[tuple[float, float]]:
    """Print a table after each slice; return (speed-up, points) over all clips of each setting except the reference."""
    models = {name: Whisper(SETTINGS[name], "en") for name in names}
    seconds = {name: np.zeros(2) for name in names}
    transcripts: dict[str, list[str]] = {name: [] for name in names}
    for model in models.values():
        list(model.transcribe(clips[:2]))
    done: list[Clip] = []
    figures = []
    slices = -(-len(clips) // SLICE_CLIPS)
    for k in range(slices):
        part = clips[k::slices]
        done += part
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = _clocks()
            words = dict(models[name].transcribe(part))
            seconds[name] += _clocks() - start
            transcripts[name] += [words[i] for i in range(len(part))]
        figures = report(done, {name: (seconds[name], transcripts[name]) for name in names})
    return figures


def _clocks() -> npt.NDArray[np.float64]:
    """Wall-clock time and CPU time of this process, seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def report(
    clips: list[Clip], measured: dict[str, tuple[npt.NDArray[np.float64], list[str]]]
) -> list[tuple[float, float]]:
    """Print one line per setting; return (speed-up, points) of each except the reference."""
    known = [normalise(clip.text) for clip in clips]
    base_s, base_words = measured[REFERENCE]
    base_rate = jiwer.wer(known, [normalise(words) for words in base_words])
    columns = f"{'ms/clip':>8} {'times':>6} {'CPU ms':>8} {'times':>6} {'WER':>7} {'points':>7} {'as written':>11}"
    print(f"\n{len(clips)} clips\n{'mel frames':32} {columns}")
    figures = []
    for name, (seconds, words) in measured.items():
        rate = jiwer.wer(known, [normalise(w) for w in words])
        written = jiwer.wer([as_written(clip.text) for clip in clips], [as_written(w) for w in words])
        (wall_ms, cpu_ms), (ratio, cpu_ratio) = 1e3 * seconds / len(clips), base_s / seconds
        points = 100 * (rate - base_rate)
        speed = f"{wall_ms:8.0f} {ratio:6.2f} {cpu_ms:8.0f} {cpu_ratio:6.2f}"
        print(f"{name:32} {speed} {rate:7.4f} {points:+7.2f} {written:11.4f}", flush=True)
        if name != REFERENCE:
            figures.append((float(ratio), points))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of CREMA-D's audio; default: generated clips")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    names = list(dict.fromkeys([REFERENCE, *arguments.settings]))
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root
        if root is None:
            root = Path(temporary)
            generator.generate(root, SYNTHETIC_CLIPS, 0)
        clips = clips_of(root, arguments.clips)
        print(f"{len(clips)} clips of {root if arguments.root else 'the generated, SYNTHETIC corpus'}")
        figures = measure(clips, names)
    if arguments.root is None:
        return 0
    missed = [target for target in TARGETS if not any(r >= target[0] and p <= target[1] for r, p in figures)]
    for ratio, points in missed:
        print(f"no setting is {ratio:g} times as fast within {points:g} points")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
