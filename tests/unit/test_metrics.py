"""Metrics against scikit-learn and torchmetrics, worked examples, and identities that hold for any predictions."""

from __future__ import annotations

import doctest
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as oracle
import torch
import torchmetrics.functional.classification as torch_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_bench.evaluation import metrics
from ser_bench.evaluation.classification_report import report_dict, report_text
from ser_bench.types import Predictions, clean_rows

LABELS = ("angry", "happy", "neutral", "sad")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


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
    assert result.attempted >= 15 and result.failed == 0


@st.composite
def any_indices(draw):
    """Truth and answers as label indices; the index `classes` is an abstention. Classes may be absent from either."""
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(1, 40))
    truth = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    answers = draw(st.lists(st.integers(0, classes), min_size=n, max_size=n))
    return truth, answers, classes


def oracle_scores(truth, answers):
    """scikit-learn, with the labels of the truth only; an abstention is an answer that is never right."""
    present = sorted(set(truth))
    arguments = {"y_true": truth, "y_pred": answers, "labels": present, "zero_division": 0}
    return {
        "uar": oracle.recall_score(average="macro", **arguments),
        "macro_f1": oracle.f1_score(average="macro", **arguments),
        "weighted_f1": oracle.f1_score(average="weighted", **arguments),
        "accuracy": oracle.accuracy_score(truth, answers),
    }


@settings(max_examples=150, deadline=None)
@given(any_indices())
def test_one_table_of_counts_gives_what_scikit_learn_gives(case):
    truth, answers, classes = case
    counts = metrics.confusion_of(truth, answers, classes)
    assert np.array_equal(counts, oracle.confusion_matrix(truth, answers, labels=range(classes + 1))[:classes])
    for name, expected in oracle_scores(truth, answers).items():
        assert getattr(metrics, name)(counts) == pytest.approx(expected), name
    assert metrics.uar(counts) == pytest.approx(oracle.balanced_accuracy_score(y_true=truth, y_pred=answers))
    assert metrics.uar_of(truth, answers, classes) == metrics.uar(counts)
    assert metrics.abstention_rate(counts) == pytest.approx(answers.count(classes) / len(answers))
    arguments = {"y_true": truth, "y_pred": answers, "labels": range(classes), "average": None, "zero_division": 0}
    assert metrics.recall(counts) == pytest.approx(oracle.recall_score(**arguments))
    assert metrics.precision(counts) == pytest.approx(oracle.precision_score(**arguments))
    assert metrics.f1(counts) == pytest.approx(oracle.f1_score(**arguments))


@settings(max_examples=50, deadline=None)
@given(any_indices())
def test_one_table_of_counts_gives_what_torchmetrics_gives(case):
    truth, answers, classes = case
    counts = metrics.confusion_of(truth, answers, classes)
    present = sorted(set(truth))
    arguments = {"num_classes": classes + 1, "average": "none"}  # torchmetrics sees an abstention as one more class
    recall = torch_oracle.multiclass_recall(torch.tensor(answers), torch.tensor(truth), **arguments)
    f1 = torch_oracle.multiclass_f1_score(torch.tensor(answers), torch.tensor(truth), **arguments)
    assert metrics.uar(counts) == pytest.approx(float(recall[present].mean()), abs=1e-6)
    assert metrics.macro_f1(counts) == pytest.approx(float(f1[present].mean()), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(any_indices(), min_size=1, max_size=5))
def test_stacked_tables_score_as_each_table_alone(cases):
    classes = max(case[2] for case in cases)
    tables = [metrics.confusion_of(truth, np.where(np.equal(answers, own), classes, answers), classes)
              for truth, answers, own in cases]  # fmt: skip
    stack = np.stack(tables).astype(float)[:, None]
    for name, entry in metrics.METRICS.items():
        if not entry.needs_probabilities and not entry.needs_votes:
            together = entry.compute(stack)
            assert together.shape == (len(cases), 1, *([classes] if entry.per_class else []))
            for i, table in enumerate(tables):
                assert together[i, 0] == pytest.approx(entry.compute(table), nan_ok=True), name


def test_groups_are_counted_apart():
    truth, answers, groups = [0, 1, 1, 0], [0, 1, 2, 1], [2, 0, 0, 2]
    counts = metrics.confusion_of(truth, answers, 2, groups)
    assert counts.shape == (3, 2, 3)
    assert counts.sum(0).tolist() == metrics.confusion_of(truth, answers, 2).tolist()
    assert counts[0].tolist() == [[0, 0, 0], [0, 1, 1]] and not counts[1].any()


def test_an_index_outside_its_range_is_refused():
    for truth, answers in (([2], [0]), ([0], [3]), ([-1], [0])):
        with pytest.raises(ValueError, match="outside"):
            metrics.confusion_of(truth, answers, 2)


def test_perfect_answers_with_an_absent_class_score_one_in_every_mean():
    """Two definitions of macro-F1 once gave 1.0 and .667 here."""
    p = make(["angry", "happy"] * 3, np.eye(3)[[0, 1] * 3], ("angry", "happy", "sad"))
    assert metrics.uar(p) == metrics.macro_f1(p) == metrics.weighted_f1(p) == 1.0
    assert metrics.macro_f1(metrics.confusion(p)) == 1.0
    macro = report_dict(p)["macro avg"]
    assert (macro["recall"], macro["f1-score"]) == (1.0, 1.0)


def test_a_table_without_rows_has_no_score():
    empty = np.zeros((2, 3, 4))
    for name in ("uar", "accuracy", "macro_f1", "weighted_f1", "abstention_rate"):
        assert np.isnan(getattr(metrics, name)(empty)).all()


def test_tied_answers_count_in_parts():
    counts = metrics.fractional_confusion([0, 1, 1], [[0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]])
    assert counts.tolist() == [[0.5, 0.5, 0], [1, 1, 0]]
    assert metrics.accuracy(counts) == metrics.uar(counts) == 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("abstain", [0.0, 0.2])
def test_metrics_of_predictions_equal_scikit_learn(seed, abstain):
    p = random(seed, abstain=abstain)
    truth, predicted = list(p.truth), list(p.predicted)  # "" of an abstention is one more wrong answer
    for name, expected in oracle_scores(truth, predicted).items():
        assert getattr(metrics, name)(p) == pytest.approx(expected), name
    scaled = p.probabilities.astype(np.float64)
    scaled /= scaled.sum(axis=1, keepdims=True)
    clipped = np.clip(scaled, metrics.SMALLEST_PROBABILITY, 1)
    expected = -np.log(clipped[np.arange(len(truth)), [LABELS.index(t) for t in truth]]).mean()
    assert metrics.log_loss(p) == pytest.approx(expected)
    assert metrics.log_loss(p) == pytest.approx(oracle.log_loss(truth, scaled, labels=list(LABELS)), rel=1e-3)


def test_a_label_absent_from_the_truth_has_a_support_and_no_other_score():
    p = random(7)
    part = p.take([i for i, truth in enumerate(p.truth) if truth != "sad"])
    assert "sad" in part.predicted  # it is still answered, and those answers are wrong
    expected = oracle.recall_score(
        y_true=part.truth, y_pred=part.predicted, labels=["angry", "happy", "neutral"], average="macro"
    )
    assert metrics.uar(part) == pytest.approx(expected)
    names = metrics.score(part)
    assert names["test/support/sad"] == 0 and "test/recall/sad" not in names and "test/f1/sad" not in names


def test_uar_is_not_symmetric():
    one_hot = np.eye(4)
    truth, answers = ["angry", "angry", "angry", "sad"], ["angry", "sad", "sad", "sad"]
    forth = make(truth, one_hot[[LABELS.index(a) for a in answers]])
    back = make(answers, one_hot[[LABELS.index(t) for t in truth]])
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


def test_ece_is_zero_if_accuracy_equals_confidence():
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


def test_score_holds_every_registered_metric_under_its_prefix():
    scores = metrics.score(random(1), prefix="clean/")
    of_all = [entry for entry in metrics.METRICS.values() if not (entry.of_levels or entry.needs_votes)]
    names = {entry.name for entry in of_all if not entry.per_class}
    names |= {f"{entry.name}/{label}" for entry in metrics.METRICS.values() if entry.per_class for label in LABELS}
    assert set(scores) == {f"clean/{name}" for name in names}
    assert all(type(value) is float for value in scores.values())


def test_names_in_mlflow_do_not_change():
    """Stored runs and the columns of MLflow's table depend on them."""
    of_a_class = {"precision", "recall", "f1", "support"}
    assert {name for name, entry in metrics.METRICS.items() if entry.per_class} == of_a_class
    of_all = {"rows", "uar", "accuracy", "macro_f1", "weighted_f1", "abstention_rate", "log_loss", "ece"}
    of_levels = {"quadratic_kappa", "spearman", "mae_levels"}
    assert {name for name, entry in metrics.METRICS.items() if entry.of_levels} == of_levels
    of_votes = {"vote_cross_entropy", "vote_divergence", "vote_accuracy"}
    assert {name for name, entry in metrics.METRICS.items() if entry.needs_votes} == of_votes
    assert set(metrics.METRICS) == of_a_class | of_all | of_levels | of_votes


def test_the_documentation_lists_every_registered_metric_with_its_range():
    """A row of the table of docs/metrics.md: name | formula | range | better | …"""
    table = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `test/"):
            names, _, limits, better, *_ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            table |= dict.fromkeys(re.findall(r"`([^`]+)`", names), (limits, better))
    for entry in metrics.METRICS.values():
        limits, better = table.pop(f"test/{entry.name}" + ("/<label>" if entry.per_class else ""))
        low, high = (f"{value:.1f}".removesuffix(".0") for value in entry.range)
        assert limits == (f"≥ {low}" if high == "inf" else f"{low}–{high}"), entry.name
        assert better == {True: "higher", False: "lower", None: "–"}[entry.higher_is_better], entry.name
    assert all(name.endswith(("_low", "_high", "_calibrated", "_listeners")) for name in table), table


@pytest.mark.parametrize("seed", range(3))
def test_report_equals_that_of_scikit_learn(seed):
    p = random(seed, n=100)
    assert set(p.truth) == set(LABELS)
    arguments = {"y_true": p.truth, "y_pred": p.predicted, "labels": list(LABELS), "zero_division": 0}
    assert report_text(p) == oracle.classification_report(**arguments, digits=3)
    theirs = oracle.classification_report(**arguments, output_dict=True)
    ours = report_dict(p)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values)


def test_macro_average_of_the_report_leaves_out_absent_labels():
    p = random(1, n=100)
    p = p.take([i for i, truth in enumerate(p.truth) if truth != "sad"])
    macro = report_dict(p)["macro avg"]
    assert macro["recall"] == metrics.uar(p) and macro["f1-score"] == metrics.macro_f1(p)
    assert report_dict(p)["sad"]["support"] == 0


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
