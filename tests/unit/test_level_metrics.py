"""Metrics of ordered levels against scikit-learn and SciPy, and their intervals by speaker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from ser_bench import predictions as tables
from ser_bench.config import Protocol
from ser_bench.evaluation import heard_intensity, metrics, run_scores, statistics
from ser_bench.types import Clip, Predictions, Row

LEVELS = ("low", "medium", "high")
OF_LEVELS = ("quadratic_kappa", "spearman", "mae_levels")


def made(seed: int, count: int = 120, abstain: float = 0.0) -> Predictions:
    """Predictions that follow the truth loosely, of ten speakers; clip ids are `<speaker>-<number>`."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    scores = -np.abs(np.arange(3) - truth[:, None] - rng.normal(0, 0.8, (count, 1))) + rng.gumbel(0, 0.3, (count, 3))
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    abstained = rng.random(count) < abstain
    return Predictions(
        rows=tuple(Row(f"s{i % 10}-{i}") for i in range(count)),
        truth=tuple(LEVELS[i] for i in truth),
        labels=LEVELS,
        probabilities=np.where(abstained[:, None], 1 / 3, probabilities).astype(np.float32),
        abstained=abstained,
        latency_s=np.zeros(count, np.float32),
        cost_usd=np.zeros(count, np.float32),
        ordinal=True,
    )


def speakers_of(predictions: Predictions) -> dict[str, str]:
    return {row.clip_id: row.clip_id.partition("-")[0] for row in predictions.rows}


def indices(predictions: Predictions) -> tuple[list[int], list[int]]:
    return [LEVELS.index(t) for t in predictions.truth], [LEVELS.index(t) for t in predictions.predicted]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_scikit_learn_and_scipy(seed: int) -> None:
    p = made(seed)
    truth, answers = indices(p)
    scores = metrics.score(p, "")
    assert scores["quadratic_kappa"] == pytest.approx(cohen_kappa_score(truth, answers, weights="quadratic"))
    assert scores["spearman"] == pytest.approx(spearmanr(truth, answers).statistic)
    assert scores["mae_levels"] == pytest.approx(mean_absolute_error(truth, answers))


def test_an_abstention_is_the_farthest_level() -> None:
    """The farthest level from low is high, and the reverse; of medium both are, half each."""
    p = made(5, abstain=0.3)
    truth, answers = metrics.label_indices(p)
    both = [np.where(answers == 3, np.where(truth == 1, of_medium, 2 - truth), answers) for of_medium in (0, 2)]
    doubled, joined = np.tile(truth, 2), np.concatenate(both)
    assert metrics.quadratic_kappa(p) == pytest.approx(cohen_kappa_score(doubled, joined, weights="quadratic"))
    assert metrics.spearman(p) == pytest.approx(spearmanr(doubled, joined).statistic)
    assert metrics.mae_levels(p) == pytest.approx(np.abs(doubled - joined).mean())


def test_constant_answers_and_constant_truths() -> None:
    p = made(1)
    constant = replace(p, probabilities=np.tile(np.float32([0.2, 0.6, 0.2]), (len(p.rows), 1)))
    scores = metrics.score(constant, "")
    assert scores["quadratic_kappa"] == pytest.approx(0) and scores["spearman"] == 0
    one_level = p.take([i for i, truth in enumerate(p.truth) if truth == "high"])
    assert "spearman" not in metrics.score(one_level, "")
    assert metrics.score(one_level, "")["quadratic_kappa"] == pytest.approx(0)
    all_one = one_level.take([i for i, answer in enumerate(one_level.predicted) if answer == "high"])
    assert set(OF_LEVELS) & set(metrics.score(all_one, "")) == {"mae_levels"}


def test_metrics_of_levels_are_given_for_ordered_levels_alone(tmp_path: Path) -> None:
    p = made(2)
    nominal = replace(p, ordinal=False)
    assert not set(OF_LEVELS) & set(metrics.score(nominal, ""))
    assert not any("kappa" in name for name in run_scores.score(nominal, Protocol.speaker, speakers_of(p)))
    clips = {row.clip_id: Clip(row.clip_id, Path("x"), "high", "s") for row in p.rows}
    for given in (p, nominal):
        tables.save(given, clips, tmp_path / "p.parquet")
        assert tables.load(tmp_path / "p.parquet").ordinal is given.ordinal
    assert p.take([0, 1]).ordinal and tables.concatenate(p.take([0]), p.take([1])).ordinal


def test_intervals_of_levels_are_a_bootstrap_by_speaker() -> None:
    p = made(3)
    speakers = speakers_of(p)
    scores = run_scores.score(p, Protocol.speaker, speakers)
    truth, answers = (np.array(part) for part in indices(p))
    groups = np.array([int(speakers[row.clip_id][1:]) for row in p.rows])
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(groups == s) for s in rng.integers(0, 10, 10)])
        drawn.append(cohen_kappa_score(truth[rows], answers[rows], weights="quadratic"))
    half = np.std(drawn, ddof=1) * 2.262 * np.sqrt(10 / 9)  # Student's t of 9 degrees of freedom
    assert scores["test/quadratic_kappa_low"] == pytest.approx(scores["test/quadratic_kappa"] - half, abs=0.02)
    assert scores["test/mae_levels_low"] < scores["test/mae_levels"] < scores["test/mae_levels_high"] <= 2
    assert scores["test/spearman_low"] < scores["test/spearman"] < scores["test/spearman_high"] <= 1


def test_agreement_with_listeners_is_a_rank_correlation_of_the_expected_level() -> None:
    p = made(4)
    rng = np.random.default_rng(0)
    truth = np.array(indices(p)[0])
    ratings = {row.clip_id: float(round(20 * truth[i] + rng.normal(0, 20), -1)) for i, row in enumerate(p.rows[:100])}
    facts = heard_intensity.heard_agreement(p, ratings, speakers_of(p))
    expected = p.probabilities[:100] @ np.arange(3)
    assert facts["intensity/heard_clips"] == 100
    of_prediction = spearmanr(expected, list(ratings.values())).statistic
    assert facts["intensity/heard_spearman"] == pytest.approx(of_prediction, abs=1e-4)
    theirs = spearmanr(truth[:100], list(ratings.values())).statistic
    assert facts["intensity/instruction_spearman"] == pytest.approx(theirs)
    low, value, high = (facts[f"intensity/heard_spearman{end}"] for end in ("_low", "", "_high"))
    assert low < value < high
    assert heard_intensity.heard_agreement(p, {}, speakers_of(p)) == {}


def test_weights_of_a_rank_correlation_repeat_rows() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 4, 30).astype(float), rng.normal(size=30).round(1)
    weights = rng.integers(0, 3, (5, 30)).astype(float)
    found = heard_intensity.weighted_spearman(x, y, weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        assert value == pytest.approx(spearmanr(np.repeat(x, row), np.repeat(y, row)).statistic)
    assert heard_intensity.weighted_spearman(np.ones(30), y, weights).tolist() == [0.0] * 5


def test_an_interval_of_rows_equals_one_of_counts() -> None:
    p = made(6)
    counts = statistics.counts_by_speaker(p, speakers_of(p))
    right = np.equal(*metrics.label_indices(p)).astype(float)
    groups = np.unique([speakers_of(p)[row.clip_id] for row in p.rows], return_inverse=True)[1]
    of_rows = statistics.interval_of_rows(groups, lambda w: (w * right).sum(1) / w.sum(1), possible=(0.0, 1.0))
    of_counts = statistics.interval(counts, metrics.accuracy)
    assert (of_rows.low, of_rows.high) == pytest.approx((of_counts.low, of_counts.high))
