"""The cumulative logit of `head=ordinal`: its gradient, its solution, stored arrays, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from ser_bench.config import HeadConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.heads import Head
from ser_bench.predictors.heads.classifier import LabelledVectors
from ser_bench.predictors.heads.ordinal import OrdinalClassifier, expit, objective
from ser_bench.predictors.probabilities import Array, Labels
from ser_bench.predictors.target_limits import check_target
from tests.support.fake_inputs import compose_config

WEIGHTS, THRESHOLDS = np.array([1.5, -1.0, 0.0, 0.5]), np.array([-1.0, 1.5])


def drawn(count: int, seed: int) -> tuple[Array, Labels]:
    """Levels that are drawn from a cumulative logit with `WEIGHTS` and `THRESHOLDS`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    latent = x @ WEIGHTS + rng.logistic(size=count)
    return x, np.searchsorted(THRESHOLDS, latent).astype(np.int64)


def fitted(x: Array, y: Labels, c: float, classes: int = 3) -> OrdinalClassifier:
    classifier = OrdinalClassifier(HeadConfig(logistic_c=[c]), classes, 0)
    nothing = LabelledVectors(x[:0], y[:0])
    assert classifier.fit(LabelledVectors(x, y), nothing) == {"c": c}
    return classifier


def test_the_gradient_is_that_of_the_objective() -> None:
    x, y = drawn(60, 0)
    for parameters in (np.array([0.3, -0.2, 0.1, 0.0, -0.5, 0.8]), np.array([9.0, 5.0, -9.0, 4.0, 2.0, 0.01])):
        value, gradient = objective(parameters, x, y, 0.7)
        numeric = approx_fprime(parameters, lambda p: objective(p, x, y, 0.7)[0], 1e-6)
        assert np.isfinite(value)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=2e-4)


def test_the_model_that_drew_the_levels_is_found() -> None:
    arrays = fitted(*drawn(6_000, 1), 1e3).arrays()
    np.testing.assert_allclose(arrays["weights"], WEIGHTS, atol=0.1)
    np.testing.assert_allclose(arrays["thresholds"], THRESHOLDS, atol=0.1)


def test_with_two_levels_it_is_logistic_regression() -> None:
    x, y = drawn(200, 2)
    two = (y > 0).astype(np.int64)
    oracle = LogisticRegression(C=0.3, tol=1e-8, max_iter=1000).fit(x, two)
    np.testing.assert_allclose(fitted(x, two, 0.3, 2).predict_proba(x), oracle.predict_proba(x), atol=1e-4)


def test_probabilities_are_those_of_the_formula_and_sum_to_one() -> None:
    classifier = fitted(*drawn(300, 3), 1.0)
    x = np.concatenate([drawn(20, 4)[0], [[1e4] * 4, [-1e4, 1e4, 0, 0]]])
    found = classifier.predict_proba(x)
    weights, thresholds = classifier.arrays()["weights"], classifier.arrays()["thresholds"]
    below = 1 / (1 + np.exp(-np.clip(thresholds - (x @ weights)[:, None], -700, 700)))
    np.testing.assert_allclose(found, np.stack([below[:, 0], below[:, 1] - below[:, 0], 1 - below[:, 1]], 1), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all() and (expit(np.array([-1e4, 1e4])) == [0, 1]).all()


def test_a_level_without_training_rows_has_probability_zero() -> None:
    x, y = drawn(200, 5)
    keep = y != 1
    found = fitted(x[keep], y[keep], 1.0).predict_proba(x)
    assert (found[:, 1] == 0).all() and found[:, [0, 2]].sum(axis=1) == pytest.approx(1)


def test_the_head_chooses_the_penalty_and_is_the_same_after_loading(tmp_path: Path) -> None:
    x, y = drawn(300, 6)
    head = Head(HeadConfig(members=["ordinal"], logistic_c=[1e-4, 0.1, 1.0]), 3)
    facts = head.fit(x, y, *drawn(100, 7))
    assert facts["head/ordinal_c"] in (0.1, 1.0) and facts["params/total"] == 6
    expected = head.predict_proba(x)
    assert (expected.argmax(axis=1) == y).mean() > 0.55
    head.save(tmp_path)
    np.testing.assert_array_equal(Head.load(tmp_path).predict_proba(x), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=llm", "corpus.target=intensity"), r"model=llm cannot predict .* its prompts ask about emotions"),
        (("model=listeners", "corpus.target=intensity"), r"model=listeners cannot predict .* its votes are about"),
        (("model=egemaps", "head=ordinal"), r"emotions have no order: add corpus\.target=intensity"),
        (("model=egemaps", "head=blend", "head.members=[svm,ordinal]"), r"head=blend has the member ordinal"),
    ],
)
def test_levels_and_emotions_are_not_mixed(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_target(compose_config("experiment=none", "corpus=cremad", *words))


def test_levels_are_allowed_for_vectors_networks_and_baselines() -> None:
    for model in ("majority", "cnn", "egemaps", "whisper_probe"):
        check_target(compose_config("corpus=cremad", "corpus.target=intensity", f"model={model}", "head=ordinal"))
    check_target(compose_config("corpus=cremad", "model=majority", "head=ordinal"))  # the head is not used
