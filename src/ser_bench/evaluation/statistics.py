"""How sure a figure is, and whether a difference means anything, with speakers as the independent units.

Clips of one speaker resemble each other, so resampling clips would promise too much. Everything here works on counts
per speaker, [G, C, C+1] confusion matrices whose last column holds abstentions, so that 10,000 resamples are one matrix
product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from ser_bench.types import Predictions

Counts = npt.NDArray[np.float64]
Statistic = Callable[[Counts], npt.NDArray[np.float64]]

RESAMPLES = 10_000
LEVEL = 0.95
ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the bounds are NaN where there is one speaker only."""

    value: float
    low: float
    high: float
    speakers: int


@dataclass(frozen=True)
class Difference:
    """Other minus baseline on the same clips.

    `p` is the two-sided permutation p-value, None where so few speakers cannot support any. `mcnemar_p` is None where
    a side was measured several times.
    """

    interval: Interval
    p: float | None
    mcnemar_p: float | None


def counts_by_speaker(predictions: Predictions, speakers: Mapping[str, str]) -> Counts:
    """[G, C, C+1]: for each speaker (sorted) truth × predicted, abstentions in the last column."""
    names = sorted({speakers[row.clip_id] for row in predictions.rows})
    group = {name: i for i, name in enumerate(names)}
    column = {label: i for i, label in enumerate(predictions.labels)} | {"": len(predictions.labels)}
    counts = np.zeros((len(names), len(predictions.labels), len(predictions.labels) + 1))
    for row, truth, said in zip(predictions.rows, predictions.truth, predictions.predicted, strict=True):
        counts[group[speakers[row.clip_id]], column[truth], column[said]] += 1
    return counts


def accuracy(counts: Counts) -> npt.NDArray[np.float64]:
    """Trace over total, of [..., C, C+1] counts; range 0 to 1."""
    return np.asarray(_diagonal(counts).sum(-1) / counts.sum((-1, -2)))


def uar(counts: Counts) -> npt.NDArray[np.float64]:
    """Mean recall over the classes that have rows, of [..., C, C+1] counts; range 0 to 1."""
    support = counts.sum(-1)
    recall = np.divide(_diagonal(counts), support, out=np.zeros_like(support), where=support > 0)
    return np.asarray(recall.sum(-1) / (support > 0).sum(-1))


def macro_f1(counts: Counts) -> npt.NDArray[np.float64]:
    """Mean over classes of 2·TP / (2·TP + FP + FN), 0 where undefined, of [..., C, C+1] counts; range 0 to 1."""
    hits = _diagonal(counts)
    both = counts.sum(-1) + counts.sum(-2)[..., :-1]
    return np.asarray(np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0).mean(-1))


def interval(counts: Counts, statistic: Statistic = uar, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Cluster bootstrap over speakers: value ± SE · t(G−1) · √(G/(G−1)).

    The standard error comes from resampling G speakers with replacement; Student's t and the factor correct it for few
    clusters, where plain percentiles cover too little (Cameron, Gelbach & Miller 2008, Review of Economics and
    Statistics 90, 414-427, on few clusters).
    """
    boot = statistic(_resampled(counts, resamples, seed))
    return _corrected(float(statistic(counts.sum(0))), boot, len(counts))


def difference(
    baseline: Counts,
    other: Counts,
    mcnemar_p: float | None,
    statistic: Statistic = uar,
    tests: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Paired difference, other − baseline, of [G, C, C+1] counts over the same clips of the same speakers.

    The interval is that of `interval`, both resampled together. The test swaps the two predictors' answers speaker by
    speaker: all 2^G swaps where there are at most `resamples` of them, else that many at random, counted as
    (1 + hits) / (1 + draws) (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585). With G speakers no p can go below
    2/2^G, so `testable` decides whether one is given at all, `tests` being how many pairs are shown.

    Raises:
        ValueError: the two were not measured on the same clips.
    """
    if baseline.shape != other.shape or not np.allclose(baseline.sum(-1), other.sum(-1)):
        raise ValueError("a paired difference needs the same clips of the same speakers on both sides")
    boot = statistic(_resampled(other, resamples, seed)) - statistic(_resampled(baseline, resamples, seed))
    value = float(statistic(other.sum(0)) - statistic(baseline.sum(0)))
    p = _swap_test(baseline, other, value, statistic, resamples, seed) if testable(len(baseline), tests) else None
    return Difference(_corrected(value, boot, len(baseline)), p, mcnemar_p)


def testable(speakers: int, tests: int = 1) -> bool:
    """Whether the smallest p that a swap test of this many speakers can give, 2/2^G, is below .05 after Holm.

    >>> testable(5), testable(6), testable(6, tests=3), testable(7, tests=3)
    (False, True, False, True)
    """
    return bool(tests * 2 / 2**speakers < ALPHA)


def mcnemar(baseline: Predictions, other: Predictions) -> float:
    """McNemar's exact test of equal accuracy on the same rows: two-sided binomial p over the discordant clips.

    It treats clips as independent, which those of one speaker are not: beside the permutation test, not in its place.
    """
    if baseline.rows != other.rows:
        raise ValueError("McNemar's test needs the same rows in the same order")
    pairs = zip(baseline.truth, baseline.predicted, other.predicted, strict=True)
    right = np.array([(truth == one, truth == two) for truth, one, two in pairs])
    only_one = int((right[:, 0] & ~right[:, 1]).sum())
    only_two = int((~right[:, 0] & right[:, 1]).sum())
    if only_one + only_two == 0:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_two, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the i-th smallest of m is multiplied by m − i + 1, made monotone, cut at 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return [float(p) for p in adjusted]


def _diagonal(counts: Counts) -> Counts:
    return np.diagonal(counts[..., :-1], axis1=-2, axis2=-1).astype(np.float64)


def _resampled(counts: Counts, resamples: int, seed: int) -> Counts:
    """[resamples, C, C+1]: counts of G speakers drawn with replacement; equal seeds draw the same speakers."""
    groups = len(counts)
    return (_weights(groups, resamples, seed) @ counts.reshape(groups, -1)).reshape(resamples, *counts.shape[1:])


@lru_cache(maxsize=4)
def _weights(groups: int, resamples: int, seed: int) -> Counts:
    """[resamples, G]: how often each speaker is drawn; kept, because every interval of a comparison uses the same."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return drawn.astype(np.float64)


def _corrected(value: float, boot: npt.NDArray[np.float64], groups: int) -> Interval:
    if groups < 2:
        return Interval(value, float("nan"), float("nan"), groups)
    half = np.nanstd(boot, ddof=1) * stats.t.ppf((1 + LEVEL) / 2, groups - 1) * np.sqrt(groups / (groups - 1))
    return Interval(value, value - float(half), value + float(half), groups)


def _swap_test(one: Counts, two: Counts, value: float, statistic: Statistic, resamples: int, seed: int) -> float:
    groups = len(one)
    exact = 2**groups <= resamples
    swaps = _swaps(groups, resamples, seed)
    moved = (swaps @ (two - one).reshape(groups, -1)).reshape(-1, *one.shape[1:])
    drawn = statistic(two.sum(0) - moved) - statistic(one.sum(0) + moved)
    hits = int((np.abs(drawn) >= abs(value) - 1e-12).sum())
    return hits / len(swaps) if exact else (1 + hits) / (1 + len(swaps))


@lru_cache(maxsize=4)
def _swaps(groups: int, resamples: int, seed: int) -> Counts:
    """[swaps, G] of 0 and 1: every way to swap where there are few speakers, else as many at random as asked for."""
    if 2**groups <= resamples:
        swaps = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
    else:
        swaps = np.random.default_rng(seed + 1).integers(0, 2, size=(resamples, groups))
    return swaps.astype(np.float64)
