"""Calibration by a temperature: the optimum, what it leaves alone, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from ser_bench.errors import SerBenchError
from ser_bench.evaluation import calibration, metrics
from ser_bench.evaluation.calibration import Calibration
from ser_bench.types import Predictions, clean_rows

LABELS = ("anger", "fear", "joy", "sadness")
SOME = Calibration(2.0, 10, 2, 0.2, 0.1, 1.2, 1.1)


def drawn(sharpness: float, count: int = 4_000, seed: int = 0, source: str = "softmax") -> Predictions:
    """Truths that are drawn from softmax(z), and predictions softmax(sharpness · z): the best T is the sharpness."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(count, len(LABELS)))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = [LABELS[rng.choice(len(LABELS), p=row)] for row in honest]
    stated = np.exp(sharpness * logits)
    return Predictions(
        rows=clean_rows(f"{i}" for i in range(count)),
        truth=tuple(truth),
        labels=LABELS,
        probabilities=(stated / stated.sum(1, keepdims=True)).astype(np.float32),
        abstained=np.zeros(count, dtype=np.bool_),
        latency_s=np.zeros(count, dtype=np.float32),
        cost_usd=np.zeros(count, dtype=np.float32),
        source=source,
    )


def fitted(predictions: Predictions) -> Calibration:
    return calibration.fit(predictions, {row.clip_id: f"s{int(row.clip_id) % 7}" for row in predictions.rows})


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_an_independent_optimiser_and_near_the_true_one(sharpness: float) -> None:
    predictions = drawn(sharpness)
    index = np.array([LABELS.index(label) for label in predictions.truth])
    logs = np.log(np.maximum(predictions.probabilities.astype(float), metrics.SMALLEST_PROBABILITY))

    def loss(temperature: float) -> float:
        scaled = logs / temperature
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(index)), index]).mean())

    best = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    found = fitted(predictions)
    assert found.temperature == pytest.approx(best.x, rel=1e-5)
    assert found.temperature == pytest.approx(sharpness, rel=0.1)
    assert found.log_loss_before == pytest.approx(loss(1.0), abs=1e-5)
    assert found.log_loss_after == pytest.approx(best.fun, abs=1e-5)
    assert (found.rows, found.speakers) == (4_000, 7)


def test_calibration_on_some_rows_lowers_the_error_on_others() -> None:
    found, others = fitted(drawn(3.0)), drawn(3.0, seed=1)
    after = calibration.scores(others, found, "test/")
    assert set(after) == {"test/ece_calibrated", "test/log_loss_calibrated"}
    assert metrics.ece(others) > 0.2 > 0.03 > after["test/ece_calibrated"]
    assert after["test/log_loss_calibrated"] < metrics.log_loss(others) - 0.3
    assert found.applied(others).predicted == others.predicted


def test_a_temperature_of_one_changes_nothing_and_rows_sum_to_one() -> None:
    predictions = drawn(1.0, 50)
    same = Calibration(1.0, 1, 1, 0, 0, 0, 0).apply(predictions.probabilities)
    np.testing.assert_allclose(same, predictions.probabilities, atol=1e-6)
    extreme = np.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], np.float32)
    for temperature in (0.05, 20.0):
        applied = Calibration(temperature, 1, 1, 0, 0, 0, 0).apply(extreme)
        np.testing.assert_allclose(applied.sum(1), 1, atol=1e-6)
        np.testing.assert_allclose(applied[1], 0.25, atol=1e-6)


def test_answers_that_say_nothing_or_are_all_right_have_a_finite_temperature() -> None:
    predictions = drawn(1.0, 40)
    uniform = np.full((40, 4), 0.25, np.float32)
    right = np.where(np.array(LABELS)[None] == np.array(predictions.truth)[:, None], 0.7, 0.1).astype(np.float32)
    for probabilities, temperature in ((uniform, 1.0), (right, calibration.LOWEST)):
        changed = Predictions(
            predictions.rows, predictions.truth, LABELS, probabilities, predictions.abstained,
            predictions.latency_s, predictions.cost_usd,
        )  # fmt: skip
        assert fitted(changed).temperature == pytest.approx(temperature, rel=1e-6)


def test_one_hot_predictions_have_no_calibrated_scores() -> None:
    assert calibration.scores(drawn(1.0, 20, source="one_hot"), SOME, "test/") == {}
    assert calibration.scores(drawn(1.0, 20), None, "test/") == {}
    with pytest.raises(ValueError, match="n/a"):
        fitted(drawn(1.0, 20, source="one_hot"))


def test_the_file_is_read_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(SOME.as_json(), encoding="utf-8")
    assert Calibration.load(path) == SOME
    content = json.loads(SOME.as_json())
    for damaged in ("", "{}", json.dumps(content | {"temperature": -1}), json.dumps(content | {"format": 2})):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(SerBenchError, match=r"calibration.json: .*force=true"):
            Calibration.load(path)
