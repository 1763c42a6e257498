"""The one logistic regression of heads, baselines and fusions, against scikit-learn's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from ser_bench.predictors import logistic_regression
from ser_bench.predictors.probabilities import log_loss, softmax, validation_metrics


def data(labels: Sequence[Any], rows: int = 120) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(0)
    indices = np.arange(rows) % len(labels)
    return rng.normal(size=(rows, 5)) + indices[:, None], [labels[i] for i in indices]


def fitted(x: Any, y: Sequence[Any], **settings: Any) -> LogisticRegression:
    regression = LogisticRegression(**settings)
    logistic_regression.fit(regression, x, y, subject="this", remedy="raise max_iter")
    return regression


@pytest.mark.parametrize("present", [(0, 1), (1, 3), (0, 2, 3), (0, 1, 2, 3)])
def test_probabilities_are_those_of_scikit_learn_and_0_for_absent_labels(present: tuple[int, ...]) -> None:
    x, y = data(present)
    regression = fitted(x, y)
    coefficients, intercepts = logistic_regression.coefficients_by_label(regression, range(4))
    assert coefficients.shape == (4, 5) and coefficients.dtype == intercepts.dtype == np.float64
    probabilities = logistic_regression.predict_proba(x, coefficients, intercepts)
    np.testing.assert_allclose(probabilities[:, list(present)], regression.predict_proba(x), atol=1e-12)
    absent = [label for label in range(4) if label not in present]
    assert (probabilities[:, absent] == 0).all() and np.isneginf(intercepts[absent]).all()


def test_rows_are_in_the_order_of_the_labels_not_of_the_alphabet() -> None:
    labels = ("sad", "angry", "neutral", "happy")
    x, y = data(labels[:3])
    regression = fitted(x, y)
    coefficients, intercepts = logistic_regression.coefficients_by_label(regression, labels)
    probabilities = logistic_regression.predict_proba(x, coefficients, intercepts)
    columns = [labels.index(label) for label in regression.classes_]
    np.testing.assert_allclose(probabilities[:, columns], regression.predict_proba(x), atol=1e-12)
    assert (probabilities[:, 3] == 0).all()


def test_the_prediction_of_a_row_does_not_depend_on_other_rows() -> None:
    rng = np.random.default_rng(0)
    x, coefficients = rng.normal(size=(300, 700)), rng.normal(size=(6, 700)) / 30
    together = logistic_regression.predict_proba(x, coefficients, np.zeros(6))
    alone = np.concatenate(
        [logistic_regression.predict_proba(x[i : i + 1], coefficients, np.zeros(6)) for i in range(300)]
    )
    np.testing.assert_array_equal(together, alone)


def test_a_fit_that_has_not_converged_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    x, y = data((0, 1, 2))
    with caplog.at_level("WARNING"):
        fitted(x, y)
        assert not caplog.records
        assert fitted(x, y, max_iter=2).n_iter_.max() == 2
    (record,) = caplog.records
    assert "this has not converged after 2 iterations" in record.getMessage()
    assert record.getMessage().endswith("raise max_iter")


def test_softmax_is_that_of_scipy_to_the_last_bit() -> None:
    scores = 5 * np.random.default_rng(0).normal(size=(200, 6))
    scores[:, 2] = -np.inf
    np.testing.assert_array_equal(softmax(scores), scipy_softmax(scores, axis=1))


def test_validation_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), size=90), rng.integers(0, 3, size=90)  # label 3 does not occur
    metrics = validation_metrics(probabilities, labels)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert metrics["fit/val_uar"] == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))
    assert metrics["fit/val_log_loss"] == pytest.approx(sklearn_log_loss(labels, probabilities, labels=range(4)))
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(12 * np.log(10))
