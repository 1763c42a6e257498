"""Runs for tests of the page: predictors that answer always the same, and small trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ser_bench import config, predictors
from ser_bench.features.feature_store import Features
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.input_checks import Flag
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.types import Clip, clean_rows
from tests.support.signals import voice_like
from tests.support.stored_runs import LABELS

RATE_HZ = 16_000


class ConstantPredictor:
    """Says `label`, or `adapted` to an enrolled speaker."""

    def __init__(self, label: str, adapted: str | None = None, **answer: Any) -> None:
        self.label, self.adapted, self.answer = label, adapted, answer
        self.labels, self.max_duration_s, self.adapts = LABELS, 60.0, adapted is not None
        self.enrolled: dict[str, int] = {}
        self.asked: list[Recording] = []

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        self.asked += recordings
        return [self._answer(recording) for recording in recordings]

    def enrol(self, recordings: Sequence[Recording], speaker: str) -> None:
        self.enrolled[speaker] = len(recordings)

    def warm_up(self) -> None:
        pass

    def _answer(self, recording: Recording) -> Answer:
        label = self.adapted if self.adapted and recording.speaker in self.enrolled else self.label
        values: dict[str, Any] = {
            "name": recording.name,
            "label": label,
            "probabilities": {name: 0.8 if name == label else 0.1 for name in LABELS},
            "duration_s": recording.duration_s,
            "seconds": {"classify": 0.002, "total": 0.5},
        }
        return Answer(**(values | self.answer))


def flags() -> tuple[Flag, ...]:
    return (Flag("noise", "noise <as loud> as speech"),)


def write_speech(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    """A vowel-like sound as a WAV file."""
    soundfile.write(path, voice_like(round(seconds * RATE_HZ), seed), RATE_HZ)
    return path


def trained_predictor(folder: Path, *words: str) -> AudioPredictor:
    """An eGeMAPS predictor that tells low tones from high ones by the labels of `stored_runs`."""
    folder.mkdir()
    words = ("experiment=none", "split=speaker", "model=egemaps", "head=logistic", f"cache_dir={folder}/cache", *words)
    cfg = config.compose(list(words))
    clips: dict[str, Clip] = {}
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    for i in range(24):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (110.0 + 90.0 * (i % 3) + i) * times), RATE_HZ)
        clips[str(i)] = Clip(str(i), path, LABELS[i % 3], f"s{i // 6}", duration_s=0.5)
    rows = clean_rows(clips)
    predictor = predictors.build(cfg, LABELS, Features(cfg, clips, "en"), folder, lambda epoch, values: None)
    predictor.fit(rows[:18], rows[18:])
    predictor.save(folder / "predictor")
    files = PredictorFiles(f"{cfg.model.name} speaker fold 0", "ab" * 16, cfg, LABELS, folder / "predictor")
    return AudioPredictor(files, config.compose([]))
