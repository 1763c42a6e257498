"""Time and memory of spectral features: the default engine compared with a sequential librosa loop on the same clips.

    python benchmarks/features.py                                    # on generated (synthetic) clips
    python benchmarks/features.py --root CREMA-D/AudioWAV --clips 200

The librosa loop is the method of the paper. It loads a clip once and computes the features of the clip, the noisy clip,
the shifted clip and the shifted noisy clip, so the pitch is shifted twice per clip. It is compared with
`paper_features.extract` with the default engine and an empty cache in a temporary folder. Both use the same noise. They
take turns, slice by slice, so other load on the machine affects both. Imports and just-in-time compilation are not
measured. The files can be in the operating system's page cache for both.

Memory is the peak resident set of a new process that fills an empty cache (`paper_features.fill`), for N clips and for
2N. The matrix that `extract` returns is not included, because it grows with the corpus.

The exit status is 1 if the default engine is less than 4 times as fast, or memory grows by more than 5 %.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np
import torch

from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, FeaturesConfig
from ser_bench.corpora.audio_files import find_audio
from ser_bench.features import augmentation, paper_features, paper_vector
from ser_bench.types import VARIANTS, Clip, FloatArray, Row

FEATURES = FeaturesConfig()
AUGMENT = AugmentConfig(name="paper", variants=list(VARIANTS))
SLICE_CLIPS = 20
TARGET_RATIO = 4.0
MEMORY_GROWTH_ALLOWED = 1.05
KIB = 1024
MIB = 1024**2


def librosa_loop(clip: Clip) -> FloatArray:
    """Return the vectors [4, 2376] of one clip by the method of the paper."""
    samples, rate = librosa.load(clip.path, sr=FEATURES.sample_rate_hz, offset=FEATURES.offset_s, duration=2.5)
    samples = librosa.util.fix_length(samples, size=55_125)
    vectors = []
    for variant in VARIANTS:
        varied = augmentation.noisy(samples, clip.id, variant, AUGMENT)
        if augmentation.is_shifted(variant):
            varied = librosa.effects.pitch_shift(varied, sr=rate, n_steps=AUGMENT.pitch_semitones)
        zcr = librosa.feature.zero_crossing_rate(varied)[0]
        rms = librosa.feature.rms(y=varied)[0]
        mfcc = librosa.feature.mfcc(y=varied, sr=rate, n_mfcc=20)
        vectors.append(np.concatenate([zcr, rms, np.ravel(mfcc.T)]))
    return np.stack(vectors)


def default_engine(clips: list[Clip], cache: Cache) -> FloatArray:
    """Return the vectors [N · 4, 2376] by the default engine."""
    rows = [Row(clip.id, variant) for clip in clips for variant in VARIANTS]
    return paper_features.extract(rows, {clip.id: clip for clip in clips}, FEATURES, AUGMENT, cache)


def find_clips(root: Path, wanted: int) -> list[Clip]:
    """Return clips that are spread evenly over the folder."""
    files = find_audio(root)
    if not files:
        sys.exit(f"{root}: contains no audio files; give the folder of the recordings with --root")
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(wanted, len(files))).astype(int)]
    return [Clip(path.stem, path, "", "") for path in chosen]


def compare_speed(clips: list[Clip], folder: Path) -> float:
    """Print the times of both and the differences of their vectors; return the speed-up."""
    librosa_loop(clips[0])
    default_engine(clips[:4], Cache(folder / "warm"))
    cache, librosa_s, default_s = Cache(folder / "cold"), 0.0, 0.0
    differences = []
    for start in range(0, len(clips), SLICE_CLIPS):
        part = clips[start : start + SLICE_CLIPS]
        began = time.perf_counter()
        reference = np.concatenate([librosa_loop(clip) for clip in part])
        middle = time.perf_counter()
        vectors = default_engine(part, cache)
        default_s += time.perf_counter() - middle
        librosa_s += middle - began
        differences.append(np.abs(vectors - reference).reshape(len(part), len(VARIANTS), -1))
    began = time.perf_counter()
    default_engine(clips, cache)
    warm_s = time.perf_counter() - began
    count = len(clips)
    print(f"{count} clips × {len(VARIANTS)} variants, {torch.get_num_threads()} threads, milliseconds per clip:")
    print(f"  librosa loop   {librosa_s / count * 1e3:.1f}")
    print(f"  default engine {default_s / count * 1e3:.1f}: {librosa_s / default_s:.2f} times as fast")
    print(f"  from the cache {warm_s / count * 1e3:.2f}")
    show_differences(np.concatenate(differences))
    return librosa_s / default_s


def show_differences(differences: FloatArray) -> None:
    """Print the maximum and the mean absolute difference of each block of the vector."""
    frames = paper_vector.frames_in(FEATURES)
    blocks = {"ZCR": slice(0, frames), "RMS": slice(frames, 2 * frames), "MFCC": slice(2 * frames, None)}
    print("absolute difference from librosa, maximum / mean:")
    for v, variant in enumerate(VARIANTS):
        texts = [
            f"{name} {differences[:, v, part].max():.1e} / {differences[:, v, part].mean():.1e}"
            for name, part in blocks.items()
        ]
        print(f"  {variant:12s} {', '.join(texts)}")


def compare_memory(clips: list[Clip]) -> float:
    """Print the peak resident memory for half of the clips and for all; return their ratio."""
    peaks = []
    print("peak resident memory of a process that fills an empty cache:")
    for part in (clips[: len(clips) // 2], clips):
        command = [sys.executable, __file__, "--fill", *(str(clip.path) for clip in part)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(f"  {len(part):5d} clips: {peaks[-1] / MIB:.0f} MiB")
    return peaks[1] / peaks[0]


def fill(paths: list[str]) -> None:
    """Fill an empty cache and print the peak resident memory of this process, bytes."""
    clips = {Path(path).stem: Clip(Path(path).stem, Path(path), "", "") for path in paths}
    with tempfile.TemporaryDirectory() as folder:
        paper_features.fill((Row(c, v) for c in clips for v in VARIANTS), clips, FEATURES, AUGMENT, Cache(Path(folder)))
    print(peak_memory())


def peak_memory() -> int:
    """Return the peak resident set of this process, bytes. On Linux, a child would inherit its parent's `ru_maxrss`."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--root", type=Path, help="folder of recordings; default: generated clips")
    parser.add_argument("--fill", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        fill(arguments.fill)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = arguments.root
        if root is None:
            from ser_bench.corpora.demo_speech import generator

            root = folder / "demo"
            generator.generate(root, arguments.clips, 0)
            print("corpus: generated clips (synthetic)")
        else:
            print(f"corpus: {root}")
        clips = find_clips(root, arguments.clips)
        ratio = compare_speed(clips, folder)
        growth = compare_memory(clips)
    met = ratio >= TARGET_RATIO and growth <= MEMORY_GROWTH_ALLOWED
    print(f"target: {TARGET_RATIO:.0f} times as fast, no growth of memory: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
