"""The paired comparison of run groups, on the clips that all of them predicted.

Runs are compared if their `partition` is equal fold by fold and their labels are the same. Other runs are refused, with
their names. `fold_pooling` pools the folds; `evaluation.statistics` has intervals and tests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ser_bench import tracking
from ser_bench.comparison.fold_pooling import common_folds, pool_calibrated, pool_folds, readable_runs
from ser_bench.comparison.run_groups import RunGroup, group_runs, refuse_unequal
from ser_bench.config import TrackingConfig
from ser_bench.errors import NotComparableError, RunNotFoundError
from ser_bench.evaluation import metrics, statistics, vote_metrics
from ser_bench.evaluation.run_scores import ANSWER_TIME
from ser_bench.evaluation.statistics import Difference, Interval
from ser_bench.tracking import StoredRun
from ser_bench.types import Predictions


@dataclass(frozen=True)
class GroupResult:
    """The result of one run group, its folds pooled, on the clips that all groups predicted.

    Attributes:
        group: the runs.
        by_seed: predictions, one per seed, all over the same rows in the same order.
        scores: `metrics.score` without prefix, the mean over seeds; `clips_per_second`, if latency was measured; and
            `ece_calibrated`, if every run has a calibration.
        uar, accuracy, macro_f1: with intervals, from counts that are the mean over seeds.
        uar_by_seed: one UAR per seed.
        of_levels: the metrics of ordered levels, by name, with intervals as above; {} for emotions.
        of_votes: the soft-label metrics that are defined, by name, with intervals over speakers; each row's value is
            the mean over seeds.
        deviations: name of a score → its standard deviation over seeds; {} for a single seed.
        rank: best and worst rank that the tests allow (`rank_ranges`); None if there is no test or no other predictor.
        difference: UAR minus that of the baseline; None for the baseline itself.
        adjusted_p: p-value of the difference, adjusted over all pairs by Holm's method; None if there is no test.
        fit_s: seconds of training, summed over folds, the mean over seeds; None for imported predictions.
        parameters: number of trained parameters; None if the run did not log it.
    """

    group: RunGroup
    by_seed: tuple[Predictions, ...]
    scores: Mapping[str, float]
    uar: Interval
    accuracy: Interval
    macro_f1: Interval
    uar_by_seed: tuple[float, ...]
    difference: Difference | None
    adjusted_p: float | None
    fit_s: float | None
    parameters: float | None
    of_levels: Mapping[str, Interval] = field(default_factory=dict)
    of_votes: Mapping[str, Interval] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)
    rank: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Name of the run group."""
        return self.group.name

    @property
    def predictions(self) -> Predictions:
        """Predictions of the first seed."""
        return self.by_seed[0]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Every metric that has an interval, by its name in MLflow without "test/"."""
        of_all = {"uar": self.uar, "accuracy": self.accuracy, "macro_f1": self.macro_f1}
        return of_all | dict(self.of_levels) | dict(self.of_votes)

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by its name in MLflow without "test/", also `<metric>_low`, `_high`, and `_sd` over seeds."""
        figures = dict(self.scores) | {f"{name}_sd": value for name, value in self.deviations.items()}
        for name, interval in self.intervals.items():
            figures |= {name: interval.value}
            figures |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    @property
    def clips_per_second(self) -> float | None:
        """Clips per second of prediction, over all seeds; None if latency was not measured."""
        return self.scores.get("clips_per_second")

    @property
    def answer_s(self) -> float | None:
        """Seconds from the audio of one clip to its answer, features included; None if no run measured it."""
        return self.scores.get("answer_s")

    @property
    def usd_per_1000(self) -> float:
        """Cost of 1,000 clips in US dollars."""
        return float(1000 * np.mean([p.cost_usd.mean() for p in self.by_seed]))


@dataclass(frozen=True)
class PairResult:
    """The difference of two run groups, second minus first.

    Attributes:
        first, second: names of the run groups.
        difference: of UAR.
        adjusted_p: p-value, adjusted over all pairs by Holm's method; None if there is no test.
        detectable: smallest true difference that this comparison finds in four of five cases (`statistics.detectable`,
            with the number of pairs), as a difference of shares; None if it is not known.
    """

    first: str
    second: str
    difference: Difference
    adjusted_p: float | None
    detectable: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The results of all run groups under one protocol on one corpus; the first result is the baseline.

    `clips` has one row per clip, indexed by clip id, in the order of all predictions, and the columns
    `fold_pooling.CLIP_COLUMNS`.
    """

    corpus: str
    protocol: str
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    of_folds: int
    synthetic: bool
    clips: pd.DataFrame
    results: tuple[GroupResult, ...]
    pairs: tuple[PairResult, ...]

    @property
    def baseline(self) -> GroupResult:
        """The result that all others are compared with."""
        return self.results[0]

    @property
    def kind_of_label(self) -> str:
        """What a label names, in headings: "level" of ordered labels, else "emotion"."""
        return "level" if self.baseline.predictions.ordinal else "emotion"

    @property
    def speakers(self) -> int:
        """Number of tested speakers."""
        return int(self.clips["speaker"].nunique())

    @property
    def runs(self) -> list[StoredRun]:
        """Every compared run, ordered by run group, seed and fold."""
        return [run for result in self.results for run in result.group.all if int(run.tags["fold"]) in self.folds]

    def result(self, name: str) -> GroupResult:
        """Return the result of a run group."""
        return next(result for result in self.results if result.name == name)


def comparisons_of_sweep(
    cfg: TrackingConfig, parent: str, baseline: str | None = None, tags: Mapping[str, str] | None = None
) -> list[Comparison | NotComparableError]:
    """Compare the finished runs of a sweep, separately for every corpus, protocol and label list.

    Args:
        cfg: the store.
        parent: id of the sweep's parent run.
        baseline: name of a model or run group; None: the first one.
        tags: name → value that the runs must have.

    Returns:
        Comparisons; in place of runs that cannot be compared, or whose predictions are damaged, the error.
    """
    runs = [run for run in tracking.search(cfg, parent=parent) if run.status == "FINISHED"]
    wanted = [run for run in runs if all(run.tags.get(name) == value for name, value in (tags or {}).items())]
    runs, damaged = readable_runs(wanted)
    comparable: dict[tuple[str, ...], list[StoredRun]] = {}
    for run in runs:
        comparable.setdefault((run.tags["corpus"], run.tags["protocol"], run.tags["labels"]), []).append(run)
    comparisons: list[Comparison | NotComparableError] = []
    for members in comparable.values():
        try:
            comparisons.append(compare(members, baseline))
        except NotComparableError as error:
            comparisons.append(error)
    return [*comparisons, *damaged]


def compare(runs: Sequence[StoredRun], baseline: str | None = None) -> Comparison:
    """Group runs, pool their folds, score them on their common clips, and test every pair.

    Args:
        runs: stored runs of one corpus and one split.
        baseline: name of a model or run group, of which the first match is used; None: the first group.

    Raises:
        NotComparableError: if partitions or labels differ, or no fold or clip is common; the message names the runs.
        RunNotFoundError: if there is no run, or none of the baseline.
    """
    groups = group_runs(runs)
    refuse_unequal(groups)
    folds = common_folds(groups)
    first = next((group for group in groups if baseline is None or baseline in (group.name, group.model)), None)
    if first is None:
        raise RunNotFoundError(
            f"no run of the baseline {baseline!r}; there are {', '.join(group.name for group in groups)}"
        )
    ordered = [first, *(group for group in groups if group is not first)]
    pooled, clips = pool_folds(ordered, folds)
    pairs = _pairs(pooled, clips)
    ranks = rank_ranges(list(pooled), pairs)
    tags = first.all[0].tags
    return Comparison(
        corpus=tags["corpus"],
        protocol=tags["protocol"],
        labels=pooled[first.name][0].labels,
        folds=tuple(folds),
        of_folds=int(tags["folds"]),
        synthetic=tags.get("synthetic", "").lower() == "true",
        clips=clips,
        results=tuple(
            _result(group, pooled[group.name], clips, folds, pairs, ranks[group.name]) for group in ordered
        ),
        pairs=tuple(pairs),
    )


def _pairs(pooled: Mapping[str, Sequence[Predictions]], clips: pd.DataFrame) -> list[PairResult]:
    """Compare every two groups. p-values are adjusted over all pairs, and left out if there are too few speakers."""
    counts = {name: _mean_counts(by_seed, clips) for name, by_seed in pooled.items()}
    names = list(itertools.combinations(counts, 2))
    enough = statistics.testable(clips["speaker"].nunique(), max(1, len(names)))
    differences = [
        statistics.difference(
            counts[first],
            counts[second],
            _mcnemar_p(pooled[first], pooled[second]) if enough else None,
            tests=len(names),
        )
        for first, second in names
    ]
    tested = [i for i, difference in enumerate(differences) if difference.p is not None]
    adjusted = dict(zip(tested, statistics.holm([differences[i].p or 0.0 for i in tested]), strict=True))
    return [
        PairResult(*names[i], difference, adjusted.get(i), statistics.detectable(difference, len(names)))
        for i, difference in enumerate(differences)
    ]


def rank_ranges(names: Sequence[str], pairs: Sequence[PairResult]) -> dict[str, tuple[int, int] | None]:
    """Return the best and the worst rank of each of N run groups that the tests allow.

    The best rank is 1 + the number of groups that are significantly better, the worst one N − the number of those that
    are significantly worse, at the level of .05 after Holm's adjustment over all pairs. Groups that cannot be told
    apart have ranks in common ("1–2"). None if there is only one group, or if there are too few speakers for tests.
    Source: Al Mohamad, Goeman & van Zwet (2022), Biometrics 78, 238-247, on ranks from pairwise tests.
    """
    ranks: dict[str, tuple[int, int] | None] = {}
    for name in names:
        better = worse = 0
        of_name = [pair for pair in pairs if name in (pair.first, pair.second)]
        for pair in of_name:
            if pair.adjusted_p is not None and pair.adjusted_p < statistics.ALPHA:
                is_better = (pair.difference.interval.value > 0) == (pair.second == name)
                better, worse = better + (not is_better), worse + is_better
        tested = bool(of_name) and all(pair.adjusted_p is not None for pair in of_name)
        ranks[name] = (1 + better, len(names) - worse) if tested else None
    return ranks


def _calibrated_ece(group: RunGroup, clips: pd.DataFrame, folds: Sequence[int]) -> dict[str, float]:
    """Return `ece_calibrated`, the mean over seeds, each fold calibrated by its own run; {} if a run cannot be."""
    ids = [str(clip_id) for clip_id in clips.index]
    by_seed = [pool_calibrated([of_folds[fold] for fold in folds], ids) for of_folds in group.runs.values()]
    values = [metrics.ece(predictions) for predictions in by_seed if predictions is not None]
    return {"ece_calibrated": float(np.mean(values))} if len(values) == len(by_seed) else {}


def _mcnemar_p(first: Sequence[Predictions], second: Sequence[Predictions]) -> float | None:
    """Return McNemar's p-value; None if a group has several seeds, which are repeated measurements of the same rows."""
    return statistics.mcnemar(first[0], second[0]) if len(first) == len(second) == 1 else None


def _mean_counts(by_seed: Sequence[Predictions], clips: pd.DataFrame) -> metrics.Float64Array:
    """Return confusion counts by speaker, [G, C, C + 1], the mean over seeds, so that every clip counts once."""
    speakers = {str(clip): str(speaker) for clip, speaker in clips["speaker"].items()}
    return np.asarray(np.mean([statistics.counts_by_speaker(p, speakers) for p in by_seed], axis=0))


def _result(
    group: RunGroup,
    by_seed: Sequence[Predictions],
    clips: pd.DataFrame,
    folds: Sequence[int],
    pairs: Sequence[PairResult],
    rank: tuple[int, int] | None,
) -> GroupResult:
    counts = _mean_counts(by_seed, clips)
    # The baseline comes first, so it is the first of the first pair of every other group.
    against_baseline = next((pair for pair in pairs if pair.second == group.name), None)
    score_of_seed = [metrics.score(p, prefix="") for p in by_seed]
    given = [key for key in score_of_seed[0] if all(key in score for score in score_of_seed)]
    scores = {key: float(np.mean([score[key] for score in score_of_seed])) for key in given}
    scores |= vote_metrics.listeners_scores(by_seed[0].votes)
    speakers = {str(clip): str(speaker) for clip, speaker in clips["speaker"].items()}
    seconds = [float(p.latency_s.sum()) for p in by_seed]
    if min(seconds) > 0:
        scores["clips_per_second"] = len(clips) * len(by_seed) / sum(seconds)
    runs = [group.runs[seed][fold] for seed in group.runs for fold in folds]
    scores |= _calibrated_ece(group, clips, folds)
    answer_s = [run.metrics[ANSWER_TIME] for run in runs if ANSWER_TIME in run.metrics]
    if answer_s:
        scores["answer_s"] = float(np.mean(answer_s))
    parameters = [run.metrics["params/trainable"] for run in runs if "params/trainable" in run.metrics]
    return GroupResult(
        group=group,
        by_seed=tuple(by_seed),
        scores=scores,
        uar=statistics.interval(counts, metrics.uar),
        accuracy=statistics.interval(counts, metrics.accuracy),
        macro_f1=statistics.interval(counts, metrics.macro_f1),
        uar_by_seed=tuple(score["uar"] for score in score_of_seed),
        difference=against_baseline.difference if against_baseline else None,
        adjusted_p=against_baseline.adjusted_p if against_baseline else None,
        fit_s=None if group.is_imported else sum(run.metrics.get("time/fit_s", 0.0) for run in runs) / len(by_seed),
        parameters=parameters[0] if parameters else None,
        of_levels=_of_levels(counts) if all(p.ordinal for p in by_seed) else {},
        of_votes=statistics.vote_intervals(by_seed, speakers),
        deviations=_deviations(score_of_seed, given) if len(by_seed) > 1 else {},
        rank=rank,
    )


def _deviations(score_of_seed: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Return the sample standard deviation over seeds of every score."""
    return {name: float(np.std([score[name] for score in score_of_seed], ddof=1)) for name in names}


def _of_levels(counts: metrics.Float64Array) -> dict[str, Interval]:
    """Return the metrics of levels that are defined, with intervals."""
    return {name: i for name, i in statistics.level_intervals(counts).items() if not math.isnan(i.value)}
