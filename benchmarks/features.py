"""Time and memory of spectral features: the paper's way against ours, side by side, on the same clips.

    python benchmarks/features.py                                    # on generated (synthetic) clips
    python benchmarks/features.py --root CREMA-D/AudioWAV --clips 200

The paper's way is a sequential loop with librosa: load a clip once, then features of the clip, of the noisy clip, of
the shifted clip and of the shifted noisy clip, so the pitch is shifted twice. Ours is `spectral.extract` with its
default engine and a cold cache in a temporary folder. Both see the same noise. They take turns, slice by slice, so that
whatever else the machine does hits both; imports and just-in-time compilation are done before the clock starts.
Decoded files may be in the operating system's page cache for both.

Memory is the peak resident set of a fresh process that fills a cold cache (`spectral.fill`), for N clips and for 2N:
the matrix that `extract` returns grows with the corpus by its nature, so it is left out.

Exits with status 1 where ours is less than 4 times faster, or memory grows by more than 5 %.
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

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, FeaturesConfig
from ser_bench.features import augmentation, paper_features, paper_vector
from ser_bench.types import VARIANTS, Clip, FloatArray, Row

FEATURES = FeaturesConfig()
AUGMENT = AugmentConfig(name="paper", variants=list(VARIANTS))
SLICE_CLIPS = 20
TARGET_RATIO = 4.0
MEMORY_GROWTH_ALLOWED = 1.05
KIB = 1024
MIB = 1024**2


def paper_way(clip: Clip) -> FloatArray:
    """[4, 2376] of one clip."""
    samples, rate = librosa.load(clip.path, sr=FEATURES.sample_rate_hz, offset=FEATURES.offset_s, duration=2.5)
    samples = librosa.util.fix_length(samples, size=55_125)
    vectors = []
    for variant in VARIANTS:
        heard = augmentation.noisy(samples, clip.id, variant, AUGMENT)
        if augmentation.is_shifted(variant):
            heard = librosa.effects.pitch_shift(heard, sr=rate, n_steps=AUGMENT.pitch_semitones)
        zcr = librosa.feature.zero_crossing_rate(heard)[0]
        rms = librosa.feature.rms(y=heard)[0]
        mfcc = librosa.feature.mfcc(y=heard, sr=rate, n_mfcc=20)
        vectors.append(np.concatenate([zcr, rms, np.ravel(mfcc.T)]))
    return np.stack(vectors)


def our_way(clips: list[Clip], cache: Cache) -> FloatArray:
    """[N · 4, 2376]."""
    rows = [Row(clip.id, variant) for clip in clips for variant in VARIANTS]
    return paper_features.extract(rows, {clip.id: clip for clip in clips}, FEATURES, AUGMENT, cache)


def find_clips(root: Path, wanted: int) -> list[Clip]:
    """Clips spread evenly over the folder."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in audio.EXTENSIONS)
    if not files:
        sys.exit(f"{root}: no audio here")
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(wanted, len(files))).astype(int)]
    return [Clip(path.stem, path, "", "") for path in chosen]


def compare_speed(clips: list[Clip], folder: Path) -> float:
    """Print seconds of both, and how far their vectors are apart; returns the ratio."""
    paper_way(clips[0])
    our_way(clips[:4], Cache(folder / "warm"))
    cache, paper_s, ours_s = Cache(folder / "cold"), 0.0, 0.0
    differences = []
    for start in range(0, len(clips), SLICE_CLIPS):
        part = clips[start : start + SLICE_CLIPS]
        began = time.perf_counter()
        reference = np.concatenate([paper_way(clip) for clip in part])
        middle = time.perf_counter()
        ours = our_way(part, cache)
        ours_s += time.perf_counter() - middle
        paper_s += middle - began
        differences.append(np.abs(ours - reference).reshape(len(part), len(VARIANTS), -1))
    began = time.perf_counter()
    our_way(clips, cache)
    warm_s = time.perf_counter() - began
    count = len(clips)
    print(f"{count} clips × {len(VARIANTS)} variants, {torch.get_num_threads()} threads, milliseconds a clip:")
    print(f"  the paper's way {paper_s / count * 1e3:.1f}")
    print(f"  ours            {ours_s / count * 1e3:.1f}: {paper_s / ours_s:.2f} times faster")
    print(f"  read back from the cache: {warm_s / count * 1e3:.2f}")
    show_differences(np.concatenate(differences))
    return paper_s / ours_s


def show_differences(differences: FloatArray) -> None:
    """Print the largest and the mean absolute difference of each block of the vector."""
    frames = paper_vector.frames_in(FEATURES)
    blocks = {"ZCR": slice(0, frames), "RMS": slice(frames, 2 * frames), "MFCC": slice(2 * frames, None)}
    print("absolute difference from librosa, largest / mean:")
    for v, variant in enumerate(VARIANTS):
        texts = [
            f"{name} {differences[:, v, part].max():.1e} / {differences[:, v, part].mean():.1e}"
            for name, part in blocks.items()
        ]
        print(f"  {variant:12s} {', '.join(texts)}")


def compare_memory(clips: list[Clip]) -> float:
    """Print peak resident memory for half of the clips and for all; returns the growth."""
    peaks = []
    print("peak resident memory of a process that fills a cold cache:")
    for part in (clips[: len(clips) // 2], clips):
        command = [sys.executable, __file__, "--fill", *(str(clip.path) for clip in part)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(f"  {len(part):5d} clips: {peaks[-1] / MIB:.0f} MiB")
    return peaks[1] / peaks[0]


def fill(paths: list[str]) -> None:
    """Fill a cold cache and print this process's peak resident memory, bytes."""
    clips = {Path(path).stem: Clip(Path(path).stem, Path(path), "", "") for path in paths}
    with tempfile.TemporaryDirectory() as folder:
        paper_features.fill((Row(c, v) for c in clips for v in VARIANTS), clips, FEATURES, AUGMENT, Cache(Path(folder)))
    print(peak_memory())


def peak_memory() -> int:
    """Peak resident set of this process, bytes. Not `ru_maxrss` on Linux: there a child inherits its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--root", type=Path, help="a folder of recordings; without it, clips are generated")
    parser.add_argument("--fill", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        fill(arguments.fill)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = arguments.root
        if root is None:
            from ser_bench.corpora import demo

            root = folder / "demo"
            demo.generate(root, arguments.clips, 0)
            print("corpus: generated clips (synthetic)")
        else:
            print(f"corpus: {root}")
        clips = find_clips(root, arguments.clips)
        ratio = compare_speed(clips, folder)
        growth = compare_memory(clips)
    met = ratio >= TARGET_RATIO and growth <= MEMORY_GROWTH_ALLOWED
    print(f"target: {TARGET_RATIO:.0f} times faster, memory flat: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
