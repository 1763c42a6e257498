"""Predictions of validation rows by a model that was fitted to training rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_bench import predictors
from ser_bench.errors import SerBenchError
from ser_bench.evaluation.calibration import Calibration
from ser_bench.predictors import PredictsHeldOut
from ser_bench.predictors.held_out_calibration import calibrate
from ser_bench.types import Row
from tests.support.fake_inputs import LABELS, TINY, FakeInputs, compose_config, rows

TRAIN, VAL = rows(0, 60), rows(60, 24)
PROBES = ("model=egemaps", "head=logistic")


def build(folder: Path, *words: str):
    cfg = compose_config(*words)
    return cfg, predictors.build(cfg, LABELS, FakeInputs(spread=3.0), folder, lambda epoch, metrics: None)


@pytest.mark.parametrize("refit", ["true", "false"])
def test_a_probe_keeps_the_predictions_from_before_its_second_fit(tmp_path: Path, refit: str) -> None:
    _, probe = build(tmp_path, *PROBES, f"head.refit={refit}")
    facts = probe.fit(TRAIN, VAL)
    held_out = probe.held_out(VAL)
    assert held_out.rows == VAL and held_out.truth == tuple(FakeInputs().truth(VAL))
    truth = np.array([LABELS.index(label) for label in held_out.truth])
    loss = -np.log(held_out.probabilities[np.arange(len(VAL)), truth]).mean()
    assert loss == pytest.approx(facts["fit/val_log_loss"], abs=1e-5)
    same = np.allclose(held_out.probabilities, probe.predict(VAL).probabilities)
    assert same == (refit == "false")


def test_a_loaded_probe_and_one_without_validation_rows_have_none(tmp_path: Path) -> None:
    cfg, probe = build(tmp_path, *PROBES)
    probe.fit(TRAIN, VAL)
    probe.save(tmp_path / "saved")
    loaded = predictors.load(tmp_path / "saved", cfg, LABELS, FakeInputs())
    probe.fit(TRAIN, ())
    for other in (loaded, probe):
        with pytest.raises(SerBenchError, match="validation rows"):
            predictors.require_capability(other, PredictsHeldOut).held_out(VAL)


def test_a_network_predicts_validation_rows_without_a_change_of_later_predictions(tmp_path: Path) -> None:
    _, network = build(tmp_path, "model=cnn", *TINY, "trainer.max_epochs=1")
    network.fit(TRAIN, VAL)
    before = network.predict(rows(84, 9)).probabilities
    assert network.held_out(VAL).rows == VAL
    np.testing.assert_array_equal(network.predict(rows(84, 9)).probabilities, before)


def test_text_that_costs_money_is_not_embedded_for_calibration() -> None:
    cls = predictors.predictor_class("text_only")
    assert cls.reason_without_held_out(compose_config("model=text_only")) == ""
    assert "text=openai" in cls.reason_without_held_out(compose_config("model=text_only", "text=openai"))


def test_those_that_ask_or_use_validation_rows_have_none() -> None:
    for name in ("llm", "fusion", "majority", "prior", "listeners"):
        assert not predictors.has_capability(name, PredictsHeldOut)


def calibrated(folder: Path, *words: str, val: tuple[Row, ...] = VAL) -> tuple[Calibration | None, str]:
    cfg, predictor = build(folder, *words)
    predictor.fit(TRAIN, val)
    return calibrate(cfg, predictor, val, {row.clip_id: f"s{i % 4}" for i, row in enumerate(val)})


def test_a_trained_predictor_is_calibrated_on_its_validation_rows(tmp_path: Path) -> None:
    found, text = calibrated(tmp_path, *PROBES)
    assert found is not None and (found.rows, found.speakers) == (24, 4)
    assert found.log_loss_after <= found.log_loss_before
    assert text == f"temperature {found.temperature:.3g}, of 24 rows of 4 validation speakers"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("model=majority",), "model=majority has no predictions"),
        ((*PROBES, "shuffle_labels=true"), "labels were shuffled"),
    ],
)
def test_where_there_is_no_calibration_the_reason_is_said(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    found, text = calibrated(tmp_path, *words)
    assert found is None and text.startswith("none: ") and reason in text


def test_without_validation_rows_there_is_no_calibration(tmp_path: Path) -> None:
    assert calibrated(tmp_path, *PROBES, val=()) == (None, "none: split=speaker has no validation rows here")
