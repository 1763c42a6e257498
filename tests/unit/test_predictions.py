"""Storage of predictions as Parquet, and checks of their consistency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_bench import predictions
from ser_bench.types import Clip, Predictions, Row

LABELS = ("angry", "happy", "sad")


def make(source: str = "logprobs") -> Predictions:
    return Predictions(
        rows=(Row("a"), Row("b", "noise"), Row("c")),
        truth=("sad", "angry", "happy"),
        labels=LABELS,
        probabilities=np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]], dtype=np.float32),
        abstained=np.array([False, False, True]),
        latency_s=np.array([0.1, 0.2, 0.3], dtype=np.float32),
        cost_usd=np.zeros(3, dtype=np.float32),
        source=source,
        notes=("sad", "angry", "I cannot tell"),
    )


def test_predicted_labels_and_abstention() -> None:
    assert make().predicted == ("sad", "angry", "")
    assert make().gives_probabilities and not make("one_hot").gives_probabilities


def test_parquet_round_trip(tmp_path: Path) -> None:
    clips = {name: Clip(name, Path(f"{name}.wav"), "sad", f"speaker {name}", sex="female") for name in "abc"}
    predictions.save(make(), clips, tmp_path / "p.parquet")
    restored = predictions.load(tmp_path / "p.parquet")
    original = make()
    for name in ("rows", "truth", "labels", "source", "notes", "predicted"):
        assert getattr(restored, name) == getattr(original, name), name
    np.testing.assert_array_equal(restored.probabilities, original.probabilities)
    np.testing.assert_array_equal(restored.abstained, original.abstained)


def test_concatenated_predictions_have_the_rows_of_both() -> None:
    whole = make()
    both = predictions.concatenate(whole.take([2]), whole.take([0, 1]))
    assert both.rows == (Row("c"), Row("a"), Row("b", "noise")) and both.truth == ("happy", "sad", "angry")
    assert both.abstained.tolist() == [True, False, False] and both.source == "logprobs" and both.notes == ()
    assert predictions.concatenate(whole.take([0]), make("votes").take([1])).source == "one_hot"
    with pytest.raises(ValueError, match="twice"):
        predictions.concatenate(whole, whole.take([0]))


def test_take_keeps_rows_together() -> None:
    taken = make().take([2, 0])
    assert taken.rows == (Row("c"), Row("a")) and taken.notes == ("I cannot tell", "sad")
    assert taken.abstained.tolist() == [True, False]


def test_inconsistent_predictions_are_refused() -> None:
    good = make()
    with pytest.raises(ValueError, match="twice"):
        good.take([0, 0])
    with pytest.raises(ValueError, match="sum to 1"):
        Predictions(
            (Row("a"),),
            ("sad",),
            LABELS,
            np.ones((1, 3), np.float32),
            np.array([False]),
            *[np.zeros(1, np.float32)] * 2,
        )
    with pytest.raises(ValueError, match="shapes"):
        Predictions(
            (Row("a"),), (), LABELS, np.ones((1, 3), np.float32) / 3, np.array([False]), *[np.zeros(1, np.float32)] * 2
        )
