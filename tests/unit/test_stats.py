"""Coverage of the intervals, level of the tests, and agreement of every estimator with an independent one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from ser_bench.evaluation import metrics, statistics
from ser_bench.evaluation.metrics import Float64Array
from ser_bench.types import Predictions, Row

LABELS = ("angry", "happy", "sad")


def predictions(truth: np.ndarray, answers: np.ndarray) -> Predictions:
    """Class indices; 3 is an abstention."""
    out = answers == len(LABELS)
    probabilities = np.where(out[:, None], 1 / 3, np.eye(4, dtype=np.float32)[answers][:, :3]).astype(np.float32)
    n = len(truth)
    return Predictions(
        rows=tuple(Row(f"c{i}") for i in range(n)),
        truth=tuple(LABELS[t] for t in truth),
        labels=LABELS,
        probabilities=probabilities,
        abstained=out,
        latency_s=np.zeros(n, np.float32),
        cost_usd=np.zeros(n, np.float32),
        source="one_hot",
    )


def simulate(rng: np.random.Generator, groups: int, skill: float, spread: float, clips: int = 30) -> Float64Array:
    """Counts of speakers whose probability of being recognised is normally distributed around `skill`."""
    rates = np.clip(rng.normal(skill, spread, groups), 0.02, 0.98)
    counts = np.zeros((groups, 3, 4))
    for g, c in itertools.product(range(groups), range(3)):
        hits = rng.binomial(clips // 3, rates[g])
        counts[g, c, c] = hits
        counts[g, c, (c + 1) % 3] = clips // 3 - hits
    return counts


def test_counts_and_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, answers = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    p = predictions(truth, answers)
    counts = statistics.counts_by_speaker(p, {row.clip_id: f"s{i % 7}" for i, row in enumerate(p.rows)})
    assert counts.shape == (7, 3, 4) and counts.sum() == 200
    assert metrics.uar(counts.sum(0)) == pytest.approx(balanced_accuracy_score(truth, answers))
    assert metrics.accuracy(counts.sum(0)) == pytest.approx((truth == answers).mean())
    assert metrics.macro_f1(counts.sum(0)) == pytest.approx(f1_score(truth, answers, average="macro"))


def test_abstentions_are_wrong() -> None:
    p = predictions(np.array([0, 0, 1, 2]), np.array([0, 3, 1, 3]))
    counts = statistics.counts_by_speaker(p, {row.clip_id: "s" for row in p.rows}).sum(0)
    assert metrics.accuracy(counts) == 0.5
    assert metrics.uar(counts) == pytest.approx((0.5 + 1 + 0) / 3)


def test_absent_classes_are_left_out_of_intervals_too() -> None:
    """Also in resamples: an interval of perfect answers has no width."""
    speakers = {f"c{i}": f"s{i // 2}" for i in range(12)}
    truth = np.array([0, 1] * 5 + [0, 0])
    interval = statistics.interval(statistics.counts_by_speaker(predictions(truth, truth), speakers), metrics.macro_f1)
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)


def test_standard_error_agrees_with_scipys_bootstrap() -> None:
    counts = simulate(np.random.default_rng(3), groups=30, skill=0.6, spread=0.1)
    mine = statistics.interval(counts, metrics.accuracy)
    per_speaker = metrics.accuracy(counts)  # equal clips a speaker: accuracy is the mean of the speakers'
    theirs = scipy_stats.bootstrap((per_speaker,), np.mean, n_resamples=5000, rng=np.random.default_rng(1))
    half = scipy_stats.t.ppf(0.975, 29) * np.sqrt(30 / 29) * theirs.standard_error
    assert mine.value == pytest.approx(per_speaker.mean())
    assert (mine.high - mine.low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.parametrize("groups", [20, 40])
def test_intervals_cover_the_true_value_as_often_as_stated(groups: int) -> None:
    rng = np.random.default_rng(groups)
    covered = 0
    trials = 1000
    for trial in range(trials):
        result = statistics.interval(simulate(rng, groups, 0.55, 0.12), metrics.uar, resamples=400, seed=trial)
        covered += result.low <= 0.55 <= result.high
    assert 0.92 <= covered / trials <= 0.98, covered / trials


def test_the_paired_test_keeps_its_level_and_detects_a_difference() -> None:
    rng = np.random.default_rng(5)
    null, real = [], []
    for trial in range(400):
        one, two = simulate(rng, 20, 0.55, 0.1), simulate(rng, 20, 0.55, 0.1)
        null.append(statistics.difference(one, two, 1.0, resamples=500, seed=trial).p)
        better = simulate(rng, 20, 0.75, 0.1)
        real.append(statistics.difference(one, better, 1.0, resamples=500, seed=trial).p)
    assert np.mean([p is not None and p < 0.05 for p in null]) <= 0.07
    assert np.mean([p is not None and p < 0.05 for p in real]) > 0.9


def test_the_exact_swap_test_agrees_with_one_counted_by_hand() -> None:
    """Six speakers, accuracy: every sign of every speaker's difference, counted with plain loops."""
    rng = np.random.default_rng(8)
    one, two = simulate(rng, 6, 0.4, 0.1), simulate(rng, 6, 0.6, 0.1)
    steps = metrics.accuracy(two) - metrics.accuracy(one)
    signs = np.array(list(itertools.product([1, -1], repeat=6)))
    expected = np.mean(np.abs(signs @ steps / 6) >= abs(steps.mean()) - 1e-12)
    assert statistics.difference(one, two, 1.0, metrics.accuracy).p == pytest.approx(expected)


def test_too_few_speakers_get_no_p_value_and_one_gets_no_interval() -> None:
    rng = np.random.default_rng(9)
    assert statistics.difference(simulate(rng, 5, 0.4, 0.1), simulate(rng, 5, 0.9, 0.0), 1.0).p is None
    assert np.isnan(statistics.interval(simulate(rng, 1, 0.5, 0.0)).low)


@pytest.mark.parametrize("speakers", [2, 3])
def test_intervals_of_very_few_speakers_stay_within_the_possible_values(speakers: int) -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        one, two = simulate(rng, speakers, 0.3, 0.3), simulate(rng, speakers, 0.7, 0.3)
        shares = statistics.interval(one, metrics.uar, resamples=400)
        difference = statistics.difference(one, two, None, resamples=400).interval
        assert 0 <= shares.low <= shares.value <= shares.high <= 1
        assert -1 <= difference.low <= difference.value <= difference.high <= 1


def test_an_interval_of_all_possible_values_is_not_informative() -> None:
    one, two = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    one[0, [0, 1], [0, 1]] = one[1, [0, 1], [1, 0]] = 10  # the first speaker all right, the second all wrong
    two[1, [0, 1], [0, 1]] = two[0, [0, 1], [1, 0]] = 10
    difference = statistics.difference(one, two, None).interval
    assert (difference.low, difference.high) == (-1, 1) and not difference.is_informative
    assert not statistics.interval(one).is_informative
    assert statistics.Interval(0.1, -1.0, 0.9, 2, (-1.0, 1.0)).is_informative
    assert not statistics.Interval(0.1, float("nan"), float("nan"), 1).is_informative


def test_different_clips_are_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(ValueError, match="same clips"):
        statistics.difference(simulate(rng, 6, 0.5, 0.1), simulate(rng, 6, 0.5, 0.1, clips=33), 1.0)


def test_mcnemar_agrees_with_the_binomial_by_hand() -> None:
    truth = np.zeros(12, int)
    one = predictions(truth, np.array([0] * 8 + [1] * 4))  # 8 right
    two = predictions(truth, np.array([0] * 7 + [1] + [0] * 4))  # loses 1, gains 4
    # 5 discordant clips, 1 against 4: 2 · (C(5,0) + C(5,1)) / 2^5
    assert statistics.mcnemar(one, two) == pytest.approx(2 * (1 + 5) / 32)
    assert statistics.mcnemar(one, one) == 1.0


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
