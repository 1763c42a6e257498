"""The time from audio to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench.errors import ConfigError
from ser_bench.inference import response_time
from ser_bench.inference.answer import Answer


class Timed:
    """A predictor whose answers take a given time; the first one, which loads everything, takes longest."""

    max_duration_s = 60.0

    def __init__(self, seconds: list[float | None], asks: bool = False) -> None:
        self.seconds, self.asks_language_model = iter(seconds), asks

    def predict(self, recordings: Any) -> list[Answer]:
        (recording,) = recordings
        spent = next(self.seconds)
        if spent is None:
            return [Answer(recording.name, status="failed", reason="too short")]
        return [Answer(recording.name, "sad", {"sad": 1.0}, seconds={"total": spent})]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(800, 0.1), 8000)
    return sorted(tmp_path.iterdir())


def measured(paths: list[Path], *seconds: float | None, **kwargs: bool) -> float:
    predictor: Any = Timed(list(seconds), **kwargs)
    return response_time.median_seconds(predictor, paths)


def test_the_median_leaves_out_loading_and_failures(paths: list[Path]) -> None:
    assert measured(paths, 9.0, 0.1, 0.3, 0.2) == 0.2
    assert measured(paths, 9.0, 0.1, None, 0.2) == pytest.approx(0.15)


def test_what_cannot_be_measured_is_said(paths: list[Path]) -> None:
    with pytest.raises(ConfigError, match="language model"):
        measured(paths, asks=True)
    with pytest.raises(ConfigError, match="too short"):
        measured(paths, None, None, None, None)
