"""Stored predictions → paired comparison: predictors side by side, on the clips that all of them predicted.

Runs are compared where their `partition` is equal fold by fold and their labels are the same; anything else is refused
by name. Folds of one configuration are pooled, so that every clip counts once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_bench import predictions as tables
from ser_bench import tracking
from ser_bench.comparison.run_groups import Series, in_series, refuse_unequal
from ser_bench.config import TrackingConfig
from ser_bench.errors import NotComparableError, RunNotFoundError
from ser_bench.evaluation import metrics, statistics
from ser_bench.evaluation.statistics import Difference, Interval
from ser_bench.tracking import StoredRun
from ser_bench.types import CLEAN, Predictions

CLIP_TABLE = ["speaker", "sex", "sentence", "intensity", "truth"]


@dataclass(frozen=True)
class Line:
    """One series on the clips that all series predicted, its folds pooled.

    Attributes:
        by_seed: predictions, one a seed, all over the same rows in the same order.
        scores: metrics of `evaluation.metrics.score`, the mean over seeds.
        uar, accuracy, macro_f1: with intervals; counts are the mean over seeds.
        uar_by_seed: one figure a seed.
        difference: UAR less that of the baseline; None for the baseline itself.
        adjusted_p: Holm's adjustment over all pairs shown; None where nothing can be tested.
        fit_s: seconds of training, summed over folds, the mean over seeds.
        parameters: trained numbers, or None where the run did not say.
    """

    series: Series
    by_seed: tuple[Predictions, ...]
    scores: Mapping[str, float]
    uar: Interval
    accuracy: Interval
    macro_f1: Interval
    uar_by_seed: tuple[float, ...]
    difference: Difference | None
    adjusted_p: float | None
    fit_s: float
    parameters: float | None

    @property
    def predictions(self) -> Predictions:
        """Those of the first seed."""
        return self.by_seed[0]

    @property
    def clips_per_second(self) -> float | None:
        """Clips answered a second of prediction, all seeds; None where time was not measured."""
        return self.scores.get("clips_per_second")

    @property
    def usd_per_1000(self) -> float:
        """US dollars paid for a thousand clips."""
        return float(1000 * np.mean([p.cost_usd.mean() for p in self.by_seed]))


@dataclass(frozen=True)
class Pair:
    """Two series set against each other: second less first."""

    first: str
    second: str
    difference: Difference
    adjusted_p: float | None


@dataclass(frozen=True)
class Comparison:
    """Predictors side by side under one protocol on one corpus; the baseline is the first line.

    `clips` is one line a clip, indexed by clip id, in the order of every line's predictions: speaker, sex, sentence,
    intensity, truth.
    """

    corpus: str
    protocol: str
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    of_folds: int
    synthetic: bool
    clips: pd.DataFrame
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]

    @property
    def speakers(self) -> int:
        """How many speakers were tested."""
        return int(self.clips["speaker"].nunique())

    @property
    def runs(self) -> list[StoredRun]:
        """Every run that was compared, line by line."""
        return [run for line in self.lines for run in line.series.all if int(run.tags["fold"]) in self.folds]

    def line(self, name: str) -> Line:
        """The line of a series."""
        return next(line for line in self.lines if line.series.name == name)


def comparisons_of_sweep(
    cfg: TrackingConfig, parent: str, baseline: str | None = None, tags: Mapping[str, str] | None = None
) -> list[Comparison | NotComparableError]:
    """One comparison for every corpus, protocol and label list among a sweep's finished runs, or those with these tags.

    Figures of different protocols stand side by side; nothing is tested across them.
    """
    runs = [run for run in tracking.search(cfg, parent=parent) if run.status == "FINISHED"]
    runs = [run for run in runs if all(run.tags.get(name) == value for name, value in (tags or {}).items())]
    groups: dict[tuple[str, ...], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault((run.tags["corpus"], run.tags["protocol"], run.tags["labels"]), []).append(run)
    results: list[Comparison | NotComparableError] = []
    for members in groups.values():
        try:
            results.append(compare(members, baseline))
        except NotComparableError as error:
            results.append(error)
    return results


def compare(runs: Sequence[StoredRun], baseline: str | None = None) -> Comparison:
    """Pool, intersect, score and test; the baseline is the first series of that name, else the first of all.

    Raises:
        NotComparableError: partitions or labels differ, or no fold is common; the message names the runs.
        RunNotFoundError: there is no run, or none of the baseline's name.
    """
    series = in_series(runs)
    refuse_unequal(series)
    folds = sorted(set.intersection(*(one.folds for one in series)))
    if not folds:
        raise NotComparableError(f"no fold was run by all of {', '.join(one.name for one in series)}")
    first = next((one for one in series if baseline is None or baseline in (one.name, one.model)), None)
    if first is None:
        raise RunNotFoundError(
            f"no run of the baseline {baseline!r}; there are {', '.join(one.name for one in series)}"
        )
    ordered = [first, *(one for one in series if one is not first)]
    pooled, clips = _pooled_on_common_rows(ordered, folds)
    pairs = _pairs(ordered, pooled, clips)
    tags = first.all[0].tags
    return Comparison(
        corpus=tags["corpus"],
        protocol=tags["protocol"],
        labels=pooled[first.name][0].labels,
        folds=tuple(folds),
        of_folds=int(tags["folds"]),
        synthetic=tags.get("synthetic", "").lower() == "true",
        clips=clips,
        lines=tuple(_line(one, pooled[one.name], clips, folds, pairs) for one in ordered),
        pairs=tuple(pairs),
    )


def _pairs(ordered: Sequence[Series], pooled: Mapping[str, Sequence[Predictions]], clips: pd.DataFrame) -> list[Pair]:
    """Every two series; p-values are adjusted over all of them, and left out where so few speakers support none."""
    counts = {one.name: _counts(pooled[one.name], clips) for one in ordered}
    names = list(itertools.combinations(counts, 2))
    enough = statistics.testable(clips["speaker"].nunique(), max(1, len(names)))
    found = [
        statistics.difference(
            counts[one], counts[two], _mcnemar(pooled[one], pooled[two]) if enough else None, tests=len(names)
        )
        for one, two in names
    ]
    tested = [i for i, difference in enumerate(found) if difference.p is not None]
    adjusted = dict(zip(tested, statistics.holm([found[i].p or 0.0 for i in tested]), strict=True))
    return [Pair(*names[i], difference, adjusted.get(i)) for i, difference in enumerate(found)]


def _mcnemar(one: Sequence[Predictions], two: Sequence[Predictions]) -> float | None:
    """Exact p on single predictions; None where a series has several seeds, whose rows are repeated measurements."""
    return statistics.mcnemar(one[0], two[0]) if len(one) == len(two) == 1 else None


def _counts(by_seed: Sequence[Predictions], clips: pd.DataFrame) -> metrics.Float64Array:
    """[G, C, C+1] counts by speaker, the mean over seeds, so that every clip counts once."""
    speakers = {str(clip): str(speaker) for clip, speaker in clips["speaker"].items()}
    return np.asarray(np.mean([statistics.counts_by_speaker(p, speakers) for p in by_seed], axis=0))


def _line(
    one: Series, by_seed: Sequence[Predictions], clips: pd.DataFrame, folds: Sequence[int], pairs: Sequence[Pair]
) -> Line:
    counts = _counts(by_seed, clips)
    against_baseline = next((pair for pair in pairs if pair.second == one.name), None)  # the baseline leads all pairs
    scores = [metrics.score(p, prefix="") for p in by_seed]
    seconds = [float(p.latency_s.sum()) for p in by_seed]
    runs = [one.runs[seed][fold] for seed in one.runs for fold in folds]
    parameters = [run.metrics["params/trainable"] for run in runs if "params/trainable" in run.metrics]
    mean = {key: float(np.mean([score[key] for score in scores])) for key in scores[0]}
    if min(seconds) > 0:
        mean["clips_per_second"] = len(clips) * len(by_seed) / sum(seconds)
    return Line(
        series=one,
        by_seed=tuple(by_seed),
        scores=mean,
        uar=statistics.interval(counts),
        accuracy=statistics.interval(counts, metrics.accuracy),
        macro_f1=statistics.interval(counts, metrics.macro_f1),
        uar_by_seed=tuple(score["uar"] for score in scores),
        difference=against_baseline.difference if against_baseline else None,
        adjusted_p=against_baseline.adjusted_p if against_baseline else None,
        fit_s=sum(run.metrics.get("time/fit_s", 0.0) for run in runs) / len(by_seed),
        parameters=parameters[0] if parameters else None,
    )


def _pooled_on_common_rows(
    series: Sequence[Series], folds: Sequence[int]
) -> tuple[dict[str, list[Predictions]], pd.DataFrame]:
    """Every series and seed on the same clean rows in the same order, and what is known of those clips.

    Augmented rows, tested under `paper`, are no clips.
    """
    read = {one.name: [_clean_frame([runs[fold] for fold in folds]) for runs in one.runs.values()] for one in series}
    every = [frame for frames in read.values() for frame in frames]
    common = sorted(set.intersection(*(set(frame.index) for frame in every)))
    if not common:
        raise NotComparableError(f"{', '.join(read)} have no clip in common")
    pooled = {name: [_predictions(frame, common) for frame in frames] for name, frames in read.items()}
    return pooled, every[0].loc[common, CLIP_TABLE]


def _clean_frame(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Clean rows of several folds, indexed by clip; probabilities of several kinds are no better than one-hot ones."""
    frames = [run.frame() for run in runs]
    sources = {frame.attrs.get("source", "softmax") for frame in frames}
    whole = pd.concat([frame[frame["variant"] == CLEAN] for frame in frames]).set_index("clip_id")
    whole.attrs = {"source": sources.pop() if len(sources) == 1 else "one_hot"}
    return whole


def _predictions(frame: pd.DataFrame, clip_ids: Sequence[str]) -> Predictions:
    taken = frame.loc[list(clip_ids)].reset_index()
    taken.attrs = frame.attrs
    return tables.from_frame(taken)
