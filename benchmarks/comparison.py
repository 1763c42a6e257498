"""Duration of the statistics of a comparison: all resamples at once, against one resample at a time.

python benchmarks/comparison.py [--resamples 10000]

The comparison has 6 runs × 7,442 clips of 91 speakers, as many as CREMA-D, with random predictions. ser_bench scores
all resamples as one matrix product. The reference resamples the speakers' clips and scores them with scikit-learn, one
resample at a time, as is common. It is timed on a few resamples, and the duration of all is extrapolated.
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
    answers = [
        np.where(rng.random(CLIPS) < 0.3 + 0.05 * run, truth, rng.integers(0, CLASSES, CLIPS)) for run in range(RUNS)
    ]

    start = time.perf_counter()
    counts = [metrics.confusion_of(truth, of_run, CLASSES, speaker).astype(np.float64) for of_run in answers]
    for table in counts:
        for statistic in (metrics.uar, metrics.accuracy, metrics.macro_f1):
            statistics.interval(table, statistic, resamples)
    pairs = list(itertools.combinations(counts, 2))
    for baseline, other in pairs:
        statistics.difference(baseline, other, None, tests=len(pairs), resamples=resamples)
    at_once_s = time.perf_counter() - start

    clips_of = [np.flatnonzero(speaker == s) for s in range(SPEAKERS)]
    start = time.perf_counter()
    for _ in range(TIMED_RESAMPLES):
        drawn = np.concatenate([clips_of[s] for s in rng.integers(0, SPEAKERS, SPEAKERS)])
        balanced_accuracy_score(truth[drawn], answers[0][drawn])
    score_s = (time.perf_counter() - start) / TIMED_RESAMPLES
    # Each resample needs one score per interval, two per difference, and two per swap.
    one_by_one_s = score_s * resamples * (RUNS * 3 + len(pairs) * 4)

    print(f"{RUNS} runs, {CLIPS:,} clips, {SPEAKERS} speakers, {len(pairs)} pairs, {resamples:,} resamples")
    print(f"one by one (scikit-learn, timed on {TIMED_RESAMPLES} resamples): {one_by_one_s / 60:8.1f} min")
    ratio = f"{one_by_one_s / at_once_s:,.0f} times faster"
    print(f"all at once (ser_bench.evaluation.statistics):    {at_once_s:8.1f} s, {ratio}")


if __name__ == "__main__":
    main()
