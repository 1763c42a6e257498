"""A model of your own, trained outside ser_bench on the lists of `ser-bench export-split`; it writes predictions.csv.

    ser-bench export-split --corpus cremad --split speaker --fold 0 --out lists corpus.root=CREMA-D/AudioWAV
    python examples/foreign_model.py lists CREMA-D/AudioWAV predictions.csv
    ser-bench import predictions.csv --corpus cremad --split speaker --name mfcc_svm corpus.root=CREMA-D/AudioWAV
    ser-bench compare corpus=cremad

Nothing of ser_bench is imported here, and any framework can take the place of scikit-learn. It computes mean and
standard deviation over time of 20 MFCCs and their deltas, standardises them, and trains a support vector machine, whose
C is chosen on validation clips. It needs librosa and scikit-learn.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import librosa
import numpy as np
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

RATE_HZ = 16_000
MFCCS = 20
CANDIDATES = (0.3, 1.0, 3.0, 10.0)
"""Values of C."""


def features(path: Path) -> tuple[np.ndarray, float]:
    """Return [80] features of a clip, and the seconds that they took."""
    started = time.perf_counter()
    samples, _ = librosa.load(path, sr=RATE_HZ)
    mfcc = librosa.feature.mfcc(y=samples, sr=RATE_HZ, n_mfcc=MFCCS)
    delta = librosa.feature.delta(mfcc, mode="nearest")
    frames = np.concatenate([mfcc, delta])
    return np.concatenate([frames.mean(axis=1), frames.std(axis=1)]), time.perf_counter() - started


def read_list(file: Path, audio: Path) -> tuple[list[str], list[Path], list[str]]:
    """Return ids, audio files and labels of one part; an empty list has no lines."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [row["clip_id"] for row in rows], [audio / row["path"] for row in rows], [row["emotion"] for row in rows]


def choose_model(train: np.ndarray, labels: list[str], val: np.ndarray, val_labels: list[str]) -> SVC:
    """Return the model with the highest recall per class on the validation clips; without any, that with C = 1."""

    def fitted(c: float) -> SVC:
        return make_pipeline(StandardScaler(), SVC(C=c, class_weight="balanced")).fit(train, labels)

    if not val_labels:
        return fitted(1.0)
    return max(
        map(fitted, CANDIDATES),
        key=lambda model: recall_score(val_labels, model.predict(val), average="macro", zero_division=0),
    )


def probabilities(model: SVC, inputs: np.ndarray, labels: list[str]) -> np.ndarray:
    """Return [N, C] scores as a softmax, in the order of the labels; they are not calibrated."""
    margins = np.atleast_2d(model.decision_function(inputs))
    if len(model.classes_) == 2:  # one number per clip: the margin of the second class
        margins = np.stack([-margins.ravel(), margins.ravel()], axis=1)
    odds = np.exp(margins - margins.max(axis=1, keepdims=True))
    shares = odds / odds.sum(axis=1, keepdims=True)
    column = {label: i for i, label in enumerate(model.classes_)}
    none = np.zeros(len(shares))
    return np.stack([shares[:, column[label]] if label in column else none for label in labels], axis=1)


def main() -> None:
    """Train on the lists and write the predictions of the test clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lists", type=Path, help="folder of ser-bench export-split")
    parser.add_argument("audio", type=Path, help="folder of the corpus, to which the paths in the lists are relative")
    parser.add_argument("out", type=Path, help="file to write: predictions.csv")
    parser.add_argument("--workers", type=int, default=2, help="processes that compute features")
    chosen = parser.parse_args()

    parts = {part: read_list(chosen.lists / f"{part}.csv", chosen.audio) for part in ("train", "val", "test")}
    with ProcessPoolExecutor(chosen.workers) as pool:
        computed = {part: list(pool.map(features, paths, chunksize=32)) for part, (_, paths, _) in parts.items()}
    inputs = {part: np.array([vector for vector, _ in pairs]) for part, pairs in computed.items()}
    model = choose_model(inputs["train"], parts["train"][2], inputs["val"], parts["val"][2])

    labels = json.loads((chosen.lists / "split.json").read_text(encoding="utf-8"))["labels"]
    started = time.perf_counter()
    answers = probabilities(model, inputs["test"], labels)
    seconds = (time.perf_counter() - started) / len(answers)
    with chosen.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip_id", *labels, "latency_s"])
        for clip, answer, (_, of_features) in zip(parts["test"][0], answers, computed["test"], strict=True):
            writer.writerow([clip, *(f"{p:.6f}" for p in answer), f"{of_features + seconds:.6f}"])
    print(f"{len(answers):,} test clips, C = {model[-1].C:g}: {chosen.out}")


if __name__ == "__main__":
    main()
