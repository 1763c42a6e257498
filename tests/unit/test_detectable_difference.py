"""The minimum detectable difference: its formula, and a simulation of the power that it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ser_bench.evaluation import statistics
from ser_bench.evaluation.metrics import Float64Array
from ser_bench.evaluation.statistics import Difference, Interval


def answers_of(rng: np.random.Generator, effect: float, speakers: int, clips: int = 30) -> tuple[Float64Array, ...]:
    """Counts of two predictors, [G, 2, 3] each: the second is better by `effect`, which varies between speakers."""
    base = np.clip(rng.normal(0.55, 0.1, speakers), 0.05, 0.95)
    other = np.clip(base + rng.normal(effect, 0.08, speakers), 0.02, 0.98)
    tables = []
    for rates in (base, other):
        hits = rng.binomial(clips, rates[:, None], size=(speakers, 2))
        table = np.zeros((speakers, 2, 3))
        table[:, [0, 1], [0, 1]], table[:, [0, 1], [1, 0]] = hits, clips - hits
        tables.append(table)
    return tuple(tables)


def test_the_detectable_difference_is_found_in_four_of_five_comparisons() -> None:
    """Of 300 simulated comparisons whose true difference is the detectable one, about 80 % have p < .05."""
    rng, speakers = np.random.default_rng(0), 18
    estimates = [
        statistics.detectable(statistics.difference(*answers_of(rng, 0.0, speakers), None, resamples=400))
        for _ in range(60)
    ]
    smallest = float(np.mean([estimate or 0.0 for estimate in estimates]))
    assert 0.04 < smallest < 0.12
    found = [
        (statistics.difference(*answers_of(rng, smallest, speakers), None, resamples=400).p or 1.0) < 0.05
        for _ in range(300)
    ]
    assert 0.74 <= np.mean(found) <= 0.87, np.mean(found)
    half = [
        (statistics.difference(*answers_of(rng, smallest / 2, speakers), None, resamples=400).p or 1.0) < 0.05
        for _ in range(150)
    ]
    assert np.mean(half) < 0.45


def test_the_formula_is_that_of_the_paired_t_test_and_pairs_make_it_larger() -> None:
    of_pair = Difference(Interval(0.03, 0.0, 0.06, 20, (-1.0, 1.0)), 0.04, None, standard_error=0.01)
    t = scipy_stats.t(19)
    assert statistics.detectable(of_pair) == pytest.approx(0.01 * (t.ppf(0.975) + t.ppf(0.8)))
    assert statistics.detectable(of_pair, tests=6) == pytest.approx(0.01 * (t.ppf(1 - 0.05 / 12) + t.ppf(0.8)))


def test_nothing_is_promised_without_a_test_or_without_variation() -> None:
    few = Difference(Interval(0.03, -1.0, 1.0, 5, (-1.0, 1.0)), None, None, standard_error=0.01)
    assert statistics.detectable(few) is None
    equal = Difference(Interval(0.0, 0.0, 0.0, 20, (-1.0, 1.0)), 1.0, None, standard_error=0.0)
    assert statistics.detectable(equal) is None
    assert statistics.detectable(replace(equal, standard_error=float("nan"))) is None
