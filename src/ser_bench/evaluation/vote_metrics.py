"""Soft-label metrics: predictions beside the votes of listeners, and the same figures of the listeners themselves.

They are defined for predictions that carry votes (`Predictions.votes`, [N, C] counts). Each has a value per row, so
that its interval resamples speakers as those of other metrics do. Conventions:

- v_k are the votes for label k on one clip, n = Σ v_k, and the shares are s_k = v_k / n. Votes for labels that are not
  the run's are not counted. Clips with fewer than two votes are left out: one listener cannot be compared with others.
- An abstention agrees with no listener, and has uniform probabilities (1/C).
- Metrics of probabilities are missing ("n/a") if the predictor gives none. All are missing for predictions that are the
  votes themselves (source "votes"): those would be compared with themselves.
- The listeners' own figure is computed from the votes, without any predictor. It is what the listeners reach among
  themselves, with the sampling noise of a few votes per clip, and no bound: a predictor can be better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ser_bench.evaluation import metrics
from ser_bench.evaluation.metrics import Float64Array
from ser_bench.types import Predictions

VoteCounts = npt.NDArray[np.int64]
"""Votes of listeners, [N, C]."""
FEWEST_VOTES = 2
"""A clip with fewer votes is left out, because leaving one out must leave one."""
PRIOR = 0.5
"""Added to each count of the other listeners, so that a label that none of them chose has no probability of 0."""
LISTENERS = "_listeners"
"""End of the names of the listeners' own figures."""


@dataclass(frozen=True)
class VoteMetric:
    """What a soft-label metric is computed by, row by row.

    Attributes:
        of_predictor: predictions with votes → [N], NaN for rows that are left out.
        of_listeners: votes [N, C] → [N], the listeners' own figure, NaN likewise.
    """

    of_predictor: Callable[[Predictions], Float64Array]
    of_listeners: Callable[[VoteCounts], Float64Array]


VOTE_METRICS: dict[str, VoteMetric] = {}
"""By the name of the metric; titles and ranges are in `metrics.METRICS`."""


def vote_metric(
    title: str,
    range: tuple[float, float],
    higher_is_better: bool,
    needs_probabilities: bool,
    of_listeners: Callable[[VoteCounts], Float64Array],
) -> Callable[[Callable[[Predictions], Float64Array]], Callable[[Predictions], float]]:
    """Register a function of rows, predictions → [N], under its own name; what it becomes returns the mean."""

    def register(function: Callable[[Predictions], Float64Array]) -> Callable[[Predictions], float]:
        def compute(predictions: Predictions) -> float:
            return mean_of_rows(function(predictions))

        compute.__name__, compute.__doc__ = function.__name__, function.__doc__
        metrics.register_metric(
            compute, title, range, higher_is_better, needs_probabilities=needs_probabilities, needs_votes=True
        )
        VOTE_METRICS[function.__name__] = VoteMetric(function, of_listeners)
        return compute

    return register


def applicable(predictions: Predictions) -> tuple[str, ...]:
    """Return the names of the soft-label metrics that are defined for these predictions; () without votes."""
    if predictions.votes is None or not _counted(predictions.votes).any():
        return ()
    return tuple(name for name in VOTE_METRICS if metrics.is_defined(metrics.METRICS[name], predictions))


def listeners_scores(votes: VoteCounts | None) -> dict[str, float]:
    """Return the listeners' own figures, `<metric>_listeners`; {} if no clip has two votes.

    >>> listeners_scores(np.array([[3, 1], [0, 2]]))["vote_accuracy_listeners"]
    0.875
    """
    if votes is None or not _counted(votes).any():
        return {}
    return {f"{name}{LISTENERS}": mean_of_rows(entry.of_listeners(votes)) for name, entry in VOTE_METRICS.items()}


def mean_of_rows(values: Float64Array) -> float:
    """Return the mean of the rows that are not left out; NaN if there is none."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan


# The listeners' own figures, one value per clip.


def held_out_cross_entropy(votes: VoteCounts) -> Float64Array:
    """Cross-entropy of one listener's vote under the shares of the others, [N, C] → [N], in nats.

    Every listener of a clip is left out once: −(1/n) Σ_k v_k ln q_k, with q_k = (v_k − 1 + ½) / (n − 1 + C/2), the
    estimate from the n − 1 others by Krichevsky & Trofimov (1981), IEEE Transactions on Information Theory 27, 199-207.
    """
    counts, total = votes.astype(np.float64), votes.sum(axis=1, keepdims=True)
    others = np.maximum(counts - 1 + PRIOR, PRIOR) / (np.maximum(total, FEWEST_VOTES) - 1 + PRIOR * votes.shape[1])
    return _left_out(-(counts * np.log(others)).sum(axis=1) / np.maximum(total[:, 0], 1), votes)


def held_out_accuracy(votes: VoteCounts) -> Float64Array:
    """How often the plurality of the other listeners is one listener's vote, [N, C] → [N].

    Every listener of a clip is left out once: (1/n) Σ_k v_k · [k is a plurality of v without one vote for k] / ties.
    """
    values = np.zeros(len(votes))
    for k in range(votes.shape[1]):
        others = votes.copy()
        others[:, k] -= 1
        winners = others == others.max(axis=1, keepdims=True)
        values += np.where(votes[:, k] > 0, votes[:, k] * winners[:, k] / winners.sum(axis=1), 0.0)
    return _left_out(values / np.maximum(votes.sum(axis=1), 1), votes)


def split_half_divergence(votes: VoteCounts) -> Float64Array:
    """Expected Jensen–Shannon divergence of one half of the listeners from the other, [N, C] → [N], base 2.

    The expectation is over all ways to draw ⌊n/2⌋ of the n listeners, and exact. Leaving one listener out would not do
    here, because the divergence of a single vote from a distribution is large whatever the distribution is.
    """
    of_each = [_half_divergence(tuple(sorted(int(v) for v in row if v > 0))) for row in votes]
    return _left_out(np.array(of_each, dtype=np.float64).reshape(len(votes)), votes)


@lru_cache(maxsize=100_000)
def _half_divergence(counts: tuple[int, ...]) -> float:
    """The expectation for one clip. The order of labels has no influence, so few different counts occur in a corpus."""
    total = sum(counts)
    half = total // 2
    if half == 0 or len(counts) == 1:
        return 0.0
    parts = np.array([part for part in itertools.product(*(range(v + 1) for v in counts)) if sum(part) == half])
    ways = np.prod([[math.comb(v, int(a)) for v, a in zip(counts, part, strict=True)] for part in parts], axis=1)
    rest = np.array(counts) - parts
    divergences = js_divergence(parts / half, rest / (total - half))
    return float((ways * divergences).sum() / math.comb(total, half))


# The metrics.


@vote_metric(
    "cross-entropy (votes)",
    (0.0, float(-np.log(metrics.SMALLEST_PROBABILITY))),
    higher_is_better=False,
    needs_probabilities=True,
    of_listeners=held_out_cross_entropy,
)
def vote_cross_entropy(predictions: Predictions) -> Float64Array:
    """Mean cross-entropy of the predicted probabilities against the shares of votes: −Σ_k s_k ln p_k, in nats.

    It is the expected log-loss if the truth is the vote of a listener drawn at random. Range [0, 15.9], with
    probabilities clipped as in the log-loss. The least possible value is the mean entropy of the shares. The listeners'
    own figure leaves one listener out (`held_out_cross_entropy`).
    Source: Peterson et al. (2019), Human uncertainty makes classification more robust, ICCV.

    >>> round(vote_cross_entropy(_example()), 4)  # (−¾ ln .8 − ¼ ln .2 − ln .5) / 2
    0.6314
    """
    votes = _votes(predictions)
    clipped = np.clip(metrics.scaled_probabilities(predictions), metrics.SMALLEST_PROBABILITY, 1.0)
    return _left_out(-(_shares(votes) * np.log(clipped)).sum(axis=1), votes)


@vote_metric(
    "JS divergence (votes)",
    (0.0, 1.0),
    higher_is_better=False,
    needs_probabilities=True,
    of_listeners=split_half_divergence,
)
def vote_divergence(predictions: Predictions) -> Float64Array:
    """Mean Jensen–Shannon divergence of the predicted probabilities from the shares of votes, base 2.

    H((p + s) / 2) − H(p) / 2 − H(s) / 2, with the entropy H in bits. Range [0, 1]: 0 for equal distributions, 1 for
    distributions without a common label. The listeners' own figure compares two halves (`split_half_divergence`).
    Source: Lin (1991), IEEE Transactions on Information Theory 37, 145-151.

    >>> round(vote_divergence(_example()), 4)
    0.1569
    """
    votes = _votes(predictions)
    return _left_out(js_divergence(metrics.scaled_probabilities(predictions), _shares(votes)), votes)


@vote_metric(
    "accuracy (random listener)",
    (0.0, 1.0),
    higher_is_better=True,
    needs_probabilities=False,
    of_listeners=held_out_accuracy,
)
def vote_accuracy(predictions: Predictions) -> Float64Array:
    """Expected accuracy against the vote of a listener drawn at random: the mean share s of the predicted label.

    Range [0, 1]; 0 for an abstention. The largest possible value is the mean share of the plurality. The listeners' own
    figure is that of the plurality of the others for one who is left out (`held_out_accuracy`).
    Source: Dawid & Skene (1979), Applied Statistics 28, 20-28, for ratings without a true answer.

    >>> vote_accuracy(_example())  # (¾ + 0) / 2: the second row is an abstention
    0.375
    """
    votes = _votes(predictions)
    _, answers = metrics.label_indices(predictions)
    shares = np.concatenate([_shares(votes), np.zeros((len(votes), 1))], axis=1)
    return _left_out(shares[np.arange(len(votes)), answers], votes)


def js_divergence(first: Float64Array, second: Float64Array) -> Float64Array:
    """Jensen–Shannon divergence, base 2, of distributions over labels, two arrays [N, C] → [N]. Range [0, 1].

    >>> js_divergence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])).tolist()
    [1.0, 0.0]
    """
    divergence = _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2
    return np.asarray(np.clip(divergence, 0.0, 1.0))


def _entropy(distributions: Float64Array) -> Float64Array:
    """[N, C] → [N], in bits; 0 ln 0 is 0."""
    positive = np.where(distributions > 0, distributions, 1.0)
    return np.asarray(-(positive * np.log2(positive)).sum(axis=1))


def _votes(predictions: Predictions) -> VoteCounts:
    if predictions.votes is None:
        raise ValueError("these predictions carry no votes of listeners: soft-label metrics are n/a")
    return predictions.votes


def _shares(votes: VoteCounts) -> Float64Array:
    return np.asarray(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1))


def _counted(votes: VoteCounts) -> npt.NDArray[np.bool_]:
    """[N]: whether a clip has enough votes."""
    return np.asarray(votes.sum(axis=1) >= FEWEST_VOTES)


def _left_out(values: Float64Array, votes: VoteCounts) -> Float64Array:
    return np.where(_counted(votes), values, np.nan)


def _example() -> Predictions:
    """Two rows over two labels for the examples above: ¾ of the votes agree; the second is an abstention."""
    from dataclasses import replace

    chosen = metrics._example().take([0, 3])
    probabilities = np.array([[0.8, 0.2], [0.5, 0.5]], dtype=np.float32)
    return replace(chosen, probabilities=probabilities, votes=np.array([[3, 1], [0, 2]]))
