"""Stacking against scikit-learn and by hand; what the regression may see; what a fusion refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ser_bench import predictors
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.fusion import stacking
from ser_bench.predictors.fusion.fusion import Fusion
from ser_bench.types import Predictions, Row
from tests.support.fake_inputs import (
    LABELS,
    FakeInputs,
    FakeInputsWithMembers,
    FakeMember,
    accuracy_of,
    compose_config,
    rows,
)

TRAIN, VAL, TEST = rows(0, 30), rows(100, 60), rows(200, 90)
STACK = compose_config("model=fusion")
MEAN = compose_config("model=fusion", "model.combine=mean")


def made(inputs: FakeInputs, cfg=STACK, val: tuple[Row, ...] = VAL) -> Fusion:
    fusion = Fusion(cfg, LABELS, inputs, Path(), lambda epoch, metrics: None)
    fusion.fit(TRAIN, val)
    return fusion


def answers(count: int, labels: int, seed: int) -> Predictions:
    given = np.random.default_rng(seed).dirichlet(np.ones(labels), count).astype(np.float32)
    names = tuple("abcd"[:labels])
    zeros = np.zeros(count, np.float32)
    return Predictions(
        tuple(Row(f"r{i}") for i in range(count)), ("a",) * count, names, given, np.zeros(count, np.bool_), zeros, zeros
    )


@pytest.mark.parametrize("labels", [2, 3, 4])
def test_stored_numbers_answer_as_scikit_learn_does(labels: int) -> None:
    logs = stacking.log_probabilities([answers(80, labels, 1), answers(80, labels, 2)])
    truth = np.arange(80) % labels
    found = stacking.fit(logs, truth, 0.5, 1000)
    theirs = LogisticRegression(C=0.5, max_iter=1000).fit(logs.reshape(80, -1), truth)
    np.testing.assert_allclose(found(logs), theirs.predict_proba(logs.reshape(80, -1)), atol=1e-9)
    assert found.coefficients.shape == (labels, 2 * labels) and found.parameters == labels * (2 * labels + 1)


def test_a_probability_of_nought_is_an_input_like_any_other() -> None:
    sure = replace(answers(2, 2, 0), probabilities=np.array([[1, 0], [0.5, 0.5]], np.float32))
    np.testing.assert_allclose(stacking.log_probabilities([sure])[0, 0], [0.0, np.log(1e-6)])


def test_the_mean_leaves_abstentions_out() -> None:
    one, two = answers(3, 2, 0), answers(3, 2, 1)
    given = np.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], np.float32)
    other = np.array([[0.3, 0.7], [0.5, 0.5], [0.5, 0.5]], np.float32)
    one = replace(one, probabilities=given, abstained=np.array([False, False, True]))
    two = replace(two, probabilities=other, abstained=np.array([False, True, True]))
    np.testing.assert_allclose(stacking.mean([one, two]), [[0.6, 0.4], [0.6, 0.4], [0.5, 0.5]], atol=1e-6)


def test_the_regression_sees_validation_rows_only() -> None:
    ear, eye = FakeMember("ear", 1.5), FakeMember("eye", 0.8)
    fusion = Fusion(STACK, LABELS, FakeInputsWithMembers(ear, eye), Path(), lambda epoch, metrics: None)
    noisy = tuple(Row(row.clip_id, "noise") for row in VAL)
    facts = fusion.fit(TRAIN, VAL + noisy, TEST)
    assert ear.asked == eye.asked == [VAL]
    assert facts["fusion/val_rows"] == len(VAL) and facts["fusion/val_cost_usd"] == 2 * 0.5 * len(VAL)
    assert facts["params/total"] == 3 * (2 * 3 + 1)


def test_two_who_know_something_know_more_than_either() -> None:
    ear, eye = FakeMember("ear", 1.5), FakeMember("eye", 1.2)
    fused = accuracy_of(made(FakeInputsWithMembers(ear, eye), val=rows(300, 300)).predict(rows(1000, 900)))
    assert fused > accuracy_of(ear.predict(rows(1000, 900))) + 0.03
    assert fused > accuracy_of(eye.predict(rows(1000, 900))) + 0.03


def test_the_mean_learns_nothing_and_asks_nobody() -> None:
    ear, eye = FakeMember("ear", 1.5), FakeMember("eye", 0.8)
    fusion = made(FakeInputsWithMembers(ear, eye), MEAN, val=())
    assert ear.asked == []
    expected = stacking.mean([ear.predict(TEST), eye.predict(TEST)])
    np.testing.assert_allclose(fusion.predict(TEST).probabilities, expected, atol=1e-6)
    assert fusion.predict(TEST).source == "mean"


def test_the_mean_of_what_is_no_probability_is_none() -> None:
    class Guess(FakeMember):
        def predict(self, rows: Sequence[Row]) -> Predictions:
            found = super().predict(rows)
            return replace(found, probabilities=np.eye(3, dtype=np.float32)[[0] * len(rows)], source="one_hot")

    both = FakeInputsWithMembers(FakeMember("ear", 1.5), Guess("guess", 0))
    assert not made(both, MEAN).predict(TEST).gives_probabilities
    assert made(both).predict(TEST).gives_probabilities


@pytest.mark.parametrize("cfg", [STACK, MEAN])
def test_it_abstains_where_all_members_do_and_costs_what_they_cost(cfg) -> None:
    class Bold(FakeMember):
        def predict(self, rows: Sequence[Row]) -> Predictions:
            return replace(super().predict(rows), abstained=np.zeros(len(rows), np.bool_))

    found = made(FakeInputs(), cfg).predict(TEST)
    numbers = [int(row.clip_id.split("-")[1]) for row in TEST]
    assert list(found.abstained) == [number % 29 == 0 for number in numbers] and found.abstained.any()
    np.testing.assert_allclose(found.probabilities[found.abstained], 1 / 3, atol=1e-6)
    assert (found.latency_s >= 0.5).all() and (found.cost_usd == 1.0).all()
    assert not made(FakeInputsWithMembers(FakeMember("ear", 1.5), Bold("eye", 0.8)), cfg).predict(TEST).abstained.any()


@pytest.mark.parametrize("cfg", [STACK, MEAN])
def test_without_a_member_it_is_the_fusion_of_the_others(cfg) -> None:
    a, b, c = FakeMember("a", 1.5), FakeMember("b", 0.8), FakeMember("c", 0.1)
    without = made(FakeInputsWithMembers(a, b, c), cfg).without_each(TEST)
    assert list(without) == ["a", "b", "c"]
    for name, others in (("a", (b, c)), ("b", (a, c)), ("c", (a, b))):
        expected = made(FakeInputsWithMembers(*others), cfg).predict(TEST)
        np.testing.assert_allclose(without[name].probabilities, expected.probabilities, atol=1e-6)


def test_shuffled_labels_leave_nothing_to_learn() -> None:
    strong = FakeInputsWithMembers(FakeMember("ear", 6.0), FakeMember("eye", 6.0))
    assert accuracy_of(made(strong, val=rows(300, 600)).predict(TEST)) > 0.9
    assert accuracy_of(made(strong, replace(STACK, shuffle_labels=True), val=rows(300, 600)).predict(TEST)) < 0.7


@pytest.mark.parametrize(
    ("inputs", "val", "said"),
    [
        (FakeInputsWithMembers(FakeMember("ear", 1.0)), VAL, "two runs or more"),
        (FakeInputs(), (), "has none: choose model.combine=mean"),
        (FakeInputs(), tuple(row for row in VAL if not row.clip_id.startswith("fear")), "no validation row is fear"),
    ],
)
def test_what_cannot_be_stacked_is_refused(inputs: FakeInputs, val: tuple[Row, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(inputs, val=val)


def test_a_member_that_leaves_out_rows_is_named() -> None:
    class Lazy(FakeMember):
        def predict(self, rows: Sequence[Row]) -> Predictions:
            return super().predict(rows[:5])

    with pytest.raises(SerBenchError, match=r"lazy-run \(lazy\) .*5 of 60 rows"):
        made(FakeInputsWithMembers(FakeMember("ear", 1.0), Lazy("lazy", 1.0)))


def test_a_stored_fusion_answers_with_its_own_members_only(tmp_path: Path) -> None:
    made(FakeInputs()).save(tmp_path)
    other = predictors.load(
        tmp_path, STACK, LABELS, FakeInputsWithMembers(FakeMember("ear", 1.5), FakeMember("nose", 0.8))
    )
    with pytest.raises(SerBenchError, match="ear-run, eye-run, not of ear-run, nose-run"):
        other.predict(TEST)


def test_what_was_never_fitted_answers_nothing(tmp_path: Path) -> None:
    fusion = Fusion(STACK, LABELS, FakeInputs(), Path(), lambda epoch, metrics: None)
    with pytest.raises(SerBenchError, match="not fitted"):
        fusion.predict(TEST)
    with pytest.raises(SerBenchError, match="not fitted"):
        fusion.save(tmp_path)


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    made(FakeInputs()).save(tmp_path)
    (tmp_path / "fusion.safetensors").write_bytes(b"12345678nothing")
    with pytest.raises(SerBenchError, match="force=true"):
        predictors.load(tmp_path, STACK, LABELS, FakeInputs())
