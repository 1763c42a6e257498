"""Soft-label metrics: agreement with independent computations, the listeners' own figures, and where they are n/a."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import log_loss

from ser_bench import predictions as tables
from ser_bench.config import Protocol
from ser_bench.evaluation import metrics, run_scores, statistics, vote_metrics
from ser_bench.types import Predictions
from tests.support.stored_runs import LABELS, make_clips, predict

CLIPS = make_clips(6, each=6)


def with_votes(predictions: Predictions, seed: int = 0, voters: int = 9) -> Predictions:
    """Votes of listeners who chose the truth in about half of the cases."""
    rng = np.random.default_rng(seed)
    truth = [LABELS.index(label) for label in predictions.truth]
    shares = np.where(np.arange(3)[None] == np.array(truth)[:, None], 0.5, 0.25)
    return replace(predictions, votes=np.array([rng.multinomial(voters, row) for row in shares], dtype=np.int64))


def one_by_one(votes: np.ndarray) -> list[tuple[int, int]]:
    """Each vote as (row, label)."""
    return [(i, k) for i, row in enumerate(votes) for k, count in enumerate(row) for _ in range(count)]


def test_each_metric_is_that_of_an_independent_computation() -> None:
    p = with_votes(predict(CLIPS, 0.6, 1))
    assert p.votes is not None
    ballots = one_by_one(p.votes)
    probabilities = p.probabilities.astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = log_loss([k for _, k in ballots], probabilities[[i for i, _ in ballots]], labels=range(3))
    assert vote_metrics.vote_cross_entropy(p) == pytest.approx(expected, rel=1e-6)
    shares = p.votes / p.votes.sum(axis=1, keepdims=True)
    expected = np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(probabilities, shares, strict=True)])
    assert vote_metrics.vote_divergence(p) == pytest.approx(expected, abs=1e-9)
    agreed = [p.predicted[i] == LABELS[k] for i, k in ballots]
    assert vote_metrics.vote_accuracy(p) == pytest.approx(np.mean(agreed))


def test_the_listeners_figures_are_those_of_listeners_drawn_one_by_one() -> None:
    """An independent computation: every listener is taken out, every half is drawn."""
    votes = np.array([[4, 2, 1], [0, 5, 0], [2, 2, 1], [1, 1, 0]])
    right, losses, halves = [], [], []
    for row in votes:
        ballots = [k for k, count in enumerate(row) for _ in range(count)]
        of_row, losses_of_row = [], []
        for left_out, label in enumerate(ballots):
            others = np.bincount(ballots[:left_out] + ballots[left_out + 1 :], minlength=3)
            winners = np.flatnonzero(others == others.max())
            of_row.append((label in winners) / len(winners))
            losses_of_row.append(-np.log((others[label] + 0.5) / (others.sum() + 1.5)))
        right.append(np.mean(of_row))
        losses.append(np.mean(losses_of_row))
        drawn = []
        for half in itertools.combinations(range(len(ballots)), len(ballots) // 2):
            first = np.bincount([ballots[i] for i in half], minlength=3)
            drawn.append(jensenshannon(first / first.sum(), (row - first) / (row - first).sum(), base=2) ** 2)
        halves.append(np.mean(drawn))
    assert vote_metrics.held_out_accuracy(votes) == pytest.approx(right)
    assert vote_metrics.held_out_cross_entropy(votes) == pytest.approx(losses)
    assert vote_metrics.split_half_divergence(votes) == pytest.approx(halves, abs=1e-9)
    assert vote_metrics.listeners_scores(votes)["vote_accuracy_listeners"] == pytest.approx(np.mean(right))


def test_what_is_not_applicable_is_left_out() -> None:
    whole = with_votes(predict(CLIPS, 0.6, 1, abstain=3))
    names = set(vote_metrics.VOTE_METRICS)
    assert names == {"vote_cross_entropy", "vote_divergence", "vote_accuracy"} <= set(metrics.score(whole, ""))
    assert names & set(metrics.score(replace(whole, source="one_hot"), "")) == {"vote_accuracy"}
    for without in (replace(whole, source="votes"), replace(whole, votes=None), replace(whole, votes=whole.votes * 0)):
        assert not names & set(metrics.score(without, "")), without.source
    assert vote_metrics.listeners_scores(None) == {} == vote_metrics.listeners_scores(np.zeros((3, 3), dtype=np.int64))


def test_an_abstention_agrees_with_nobody_and_has_uniform_probabilities() -> None:
    p = with_votes(predict(CLIPS, 1.0, 1, abstain=1)).take([0])
    assert vote_metrics.vote_accuracy(p) == 0
    assert vote_metrics.vote_cross_entropy(p) == pytest.approx(np.log(3))


def test_clips_with_fewer_than_two_votes_are_left_out() -> None:
    p = with_votes(predict(CLIPS, 0.6, 1))
    assert p.votes is not None
    few = p.votes.copy()
    few[:5] = [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    kept = list(range(5, len(p.rows)))
    for name in vote_metrics.VOTE_METRICS:
        compute = metrics.METRICS[name].compute
        assert compute(replace(p, votes=few)) == pytest.approx(compute(p.take(kept)))
    assert vote_metrics.listeners_scores(few) == pytest.approx(vote_metrics.listeners_scores(few[5:]))


def test_intervals_resample_speakers_and_equal_the_bootstrap_of_rows() -> None:
    p = with_votes(predict(CLIPS, 0.6, 1))
    speakers = {clip.id: clip.speaker for clip in CLIPS.values()}
    scores = run_scores.score(p, Protocol.speaker, speakers)
    groups = np.unique([speakers[row.clip_id] for row in p.rows], return_inverse=True)[1]
    values = vote_metrics.VOTE_METRICS["vote_accuracy"].of_predictor(p)
    expected = statistics.interval_of_rows(groups, lambda w: (w * values).sum(1) / w.sum(1), (0.0, 1.0))
    found = scores["test/vote_accuracy_low"], scores["test/vote_accuracy"], scores["test/vote_accuracy_high"]
    assert found == pytest.approx((expected.low, expected.value, expected.high))
    assert 0 < scores["test/vote_accuracy_listeners"] < 1
    without = run_scores.score(replace(p, votes=None), Protocol.speaker, speakers)
    assert not [name for name in without if "vote" in name]


def test_votes_are_stored_with_the_predictions_and_read_back(tmp_path: Path) -> None:
    p = with_votes(predict(CLIPS, 0.6, 1))
    tables.save(p, CLIPS, tmp_path / "p.parquet")
    np.testing.assert_array_equal(tables.load(tmp_path / "p.parquet").votes, p.votes)
    joined = tables.concatenate(p.take([0, 1]), p.take([2, 3]))
    np.testing.assert_array_equal(joined.votes, p.votes[:4])
    assert tables.concatenate(p.take([0]), replace(p.take([1]), votes=None)).votes is None
    with pytest.raises(ValueError, match="votes"):
        replace(p, votes=p.votes[:3])
