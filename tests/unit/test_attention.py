"""Attention over members' vectors: by hand, on members of known worth; what trains it, and what it must not look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_bench import predictors
from ser_bench.audit.combiner import check_combiner
from ser_bench.audit.scaler import check_scaler, stored_scaler
from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.fusion.attention import AttentionNetwork, TrainedAttention
from ser_bench.predictors.fusion.fusion import Fusion
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray, Predictions, Row, Split
from tests.support.fake_inputs import (
    LABELS,
    FakeInputsWithMembers,
    FakeMember,
    accuracy_of,
    compose_config,
    rows,
)

TRAIN, VAL, TEST = rows(0, 300), rows(1000, 60), rows(2000, 300)
CFG = compose_config(
    "model=fusion", "model.combine=attention", "model.width=16", "model.learning_rate=0.01", "model.seeds=2"
)
KNOWING, NOISE = FakeMember("knowing", 4.0), FakeMember("noise", 0.0)


def made(
    inputs: FakeInputsWithMembers, cfg: Config = CFG, train: tuple[Row, ...] = TRAIN, val: tuple[Row, ...] = VAL
) -> Fusion:
    fusion = Fusion(cfg, LABELS, inputs, Path(), lambda epoch, metrics: None)
    fusion.fit(train, val)
    return fusion


def with_model(**values: float) -> Config:
    return replace(CFG, model=replace(CFG.model, **values))


class Liar(FakeInputsWithMembers):
    """Says of these rows another label than theirs."""

    def __init__(self, *members: FakeMember, of: Sequence[Row]) -> None:
        super().__init__(*members)
        self.of = set(of)

    def truth(self, rows: Sequence[Row]) -> list[str]:
        told = super().truth(rows)
        return [LABELS[(LABELS.index(t) + (row in self.of)) % 3] for row, t in zip(rows, told, strict=True)]


def test_it_answers_as_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 2, 1)))
    arrays = {
        "biases": rng.normal(size=(1, 2, 2)),
        "query": np.array([[3.0, -2.0]]),
        "out_weights": rng.normal(size=(1, 2, 2)),
        "out_biases": np.array([[0.5, -0.5]]),
    }
    scaler = Standardizer(np.array([1, 2, 3, 4], np.float32), np.array([1, 2, 1, 0.5], np.float32))
    one, two = np.array([[2, 0, 1]], np.float32), np.array([[5]], np.float32)
    probabilities, shares = TrainedAttention(scaler, weights, arrays)([one, two])
    first = np.tanh(weights[0][0] @ [1, -1, -2] + arrays["biases"][0, 0])
    second = np.tanh(weights[1][0] @ [2] + arrays["biases"][0, 1])
    odds = np.exp(np.array([first @ [3, -2], second @ [3, -2]]))
    a = odds / odds.sum()
    raised = np.exp(arrays["out_weights"][0] @ (a[0] * first + a[1] * second) + [0.5, -0.5])
    np.testing.assert_allclose(shares, [a])
    np.testing.assert_allclose(probabilities, [raised / raised.sum()])


def test_stored_numbers_answer_as_the_network_does() -> None:
    torch.manual_seed(0)
    network = AttentionNetwork([4, 3], CFG.model, 3).eval()
    torch.nn.init.normal_(network.query)
    found = network.arrays()
    arrays = {name: found[name][None] for name in ("biases", "query", "out_weights", "out_biases")}
    unscaled = Standardizer(np.zeros(7, np.float32), np.ones(7, np.float32))
    attention = TrainedAttention(unscaled, (found["weights_0"][None], found["weights_1"][None]), arrays)
    parts = [np.random.default_rng(0).normal(size=(5, width)).astype(np.float32) for width in (4, 3)]
    expected = network([torch.from_numpy(part) for part in parts]).softmax(1).detach()
    np.testing.assert_allclose(attention(parts)[0], expected, atol=1e-6)


def test_a_row_never_goes_without_all_members() -> None:
    network = AttentionNetwork([4, 3], with_model(member_dropout=0.9).model, 3)
    left_out = network._left_out(1000, 2)
    assert not left_out.all(dim=1).any() and left_out.any(dim=1).float().mean() > 0.9
    parts = [torch.randn(64, 4), torch.randn(64, 3)]
    assert network.train()(parts).isfinite().all()
    assert torch.equal(network.eval()(parts), network(parts)), "in answers no member is left out"


def test_attention_leans_to_the_member_that_tells() -> None:
    for order in ((KNOWING, NOISE), (NOISE, KNOWING)):
        fusion = made(FakeInputsWithMembers(*order))
        assert accuracy_of(fusion.predict(TEST)) > 0.85
        shares = fusion.facts()
        assert list(shares) == [f"fusion/attention/{member.name}" for member in order]
        assert sum(shares.values()) == pytest.approx(1.0) and shares["fusion/attention/knowing"] > 0.6


def test_two_who_know_something_know_more_than_either() -> None:
    inputs = FakeInputsWithMembers(FakeMember("ear", 1.5), FakeMember("eye", 1.5))
    fusion = made(inputs)
    fused = accuracy_of(fusion.predict(TEST))
    without = fusion.without_each(TEST)
    assert list(without) == ["ear", "eye"]
    assert all(fused > accuracy_of(found) + 0.05 for found in without.values())


def test_without_a_member_it_is_the_attention_over_the_others() -> None:
    a, b, c = FakeMember("a", 1.5), FakeMember("b", 0.8), FakeMember("c", 0.1)
    without = made(FakeInputsWithMembers(a, b, c)).without_each(TEST)
    for name, others in (("a", (b, c)), ("b", (a, c)), ("c", (a, b))):
        np.testing.assert_array_equal(
            without[name].probabilities, made(FakeInputsWithMembers(*others)).predict(TEST).probabilities
        )


def test_it_is_trained_on_clean_training_rows_and_looks_at_no_test_row() -> None:
    ear, eye = FakeMember("ear", 1.5), FakeMember("eye", 0.8)
    noisy = tuple(Row(row.clip_id, "noise") for row in (*TRAIN, *VAL))
    fusion = Fusion(CFG, LABELS, FakeInputsWithMembers(ear, eye), Path(), lambda epoch, metrics: None)
    facts = fusion.fit(TRAIN + noisy[: len(TRAIN)], VAL + noisy[len(TRAIN) :], TEST)
    assert ear.asked == eye.asked == [TRAIN, VAL]
    assert facts["params/total"] == facts["params/trainable"] == 2 * (2 * (16 * 4 + 16) + 16 + 3 * 16 + 3)
    assert facts["fit/val_uar"] > 0.5 and facts["fit/val_log_loss"] > 0 and facts["fit/seconds"] > 0


def test_labels_of_validation_and_test_rows_change_no_answer() -> None:
    honest = made(FakeInputsWithMembers(KNOWING, NOISE)).predict(TEST)
    lied_to = made(Liar(KNOWING, NOISE, of=(*VAL, *TEST))).predict(TEST)
    np.testing.assert_array_equal(lied_to.probabilities, honest.probabilities)
    np.testing.assert_array_equal(
        made(FakeInputsWithMembers(KNOWING, NOISE), val=()).predict(TEST).probabilities, honest.probabilities
    )
    assert not np.array_equal(made(Liar(KNOWING, NOISE, of=TRAIN)).predict(TEST).probabilities, honest.probabilities), (
        "those of training rows do"
    )


def test_probabilities_of_members_play_no_part() -> None:
    class Mute(FakeMember):
        def predict(self, rows: Sequence[Row]) -> Predictions:
            raise AssertionError("asked")

    fusion = made(FakeInputsWithMembers(Mute("ear", 1.5), Mute("eye", 0.8)))
    found = fusion.predict(TEST)
    assert not found.abstained.any() and found.gives_probabilities and (found.cost_usd == 0).all()
    assert fusion.predict(()).rows == ()


def test_the_seed_decides_and_other_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = made(FakeInputsWithMembers(KNOWING, NOISE)).predict(TEST)
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(
        made(FakeInputsWithMembers(KNOWING, NOISE)).predict(TEST).probabilities, first.probabilities
    )
    other = made(FakeInputsWithMembers(KNOWING, NOISE), replace(CFG, seed=1)).predict(TEST)
    assert not np.array_equal(other.probabilities, first.probabilities)


def test_shuffled_labels_leave_chance() -> None:
    inputs = FakeInputsWithMembers(FakeMember("ear", 6.0), FakeMember("eye", 6.0))
    assert accuracy_of(made(inputs).predict(TEST)) > 0.95
    assert accuracy_of(made(inputs, replace(CFG, shuffle_labels=True)).predict(TEST)) < 0.55


def test_a_label_without_training_rows_is_never_said() -> None:
    some = tuple(row for row in TRAIN if not row.clip_id.startswith("fear"))
    found = made(FakeInputsWithMembers(KNOWING, NOISE), train=some).predict(TEST)
    assert (found.probabilities[:, LABELS.index("fear")] == 0).all()


def test_a_restored_fusion_answers_the_same_of_its_own_members(tmp_path: Path) -> None:
    inputs = FakeInputsWithMembers(KNOWING, NOISE)
    fusion = made(inputs)
    fusion.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = predictors.load(tmp_path, CFG, LABELS, inputs)
    np.testing.assert_array_equal(again.predict(TEST).probabilities, fusion.predict(TEST).probabilities)
    assert again.facts() == fusion.facts()
    with pytest.raises(SerBenchError, match="keeps no training vectors"):
        again.without_each(TEST)  # type: ignore[attr-defined]
    with pytest.raises(SerBenchError, match="knowing-run, noise-run, not of knowing-run"):
        predictors.load(tmp_path, CFG, LABELS, FakeInputsWithMembers(KNOWING)).predict(TEST)
    (tmp_path / "attention.safetensors").write_bytes(b"12345678nothing")
    with pytest.raises(SerBenchError, match="force=true"):
        predictors.load(tmp_path, CFG, LABELS, inputs)


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    class Grown(FakeMember):
        def vectors(self, rows: Sequence[Row]) -> FloatArray:
            return np.ones((len(rows), 9), np.float32)

    made(FakeInputsWithMembers(KNOWING, NOISE)).save(tmp_path)
    other = predictors.load(tmp_path, CFG, LABELS, FakeInputsWithMembers(KNOWING, Grown("noise", 0)))
    with pytest.raises(SerBenchError, match=r"\[4, 9\] .*\[4, 4\]"):
        other.predict(TEST)


def test_a_member_without_vectors_stops_it() -> None:
    class Deaf(FakeMember):
        def vectors(self, rows: Sequence[Row]) -> FloatArray:
            raise ConfigError(f"run {self.run_id} has none")

    with pytest.raises(ConfigError, match="deaf-run has none"):
        made(FakeInputsWithMembers(KNOWING, Deaf("deaf", 1.0)))


@pytest.mark.parametrize(
    ("values", "train", "said"),
    [
        ({}, tuple(row for row in TRAIN if row.clip_id.startswith("fear")), "one label"),
        ({}, tuple(Row(row.clip_id, "noise") for row in TRAIN), "clean rows"),
        ({"seeds": 0}, TRAIN, "model.seeds=0"),
        ({"width": -1}, TRAIN, "model.width=-1"),
        ({"member_dropout": 1.0}, TRAIN, "model.member_dropout=1.0"),
    ],
)
def test_what_trains_nothing_is_refused(values: dict[str, float], train: tuple[Row, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(FakeInputsWithMembers(KNOWING, NOISE), with_model(**values), train=train)


def test_what_was_never_fitted_answers_nothing() -> None:
    with pytest.raises(ConfigError, match="two runs or more"):
        made(FakeInputsWithMembers(KNOWING))
    fusion = Fusion(CFG, LABELS, FakeInputsWithMembers(KNOWING, NOISE), Path(), lambda epoch, metrics: None)
    with pytest.raises(SerBenchError, match="not fitted"):
        fusion.predict(TEST)
    assert fusion.facts() == {}


@pytest.mark.parametrize(("seen", "leak"), [(TRAIN, False), (TRAIN + TEST, True)])
def test_the_audit_knows_its_scaler(tmp_path: Path, seen: tuple[Row, ...], leak: bool) -> None:
    made(FakeInputsWithMembers(KNOWING, NOISE), train=seen).save(tmp_path)
    split = Split("speaker", 0, 2, TRAIN, VAL, TEST)

    def read(rows: Sequence[Row]) -> FloatArray:
        return np.concatenate([KNOWING.vectors(rows), NOISE.vectors(rows)], axis=1)

    assert check_scaler(stored_scaler(tmp_path), split, read).leak is leak
    combiner = check_combiner(tmp_path, CFG, split, {})
    assert combiner is not None and combiner.share is None and combiner.text.startswith("not checked")
