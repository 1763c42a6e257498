"""A whole comparison, 6 runs × 7,442 clips of 91 speakers: 10,000 resamples at once against one after another.

python benchmarks/comparison.py [--resamples 10000]

The reference resamples the speakers' clips and scores them with scikit-learn, one resample at a time, which is how it
is usually written; it is timed on a few resamples and scaled up. Ours scores all of them as one matrix product.
Predictions are random, as large as CREMA-D's.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from ser_bench.evaluation import metrics, statistics

RUNS, CLIPS, SPEAKERS, CLASSES = 6, 7_442, 91, 6
TIMED_RESAMPLES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=statistics.RESAMPLES)
    resamples = parser.parse_args().resamples
    rng = np.random.default_rng(0)
    speaker, truth = np.arange(CLIPS) % SPEAKERS, rng.integers(0, CLASSES, CLIPS)
    said = [
        np.where(rng.random(CLIPS) < 0.3 + 0.05 * run, truth, rng.integers(0, CLASSES, CLIPS)) for run in range(RUNS)
    ]

    began = time.perf_counter()
    counts = []
    for answers in said:
        table = np.zeros((SPEAKERS, CLASSES, CLASSES + 1))
        np.add.at(table, (speaker, truth, answers), 1)
        counts.append(table)
    for table in counts:
        for statistic in (metrics.uar, metrics.accuracy, metrics.macro_f1):
            statistics.interval(table, statistic, resamples)
    pairs = list(itertools.combinations(counts, 2))
    for one, two in pairs:
        statistics.difference(one, two, None, tests=len(pairs), resamples=resamples)
    ours_s = time.perf_counter() - began

    clips_of = [np.flatnonzero(speaker == s) for s in range(SPEAKERS)]
    began = time.perf_counter()
    for _ in range(TIMED_RESAMPLES):
        drawn = np.concatenate([clips_of[s] for s in rng.integers(0, SPEAKERS, SPEAKERS)])
        balanced_accuracy_score(truth[drawn], said[0][drawn])
    one_s = (time.perf_counter() - began) / TIMED_RESAMPLES
    # One score a resample for each interval, two for each difference, two for each swap.
    reference_s = one_s * resamples * (RUNS * 3 + len(pairs) * 4)

    print(f"{RUNS} runs, {CLIPS:,} clips, {SPEAKERS} speakers, {len(pairs)} pairs, {resamples:,} resamples")
    print(f"one resample at a time (scikit-learn, timed on {TIMED_RESAMPLES}): {reference_s / 60:8.1f} min")
    faster = f"{reference_s / ours_s:,.0f} times faster"
    print(f"all at once (ser_bench.evaluation.stats):                 {ours_s:8.1f} s, {faster}")


if __name__ == "__main__":
    main()
