"""A predictor whose answers follow from the samples, which can be made to wait or to fail."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from ser_bench.inference.answer import Answer
from ser_bench.inference.recording import Recording

LABELS = ("angry", "sad")


class FakePredictor:
    """Answers "angry" with the peak of the recording as probability.

    `open_gate` is set unless a test wants predictions to wait; `batches` has the names in each prediction. A recording
    whose name begins with "crash" raises `crash`; one that begins with "failed" gets such an answer.
    """

    def __init__(self, model: str = "fake", run_id: str = "ab" * 16, max_duration_s: float = 10.0) -> None:
        self.name = f"{model} speaker fold 0"
        self.model = model
        self.run_id = run_id
        self.labels = LABELS
        self.max_duration_s = max_duration_s
        self.batches: list[list[str]] = []
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.crash: Exception = ValueError("a fault of the predictor")

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        self.batches.append([recording.name for recording in recordings])
        assert self.open_gate.wait(20)
        if any(recording.name.startswith("crash") for recording in recordings):
            raise self.crash
        return [self._answer(recording) for recording in recordings]

    def _answer(self, recording: Recording) -> Answer:
        if recording.name.startswith("failed"):
            return Answer(recording.name, status="failed", reason="it cannot be used")
        peak = float(np.abs(recording.samples).max())
        return Answer(
            recording.name,
            "angry" if peak >= 0.5 else "sad",
            {"angry": peak, "sad": 1 - peak},
            seconds={"classify": 0.001, "total": 0.002},
            duration_s=recording.duration_s,
        )


def with_each(predictors: Sequence[FakePredictor], recordings: Sequence[Recording]) -> list[list[Answer]]:
    """Stand for `predict_with_each`."""
    return [predictor.predict(recordings) for predictor in predictors]
