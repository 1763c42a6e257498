"""Heads against scikit-learn; stored heads; settings chosen on validation rows; absent labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from ser_bench.config import HeadConfig
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.heads import Head
from ser_bench.predictors.heads.classifier import LabelledVectors
from ser_bench.predictors.heads.hidden_layer import HiddenLayerClassifier
from ser_bench.predictors.heads.svm import SvmClassifier, rbf_kernel, scores_by_class
from ser_bench.predictors.probabilities import softmax
from tests.support.fake_inputs import compose_config

CLASSES, WIDTH = 4, 12
EVERY = ("logistic", "svm", "mlp")


def data(count: int, seed: int, classes: int = CLASSES, spread: float = 1.2) -> tuple[Any, Any]:
    """Clouds around `classes` centres, in columns of very different scale; the last column is constant."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, WIDTH))
    x = (centres[labels] + spread * rng.normal(size=(count, WIDTH))) * np.logspace(-3, 3, WIDTH) + 5
    x[:, -1] = 7.0
    return x, labels


TRAIN, VAL, TEST = data(400, 0), data(80, 1), data(200, 2)


def head(*members: str, classes: int = CLASSES, seed: int = 0, **changes: Any) -> Head:
    small = {
        "hidden": 16,
        "epochs": 30,
        "seeds": 2,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "logistic_c": [0.3],
    } | changes
    return Head(HeadConfig(members=list(members), **small), classes, seed)


def uar(probabilities: Any, labels: Any) -> float:
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


@pytest.mark.parametrize("members", [("logistic",), ("svm",), ("mlp",), EVERY])
def test_a_head_learns_and_predicts_the_same_after_loading(members: tuple[str, ...], tmp_path: Path) -> None:
    fitted = head(*members)
    facts = fitted.fit(*TRAIN, *VAL)
    predicted = fitted.predict_proba(TEST[0])
    assert predicted.shape == (200, CLASSES)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-9)
    assert uar(predicted, TEST[1]) > 0.6, "chance level is .25, and the clouds overlap"
    assert abs(facts["fit/val_uar"] - uar(predicted, TEST[1])) < 0.2 and facts["fit/val_log_loss"] < np.log(CLASSES)
    fitted.save(tmp_path)
    np.testing.assert_array_equal(Head.load(tmp_path).predict_proba(TEST[0]), predicted)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_members_are_averaged() -> None:
    single = []
    for name in EVERY:
        fitted = head(name)
        fitted.fit(*TRAIN, *VAL)
        single.append(fitted.predict_proba(TEST[0]))
    blend = head(*EVERY)
    blend.fit(*TRAIN, *VAL)
    np.testing.assert_allclose(blend.predict_proba(TEST[0]), np.mean(single, axis=0), atol=1e-9)


def test_logistic_is_scikit_learns() -> None:
    fitted = head("logistic", logistic_c=[0.1], refit=False)
    fitted.fit(*TRAIN, *VAL)
    mean, std = TRAIN[0].mean(axis=0), TRAIN[0].std(axis=0)
    std[-1] = 1.0
    oracle = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit((TRAIN[0] - mean) / std, TRAIN[1])
    np.testing.assert_allclose(fitted.predict_proba(TEST[0]), oracle.predict_proba((TEST[0] - mean) / std), atol=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_pairwise_decisions_of_the_svm_are_summed_by_class(classes: int) -> None:
    x, labels = data(200, 0, classes)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    machine = SVC(C=2.0, gamma=0.1, decision_function_shape="ovo").fit(x, labels)
    weights, intercepts = scores_by_class(machine.dual_coef_, machine.intercept_, machine.n_support_)
    scores = rbf_kernel(x, machine.support_vectors_, 0.1) @ weights + intercepts
    pairs = machine.decision_function(x).reshape(len(x), -1)
    if classes == 2:  # scikit-learn's positive side is then the second class
        np.testing.assert_allclose(scores, np.stack([-pairs[:, 0], pairs[:, 0]], axis=1), atol=1e-9)
        assert (scores.argmax(axis=1) == machine.predict(x)).all()
        return
    expected, pair = np.zeros((len(x), classes)), 0
    for i in range(classes):
        for j in range(i + 1, classes):
            expected[:, i] += pairs[:, pair] / (classes - 1)
            expected[:, j] -= pairs[:, pair] / (classes - 1)
            pair += 1
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    assert (scores.argmax(axis=1) == machine.predict(x)).mean() > 0.95, (
        "sums and votes differ if the pairwise decisions are cyclic"
    )


def test_the_width_of_the_kernel_follows_the_total_variance() -> None:
    """Principal components have unequal variances: with gamma = 1 / D all similarities would be near 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * np.array([9.0, 5, 3, 2, 1, 1])
    classifier = SvmClassifier(HeadConfig(svm_gamma=2.0), 2, 0)
    classifier.fit(LabelledVectors(x, np.arange(200) % 2), LabelledVectors(x[:0], np.arange(0)))
    assert classifier.settings()["gamma"] == pytest.approx(2.0 / x.var(axis=0).sum())


def test_settings_are_chosen_on_validation_rows_only() -> None:
    """Half of the training labels are wrong, so a strong penalty is best; the choice follows the validation rows."""
    x, labels = data(120, 0, spread=3.0)
    noisy = np.where(np.random.default_rng(3).random(120) < 0.5, (labels + 1) % CLASSES, labels)
    choice = head("logistic", logistic_c=[1e4, 1e-3])
    assert choice.fit(x, noisy, *data(400, 1, spread=3.0))["head/logistic_c"] == 1e-3
    overfit = head("logistic", logistic_c=[1e-3, 1e4])
    assert overfit.fit(x, noisy, x, noisy)["head/logistic_c"] == 1e4


def test_without_validation_rows_the_first_value_is_taken() -> None:
    fitted = head("logistic", "svm", logistic_c=[0.3, 0.01], svm_c=[2.0, 1.0])
    facts = fitted.fit(*TRAIN, VAL[0][:0], VAL[1][:0])
    assert (facts["head/logistic_c"], facts["head/svm_c"]) == (0.3, 2.0)
    assert "fit/val_uar" not in facts


@pytest.mark.parametrize("refit", [True, False])
def test_the_scaler_uses_training_rows_and_with_refit_validation_rows(refit: bool, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    fitted = head("logistic", refit=refit)
    fitted.fit(*TRAIN, *VAL)
    fitted.save(tmp_path)
    rows = np.concatenate([TRAIN[0], VAL[0]]) if refit else TRAIN[0]
    scaler = load_file(tmp_path / "head.safetensors")
    np.testing.assert_allclose(scaler["mean"], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler["std"][:-1], rows.std(axis=0)[:-1], rtol=1e-12)
    assert scaler["std"][-1] == 1.0


@pytest.mark.parametrize("name", EVERY)
def test_a_label_without_training_rows_has_probability_0(name: str, tmp_path: Path) -> None:
    fitted = head(name, classes=CLASSES + 1)
    fitted.fit(*TRAIN, *VAL)
    predicted = fitted.predict_proba(TEST[0])
    assert predicted.shape[1] == CLASSES + 1 and (predicted[:, CLASSES] == 0).all()
    fitted.save(tmp_path)
    assert (Head.load(tmp_path).predict_proba(TEST[0])[:, CLASSES] == 0).all()


def test_principal_components_keep_what_matters(tmp_path: Path) -> None:
    from sklearn.decomposition import PCA

    from ser_bench.predictors.heads.head import principal_axes

    fitted = head("svm", components=6)
    fitted.fit(*TRAIN, *VAL)
    predicted = fitted.predict_proba(TEST[0])
    assert uar(predicted, TEST[1]) > 0.6
    fitted.save(tmp_path)
    np.testing.assert_array_equal(Head.load(tmp_path).predict_proba(TEST[0]), predicted)
    x = np.random.default_rng(0).normal(size=(200, 9)) @ np.random.default_rng(1).normal(size=(9, 9))
    x -= x.mean(axis=0)
    oracle = PCA(3, svd_solver="full").fit(x).components_
    np.testing.assert_allclose(np.abs(oracle @ principal_axes(x, 3, 0)), np.eye(3), atol=1e-3)


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_components_keep_all_information_if_there_are_fewer_rows(name: str) -> None:
    """N rows span at most N directions; projection on these changes neither penalties nor distances."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 90)), np.arange(40) % CLASSES
    x[np.arange(40), labels] += 3
    whole, projected = head(name, refit=False), head(name, refit=False, components=60)
    whole.fit(x, labels, x[:0], labels[:0])
    projected.fit(x, labels, x[:0], labels[:0])
    probe = x + 0.01 * rng.normal(size=x.shape)
    np.testing.assert_allclose(projected.predict_proba(probe), whole.predict_proba(probe), atol=5e-3)


@pytest.mark.parametrize("name", EVERY)
def test_two_labels_are_enough(name: str) -> None:
    train, test = data(200, 0, 2, 1.0), data(100, 2, 2, 1.0)
    fitted = head(name, classes=2)
    fitted.fit(*train, *data(50, 1, 2, 1.0))
    assert uar(fitted.predict_proba(test[0]), test[1]) > 0.75


def test_networks_depend_on_their_seed_and_not_on_the_global_random_state() -> None:
    import torch

    def probabilities(seed: int) -> Any:
        fitted = head("mlp", seed=seed)
        fitted.fit(*TRAIN, *VAL)
        return fitted.predict_proba(TEST[0])

    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    first = probabilities(0)
    assert torch.equal(torch.rand(3), untouched)
    np.testing.assert_array_equal(probabilities(0), first)
    assert np.abs(probabilities(1) - first).max() > 1e-3


def test_stored_networks_predict_as_pytorch_does() -> None:
    import torch

    classifier = HiddenLayerClassifier(HeadConfig(hidden=16, epochs=2, seeds=1, dropout=0.0, mixup=0.0), CLASSES, 0)
    x = np.random.default_rng(0).normal(size=(50, WIDTH))
    classifier.fit(LabelledVectors(x, np.arange(50) % CLASSES), LabelledVectors(x[:0], np.arange(0)))
    first, offset, second, last = (torch.from_numpy(array[0]) for array in classifier.arrays().values())
    hidden = torch.relu(torch.from_numpy(x.astype(np.float32)) @ first.T + offset)
    np.testing.assert_allclose(
        classifier.predict_proba(x), torch.softmax(hidden @ second.T + last, dim=1).numpy(), atol=1e-6
    )


def test_softmax_of_minus_infinity_is_zero() -> None:
    np.testing.assert_allclose(softmax(np.array([[0.0, -np.inf, 0.0]])), [[0.5, 0.0, 0.5]])


@pytest.mark.parametrize("members", [(), ("forest",), ("svm", "svm")])
def test_unknown_and_repeated_members_are_refused(members: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"head\.members"):
        head(*members)


def test_misuse_raises_an_error() -> None:
    with pytest.raises(SerBenchError, match="not fitted"):
        head("logistic").predict_proba(TEST[0])
    with pytest.raises(ConfigError, match="one label"):
        head("logistic").fit(TRAIN[0], np.zeros(400, dtype=np.int64), *VAL)
    fitted = head("logistic")
    fitted.fit(*TRAIN, *VAL)
    with pytest.raises(SerBenchError, match="5 columns"):
        fitted.predict_proba(TEST[0][:, :5])


def test_a_damaged_or_newer_head_is_refused(tmp_path: Path) -> None:
    fitted = head("logistic")
    with pytest.raises(SerBenchError, match="fit before save"):
        fitted.save(tmp_path)
    fitted.fit(*TRAIN, *VAL)
    fitted.save(tmp_path)
    description = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(SerBenchError, match="format 2"):
        Head.load(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps(description))
    (tmp_path / "member_logistic.safetensors").write_bytes(b"nothing")
    with pytest.raises(SerBenchError, match="force=true"):
        Head.load(tmp_path)


@pytest.mark.parametrize(("name", "members"), [(n, [n]) for n in EVERY] + [("blend", list(EVERY))])
def test_each_choice_of_head_composes(name: str, members: list[str]) -> None:
    assert compose_config("experiment=none", f"head={name}").head.members == members


def test_a_label_that_only_validation_rows_have_is_learnt_with_refit() -> None:
    x, y = TRAIN
    others = y != 3
    fitted = head("logistic", refit=True)
    fitted.fit(x[others], y[others], *VAL)
    assert uar(fitted.predict_proba(TEST[0]), TEST[1]) > 0.6


def test_the_search_for_c_stops_when_the_loss_rises_and_keeps_the_best() -> None:
    """Coefficients, C and metrics are those of the best value, not of the last one tried."""
    values = [30.0, 1e-4, 0.03, 0.3, 3.0]
    fitted = head("logistic", refit=False, logistic_c=values)
    facts = fitted.fit(*TRAIN, *VAL)
    alone = {value: head("logistic", refit=False, logistic_c=[value]).fit(*TRAIN, *VAL) for value in values}
    best = min(values, key=lambda value: alone[value]["fit/val_log_loss"])
    assert facts["head/logistic_c"] == best
    assert facts["fit/val_log_loss"] == pytest.approx(alone[best]["fit/val_log_loss"], abs=2e-3)
