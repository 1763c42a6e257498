"""Metrics against scikit-learn, against figures worked by hand, and against what must hold for any predictions."""

from __future__ import annotations

import doctest
import math

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_bench.evaluation import metrics
from ser_bench.evaluation.classification_report import report_dict, report_text
from ser_bench.types import Predictions, clean_rows

LABELS = ("angry", "happy", "neutral", "sad")


def make(
    truth: list[str],
    probabilities: npt.ArrayLike,
    labels: tuple[str, ...] = LABELS,
    abstained: list[bool] | None = None,
    source: str = "softmax",
) -> Predictions:
    n = len(truth)
    return Predictions(
        rows=clean_rows(f"c{i}" for i in range(n)),
        truth=tuple(truth),
        labels=labels,
        probabilities=np.asarray(probabilities, dtype=np.float32).reshape(n, len(labels)),
        abstained=np.array(abstained or [False] * n),
        latency_s=np.zeros(n, np.float32),
        cost_usd=np.zeros(n, np.float32),
        source=source,
    )


def random(seed: int, n: int = 200, abstain: float = 0.0, labels: tuple[str, ...] = LABELS) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.4] * len(labels), n)
    abstained = rng.random(n) < abstain
    probabilities[abstained] = 1 / len(labels)
    truth = [labels[i] for i in rng.choice(len(labels), n, p=rng.dirichlet([3.0] * len(labels)))]
    return make(truth, probabilities, labels, abstained.tolist())


def test_doctests_of_the_module_hold():
    result = doctest.testmod(metrics)
    assert result.attempted >= 10 and result.failed == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("abstain", [0.0, 0.2])
def test_metrics_equal_scikit_learn(seed, abstain):
    p = random(seed, abstain=abstain)
    truth, predicted = list(p.truth), list(p.predicted)  # "" of an abstention is one more wrong answer
    assert metrics.accuracy(p) == pytest.approx(oracle.accuracy_score(truth, predicted))
    recall = oracle.recall_score(y_true=truth, y_pred=predicted, labels=LABELS, average="macro", zero_division=0)
    assert metrics.uar(p) == pytest.approx(recall)
    for average, ours in (("macro", metrics.macro_f1), ("weighted", metrics.weighted_f1)):
        f1 = oracle.f1_score(y_true=truth, y_pred=predicted, labels=LABELS, average=average, zero_division=0)
        assert ours(p) == pytest.approx(f1)
    scaled = p.probabilities.astype(np.float64)
    scaled /= scaled.sum(axis=1, keepdims=True)
    clipped = np.clip(scaled, metrics.SMALLEST_PROBABILITY, 1)
    expected = -np.log(clipped[np.arange(len(truth)), [LABELS.index(t) for t in truth]]).mean()
    assert metrics.log_loss(p) == pytest.approx(expected)
    assert metrics.log_loss(p) == pytest.approx(oracle.log_loss(truth, scaled, labels=list(LABELS)), rel=1e-3)


def test_uar_is_scikit_learns_balanced_accuracy_and_ignores_a_class_that_nobody_speaks():
    p = random(7)
    assert metrics.uar(p) == pytest.approx(oracle.balanced_accuracy_score(y_true=p.truth, y_pred=p.predicted))
    spoken = [i for i, truth in enumerate(p.truth) if truth != "sad"]
    part = p.take(spoken)
    assert "sad" in part.predicted  # it is still answered, and those answers are wrong
    present = ["angry", "happy", "neutral"]
    expected = oracle.recall_score(y_true=part.truth, y_pred=part.predicted, labels=present, average="macro")
    assert metrics.uar(part) == pytest.approx(expected)
    names = metrics.score(part)
    assert names["test/support/sad"] == 0 and "test/recall/sad" not in names and "test/f1/sad" not in names


def test_uar_is_not_symmetric():
    one_hot = np.eye(4)
    truth, said = ["angry", "angry", "angry", "sad"], ["angry", "sad", "sad", "sad"]
    forth = make(truth, one_hot[[LABELS.index(s) for s in said]])
    back = make(said, one_hot[[LABELS.index(t) for t in truth]])
    assert metrics.uar(forth) == pytest.approx((1 / 3 + 1) / 2)
    assert metrics.uar(back) == pytest.approx((1 + 1 / 3) / 2)
    third = make(["angry", "angry", "sad", "happy"], one_hot[[0, 0, 0, 0]])
    assert metrics.uar(third) == pytest.approx(1 / 3)
    assert metrics.uar(make(["angry"] * 4, one_hot[[0, 0, 3, 1]])) == pytest.approx(1 / 2)


def test_confusion_by_hand_with_abstentions_in_the_last_column():
    p = make(
        ["angry", "angry", "sad", "sad", "happy"],
        [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0.25] * 4, [0.25] * 4],
        abstained=[False, False, False, True, True],
    )
    expected = [[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    assert metrics.confusion(p).tolist() == expected
    assert metrics.accuracy(p) == pytest.approx(2 / 5)
    assert metrics.abstention_rate(p) == pytest.approx(2 / 5)
    # A uniform row's first label would be "angry": an abstention must not count as that.
    assert metrics.per_class(p)["angry"] == metrics.ClassScore(precision=1.0, recall=0.5, f1=2 / 3, support=2)
    assert metrics.per_class(p)["neutral"] == metrics.ClassScore(0.0, 0.0, 0.0, 0)


def test_abstaining_where_the_argmax_would_be_right_counts_as_wrong():
    p = make(["angry"] * 4, [[0.25] * 4] * 4, abstained=[True] * 4)
    assert metrics.accuracy(p) == metrics.uar(p) == metrics.macro_f1(p) == 0.0
    assert metrics.log_loss(p) == pytest.approx(math.log(4))
    assert metrics.ece(p) == pytest.approx(0.25)


def test_ece_by_hand():
    labels = ("a", "b")
    # Bin (12/15, 13/15]: .82 right, .85 wrong → |1 − 1.67|; bin (8/15, 9/15]: .55 and .6 right → |2 − 1.15|; of 4 rows.
    p = make(["a", "b", "a", "a"], [[0.82, 0.18], [0.85, 0.15], [0.55, 0.45], [0.6, 0.4]], labels)
    assert metrics.ece(p) == pytest.approx((0.67 + 0.85) / 4, abs=1e-6)
    assert metrics.ece(p, bins=1) == pytest.approx(abs(3 - 2.82) / 4, abs=1e-6)


def test_ece_is_zero_when_confidence_is_kept():
    p = make(["a"] * 3 + ["b"], [[0.75, 0.25]] * 4, ("a", "b"))
    assert metrics.ece(p) == pytest.approx(0.0, abs=1e-7)


def test_log_loss_by_hand_and_clipped():
    p = make(["a", "b"], [[0.5, 0.5], [1.0, 0.0]], ("a", "b"))
    assert metrics.log_loss(p) == pytest.approx((math.log(2) + 15.942385) / 2, abs=1e-4)


def test_predictors_without_probabilities_have_no_log_loss_and_no_ece():
    p = make(["angry", "sad"], np.eye(4)[[0, 3]], source="one_hot")
    assert {"test/log_loss", "test/ece"}.isdisjoint(metrics.score(p))
    with pytest.raises(ValueError, match="n/a"):
        metrics.log_loss(p)
    with pytest.raises(ValueError, match="n/a"):
        metrics.ece(p)


def test_nothing_to_score_and_unknown_truth_are_refused():
    with pytest.raises(ValueError, match="no predictions"):
        metrics.score(make([], np.zeros((0, 4))))
    with pytest.raises(ValueError, match="''"):
        metrics.accuracy(make([""], [[1, 0, 0, 0]]))


def test_score_names_are_grouped_by_prefix():
    scores = metrics.score(random(1), prefix="clean/")
    assert all(name.startswith("clean/") for name in scores)
    wanted = {"accuracy", "uar", "macro_f1", "weighted_f1", "log_loss", "ece", "abstention_rate", "rows"}
    wanted |= {f"{kind}/{label}" for kind in ("precision", "recall", "f1", "support") for label in LABELS}
    assert {name.removeprefix("clean/") for name in scores} == wanted
    assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize("seed", range(3))
def test_report_is_scikit_learns_to_the_letter(seed):
    p = random(seed, n=37)
    arguments = {"y_true": p.truth, "y_pred": p.predicted, "labels": list(LABELS), "zero_division": 0}
    assert report_text(p) == oracle.classification_report(**arguments, digits=3)
    theirs = oracle.classification_report(**arguments, output_dict=True)
    ours = report_dict(p)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values)


def test_report_keeps_its_layout_and_counts_abstentions():
    p = random(3, n=50, abstain=0.3)
    text = report_text(p)
    assert "accuracy" in text and "micro" not in text
    assert f"abstained: {int(p.abstained.sum())} of 50 rows, counted as wrong" in text
    assert report_dict(p)["accuracy"] == metrics.accuracy(p)


@st.composite
def any_predictions(draw):
    labels = LABELS[: draw(st.integers(2, 4))]
    return random(draw(st.integers(0, 2**31)), draw(st.integers(1, 60)), draw(st.floats(0, 1)), labels)


@settings(max_examples=60, deadline=None)
@given(any_predictions())
def test_ranges_and_identities_hold_for_any_predictions(p):
    scores = metrics.score(p, "")
    for name in ("accuracy", "uar", "macro_f1", "weighted_f1", "abstention_rate", "ece"):
        assert 0.0 <= scores[name] <= 1.0
    assert 0.0 <= scores["log_loss"] <= 15.95
    assert scores["accuracy"] <= 1.0 - scores["abstention_rate"] + 1e-12
    classes = metrics.per_class(p)
    assert sum(c.support for c in classes.values()) == len(p.rows)
    # Accuracy is the support-weighted mean of recall.
    assert scores["accuracy"] == pytest.approx(sum(c.support * c.recall for c in classes.values()) / len(p.rows))
    # F1 is the harmonic mean of precision and recall.
    for c in classes.values():
        harmonic = 2 * c.precision * c.recall / (c.precision + c.recall) if c.precision + c.recall else 0.0
        assert c.f1 == pytest.approx(harmonic)
    # One bin gives the gap between mean confidence and accuracy; finer bins can only find more.
    gap = abs(scores["accuracy"] - float(p.probabilities.astype(np.float64).max(axis=1).mean()))
    assert metrics.ece(p, bins=1) == pytest.approx(gap, abs=1e-6)
    assert scores["ece"] >= gap - 1e-6


@settings(max_examples=30, deadline=None)
@given(any_predictions(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_labels_does_not_matter(p, rng):
    rows = list(range(len(p.rows)))
    rng.shuffle(rows)
    columns = list(range(len(p.labels)))
    rng.shuffle(columns)
    turned = make(
        [p.truth[i] for i in rows],
        p.probabilities[np.ix_(rows, columns)],
        tuple(p.labels[i] for i in columns),
        p.abstained[rows].tolist(),
    )
    assert metrics.score(turned) == pytest.approx(metrics.score(p), abs=1e-6)
