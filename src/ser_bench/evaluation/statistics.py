"""Confidence intervals and significance tests, with speakers as the independent units.

Clips of one speaker resemble each other, so resampling clips would give intervals that are too narrow. All functions
take confusion counts by speaker, [G, C, C + 1] for G speakers (`counts_by_speaker`); 10,000 resamples are then one
matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from ser_bench.evaluation import metrics, vote_metrics
from ser_bench.evaluation.metrics import Counts, Float64Array, IntArray
from ser_bench.types import Predictions

Statistic = Callable[[Counts], Float64Array]
"""A metric of counts, [..., C, C + 1] → [...], such as `metrics.uar`."""

RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 500
"""Of a statistic of rows, to bound memory."""
LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
"""Usual probability of finding a difference, for `detectable`. Source: Cohen (1988), Statistical Power Analysis."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, cut to the possible values.

    Attributes:
        value: the estimate.
        low, high: the bounds; NaN if there is only one speaker.
        speakers: number of speakers, the independent units.
        possible: smallest and largest possible value: 0 and 1 of a share, −1 and 1 of a difference of shares or of a
            correlation.
    """

    value: float
    low: float
    high: float
    speakers: int
    possible: tuple[float, float] = (0.0, 1.0)

    @property
    def is_informative(self) -> bool:
        """Whether there are bounds that exclude at least one possible value; with very few speakers there are none."""
        return self.low > self.possible[0] or self.high < self.possible[1]


@dataclass(frozen=True)
class Difference:
    """The difference of two predictors on the same clips, other − baseline.

    Attributes:
        interval: of the difference.
        p: two-sided permutation p-value; None if there are too few speakers for any to be significant.
        mcnemar_p: of McNemar's test; None if one of the two was measured several times.
        standard_error: of the difference, by speakers; NaN if there is only one.
    """

    interval: Interval
    p: float | None
    mcnemar_p: float | None
    standard_error: float = float("nan")


def counts_by_speaker(predictions: Predictions, speakers: Mapping[str, str]) -> Float64Array:
    """Confusion counts of each speaker, [G, C, C + 1], speakers sorted by name.

    Args:
        predictions: N rows.
        speakers: clip id → speaker.

    Raises:
        ValueError: as `metrics.confusion`.
    """
    truth, answers = metrics.label_indices(predictions)
    _, groups = np.unique([speakers[row.clip_id] for row in predictions.rows], return_inverse=True)
    return metrics.confusion_of(truth, answers, len(predictions.labels), groups).astype(np.float64)


def interval(
    counts: Counts,
    statistic: Statistic = metrics.uar,
    resamples: int = RESAMPLES,
    seed: int = 0,
    possible: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Cluster bootstrap over speakers: value ± SE · t(G−1) · √(G/(G−1)).

    The standard error is that of `resamples` draws of G speakers with replacement. Student's t and the factor correct
    it for few clusters; plain percentiles cover too little there. The factors are large for very few (18 for two), so
    the bounds can lie far outside the possible values. They are cut, which does not change the coverage.
    Source: Cameron, Gelbach & Miller (2008), Review of Economics and Statistics 90, 414-427.

    Args:
        counts: [G, C, C + 1].
        statistic: the metric.
        resamples: number of draws.
        seed: of the draws; equal seeds draw the same speakers.
        possible: smallest and largest value of the metric.
    """
    resampled = statistic(_resampled(counts, resamples, seed))
    return _corrected(float(statistic(counts.sum(0))), resampled, len(counts), possible)


def interval_of_rows(
    groups: IntArray,
    statistic: Callable[[Float64Array], Float64Array],
    possible: tuple[float, float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of `interval` for a statistic of rows that is no function of counts, such as a rank correlation.

    Args:
        groups: [N] index of the speaker of each row, 0 to G − 1.
        statistic: [B, N] how often each row occurs in each of B resamples → [B].
        possible: smallest and largest value.
        resamples: number of draws.
        seed: of the draws; equal seeds draw the same speakers.
    """
    speakers = int(groups.max()) + 1
    drawn = _weights(speakers, resamples, seed)
    parts = np.array_split(drawn, -(-resamples // RESAMPLES_AT_ONCE))
    resampled = np.concatenate([statistic(part[:, groups]) for part in parts])
    return _corrected(float(statistic(np.ones((1, len(groups))))[0]), resampled, speakers, possible)


def interval_of_means(
    values: Float64Array,
    groups: IntArray,
    possible: tuple[float, float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of `interval` for a mean over rows; like `interval_of_rows`, but the sums by speaker are enough.

    Args:
        values: [N], NaN for rows that are left out.
        groups: [N] index of the speaker of each row, 0 to G − 1. Speakers without a row that counts are no units.
        possible: smallest and largest value.
        resamples: number of draws.
        seed: of the draws; equal seeds draw the same speakers.
    """
    kept = ~np.isnan(values)
    _, units = np.unique(groups[kept], return_inverse=True)
    sums, rows = np.bincount(units, weights=values[kept]), np.bincount(units).astype(np.float64)
    drawn = _weights(len(rows), resamples, seed)
    return _corrected(float(sums.sum() / rows.sum()), (drawn @ sums) / (drawn @ rows), len(rows), possible)


def level_intervals(counts: Counts) -> dict[str, Interval]:
    """Return the metrics of ordered levels, by name, with their intervals, from counts by speaker [G, C, C + 1]."""
    levels = counts.shape[-2]
    return {
        name: interval(counts, entry.compute, possible=metrics.level_range(name, levels))
        for name, entry in metrics.METRICS.items()
        if entry.of_levels
    }


def vote_intervals(of_seeds: Sequence[Predictions], speakers: Mapping[str, str]) -> dict[str, Interval]:
    """Return the soft-label metrics that are defined, by name, with intervals over speakers.

    Args:
        of_seeds: predictions of one predictor over the same rows, one per seed; the values of a row are averaged first,
            because repeated measurements of a clip are no further clips.
        speakers: clip id → speaker.
    """
    groups = np.unique([speakers[row.clip_id] for row in of_seeds[0].rows], return_inverse=True)[1]
    of_each = [vote_metrics.applicable(predictions) for predictions in of_seeds]
    names = [name for name in vote_metrics.VOTE_METRICS if all(name in defined for defined in of_each)]
    return {
        name: interval_of_means(
            np.mean([vote_metrics.VOTE_METRICS[name].of_predictor(predictions) for predictions in of_seeds], axis=0),
            groups,
            metrics.METRICS[name].range,
        )
        for name in names
    }


def difference(
    baseline: Counts,
    other: Counts,
    mcnemar_p: float | None,
    statistic: Statistic = metrics.uar,
    tests: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Paired difference, other − baseline, on the same clips of the same speakers.

    The interval is that of `interval`, with both resampled together. The permutation test swaps the answers of the two
    predictors speaker by speaker: all 2^G swaps if these are at most `resamples`, else that many at random, with
    p = (1 + hits) / (1 + draws). With G speakers no p is below 2/2^G; `testable` decides whether one is given.
    Source of the p-value: Phipson & Smyth (2010), doi:10.2202/1544-6115.1585.

    Args:
        baseline: [G, C, C + 1].
        other: [G, C, C + 1].
        mcnemar_p: p-value of `mcnemar`, passed through.
        statistic: the metric.
        tests: number of pairs that are tested together.
        resamples: number of draws, of the interval and of the test.
        seed: of the draws.

    Raises:
        ValueError: if the two were not measured on the same clips.
    """
    if baseline.shape != other.shape or not np.allclose(baseline.sum(-1), other.sum(-1)):
        raise ValueError("a paired difference needs the same clips of the same speakers on both sides")
    resampled = statistic(_resampled(other, resamples, seed)) - statistic(_resampled(baseline, resamples, seed))
    value = float(statistic(other.sum(0)) - statistic(baseline.sum(0)))
    p = _swap_test(baseline, other, value, statistic, resamples, seed) if testable(len(baseline), tests) else None
    bounds = _corrected(value, resampled, len(baseline), possible=(-1.0, 1.0))
    return Difference(bounds, p, mcnemar_p, _standard_error(resampled, len(baseline)))


def detectable(difference: Difference, tests: int = 1, power: float = POWER) -> float | None:
    """Smallest true difference that a two-sided test at the level of .05 finds with this power, with these speakers.

    (t(1 − α/2; G−1) + t(power; G−1)) · SE, where SE is the standard error of the paired difference over G speakers and
    α = .05 / tests, the first step of Holm's method, which the smallest p-value of all pairs has to pass. A difference
    that passes in a later step can be a little smaller. The formula assumes that the variation between speakers would
    be the same if the difference were as large; `tests/unit/test_detectable_difference.py` simulates it.
    Source: Bloom (1995), Minimum detectable effects, Evaluation Review 19, 547-556.

    Args:
        difference: of two predictors on the same clips.
        tests: number of pairs that are tested together.
        power: probability of finding the difference.

    Returns:
        A difference of shares, more than 0; None if there are too few speakers for any test, or if no speaker differs,
        so that nothing is known about the variation.
    """
    speakers = difference.interval.speakers
    if not testable(speakers, tests) or not difference.standard_error > 0:
        return None
    quantiles = special.stdtrit(speakers - 1, np.array([1 - ALPHA / tests / 2, power]))
    return float(quantiles.sum() * difference.standard_error)


def testable(speakers: int, tests: int = 1) -> bool:
    """Whether the smallest p that a swap test of this many speakers can give, 2/2^G, is below .05 after Holm.

    >>> testable(5), testable(6), testable(6, tests=3), testable(7, tests=3)
    (False, True, False, True)
    """
    return bool(tests * 2 / 2**speakers < ALPHA)


def mcnemar(baseline: Predictions, other: Predictions) -> float:
    """McNemar's exact test of equal accuracy on the same rows: two-sided binomial p over the discordant clips.

    It assumes independent clips, which clips of one speaker are not. It is therefore shown beside the permutation test
    and does not replace it. Source: McNemar (1947), Psychometrika 12, 153-157.

    Raises:
        ValueError: if the rows differ, and as `metrics.confusion`.
    """
    if baseline.rows != other.rows:
        raise ValueError("McNemar's test needs the same rows in the same order")
    baseline_right, other_right = (np.equal(*metrics.label_indices(p)) for p in (baseline, other))
    only_baseline = int((baseline_right & ~other_right).sum())
    discordant = int((baseline_right != other_right).sum())
    if not discordant:
        return 1.0
    from scipy import stats  # imported here because the import takes a second

    return float(stats.binomtest(only_baseline, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the i-th smallest of m is multiplied by m − i + 1, made monotone, and cut at 1.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return [float(p) for p in adjusted]


def _resampled(counts: Counts, resamples: int, seed: int) -> Float64Array:
    """[resamples, C, C + 1]: summed counts of G speakers drawn with replacement."""
    groups = len(counts)
    weights = _weights(groups, resamples, seed)
    return np.asarray(weights @ counts.reshape(groups, -1)).reshape(resamples, *counts.shape[1:])


@lru_cache(maxsize=4)
def _weights(groups: int, resamples: int, seed: int) -> Float64Array:
    """[resamples, G]: how often each speaker is drawn. Cached: every interval of a comparison uses the same draws."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return drawn.astype(np.float64)


def _corrected(value: float, resampled: Float64Array, groups: int, possible: tuple[float, float]) -> Interval:
    if groups < 2:
        return Interval(value, float("nan"), float("nan"), groups, possible)
    half = _standard_error(resampled, groups) * float(special.stdtrit(groups - 1, (1 + LEVEL) / 2))
    low, high = max(possible[0], value - half), min(possible[1], value + half)
    return Interval(value, low, high, groups, possible)


def _standard_error(resampled: Float64Array, groups: int) -> float:
    """Standard deviation of the resamples, corrected for few clusters; NaN for one."""
    return float(np.nanstd(resampled, ddof=1) * np.sqrt(groups / (groups - 1))) if groups > 1 else float("nan")


def _swap_test(baseline: Counts, other: Counts, value: float, statistic: Statistic, resamples: int, seed: int) -> float:
    groups = len(baseline)
    swaps = _swaps(groups, resamples, seed)
    moved = (swaps @ (other - baseline).reshape(groups, -1)).reshape(-1, *baseline.shape[1:])
    drawn = statistic(other.sum(0) - moved) - statistic(baseline.sum(0) + moved)
    hits = int((np.abs(drawn) >= abs(value) - 1e-12).sum())
    exact = 2**groups <= resamples
    return hits / len(swaps) if exact else (1 + hits) / (1 + len(swaps))


@lru_cache(maxsize=4)
def _swaps(groups: int, resamples: int, seed: int) -> Float64Array:
    """[swaps, G] of 0 and 1: all 2^G swaps if these are at most `resamples`, else that many at random."""
    if 2**groups <= resamples:
        swaps = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
    else:
        swaps = np.random.default_rng(seed + 1).integers(0, 2, size=(resamples, groups))
    return swaps.astype(np.float64)
