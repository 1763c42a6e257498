"""The tables of a report.

One row per predictor (scores and cost), scores by emotion, speaker, sex, sentence and intensity, calibration, the clips
on which predictors disagree, claims of other publications, and the results of one predictor under several protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison, GroupResult
from ser_bench.comparison.verdict import LEAKS_BY_NAME, POINTS, TOO_FEW, bounds, p_value, points, share
from ser_bench.durations import format_duration
from ser_bench.evaluation import metrics
from ser_bench.evaluation.metrics import METRICS, Float64Array
from ser_bench.evaluation.sentence_ceiling import sentence_ceiling
from ser_bench.evaluation.statistics import POWER, Interval
from ser_bench.evaluation.vote_metrics import LISTENERS, VOTE_METRICS
from ser_bench.predictors.llm.parsing.model_answer import stated_reason
from ser_bench.tracking.stored_runs import FAILED_REQUESTS
from ser_bench.types import Predictions

NOT_GIVEN = "n/a"
RANK = "rank"
NOT_STATED = "(not given)"
LISTENERS_ROW = "listeners among themselves"
CLIP_GROUPS = ("speaker", "sex", "sentence", "intensity")
"""Columns of the clip table by which scores are given."""
CLASS_METRICS = ("recall", "precision", "f1")
PROTOCOL_ORDER = (*("paper", "clip", "sentence", "speaker", "loso", "speaker_sentence", "fixed", "cross_corpus"),)
"""Protocols, from those with the most leakage to those with the least."""


# One row per predictor.


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the value to sort by (None: last), and details that are shown smaller below the text."""

    text: str
    order: float | str | None
    detail: str = ""

    @property
    def whole(self) -> str:
        """Text and details in one line: "0.458 (0.415 to 0.501)"."""
        return f"{self.text} ({self.detail})" if self.detail else self.text


def main_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Return headings, and one row per predictor: scores with intervals, difference to the baseline, and cost."""
    several = len(comparison.results) > 1
    rows = [_scores(result, comparison.baseline.name, several) | _cost(result) for result in comparison.results]
    return list(rows[0]), [list(row.values()) for row in rows]


def as_frame(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> pd.DataFrame:
    """Return a table of `Cell`s as texts."""
    return pd.DataFrame([[cell.whole for cell in row] for row in rows], columns=list(headings))


def _scores(result: GroupResult, baseline: str, several: bool) -> dict[str, Cell]:
    cells = {"predictor": Cell(result.name, result.name)}
    cells |= {RANK: _rank_cell(result)} if several else {}
    for name in ("uar", "accuracy", "macro_f1", *result.of_levels):
        cell = _score_cell(result, name)
        if name == "uar" and len(result.by_seed) > 1:
            cell = Cell(cell.text, cell.order, f"{cell.detail}; {len(result.by_seed)} seeds")
        cells[METRICS[name].title] = cell
    heading = f"difference to {baseline} (UAR points)"
    if result.difference is None:
        cells |= {heading: Cell("baseline", 0.0), "p (Holm)": Cell("", None)}
    else:
        interval = result.difference.interval
        detail = f"{points(interval.low)} to {points(interval.high)}" if interval.is_informative else TOO_FEW
        cells[heading] = Cell(points(interval.value), interval.value, detail)
        cells["p (Holm)"] = _p_cell(result.adjusted_p, TOO_FEW)
    for name in ("log_loss", "ece"):
        value, calibrated = result.scores.get(name), result.scores.get(f"{name}_calibrated")
        detail = "" if calibrated is None or value is None else f"calibrated {share(calibrated)}"
        cells[METRICS[name].title] = Cell(NOT_GIVEN if value is None else share(value), value, detail)
    failed = sum(run.metrics.get(FAILED_REQUESTS, 0.0) for run in result.group.all) / len(result.by_seed)
    abstentions = float(np.mean([p.abstained.sum() for p in result.by_seed])) - failed
    detail = f"and {failed:.0f} failed requests, counted as wrong by an earlier version" if failed else ""
    return cells | {"abstentions": Cell(f"{abstentions:.0f}", abstentions, detail)}


def _score_cell(result: GroupResult, name: str) -> Cell:
    """Return a score as "0.683 ± 0.004", the mean and the standard deviation over seeds, with the interval below."""
    interval = result.intervals[name]
    deviation = f" ± {share(result.deviations[name])}" if name in result.deviations else ""
    return Cell(share(interval.value) + deviation, interval.value, bounds(interval))


def _rank_cell(result: GroupResult) -> Cell:
    """Return a range of ranks, sorted by its middle."""
    return Cell(NOT_GIVEN, None) if result.rank is None else Cell(rank_text(result.rank), sum(result.rank))


def rank_text(rank: tuple[int, int]) -> str:
    """Return a range of ranks as text.

    >>> rank_text((1, 2)), rank_text((3, 3))
    ('1–2', '3')
    """
    best, worst = rank
    return str(best) if best == worst else f"{best}–{worst}"


def votes_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]] | None:
    """Return headings, one row per predictor with its soft-label metrics, and a row of the listeners' own figures.

    None if the votes of the compared clips are not known.
    """
    own = {
        name: comparison.baseline.scores[f"{name}{LISTENERS}"]
        for name in VOTE_METRICS
        if f"{name}{LISTENERS}" in comparison.baseline.scores
    }
    if not own:
        return None
    rows = [
        [
            Cell(result.name, result.name),
            *(_score_cell(result, name) if name in result.of_votes else Cell(NOT_GIVEN, None) for name in own),
        ]
        for result in comparison.results
    ]
    rows.append([Cell(LISTENERS_ROW, None), *(Cell(share(value), value) for value in own.values())])
    return ["predictor", *(METRICS[name].title for name in own)], rows


def pairs_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Return headings, and one row per pair: difference, p-value and the difference that could have been seen."""
    rows = []
    for pair in comparison.pairs:
        interval = pair.difference.interval
        detail = f"{points(interval.low)} to {points(interval.high)}" if interval.is_informative else TOO_FEW
        rows.append(
            [
                Cell(f"{pair.second} minus {pair.first}", f"{pair.second} {pair.first}"),
                Cell(points(interval.value), interval.value, detail),
                _p_cell(pair.adjusted_p, TOO_FEW),
                _p_cell(pair.difference.mcnemar_p, NOT_GIVEN),
                Cell(NOT_GIVEN, None)
                if pair.detectable is None
                else Cell(f"{POINTS * pair.detectable:.1f}", pair.detectable),
            ]
        )
    return ["pair", "difference (UAR points)", "p (Holm)", "p (McNemar)", "detectable difference (points)"], rows


def detectable_remark(comparison: Comparison) -> str | None:
    """Return one sentence: which differences could not have been seen with these speakers; None if it is not known."""
    known = [POINTS * pair.detectable for pair in comparison.pairs if pair.detectable is not None]
    if not known:
        return None
    smallest, largest = f"{min(known):.1f}", f"{max(known):.1f}"
    of_pairs = f"{smallest} UAR points"
    if smallest != largest:
        of_pairs = f"{smallest} to {largest} UAR points, depending on the pair,"
    adjusted = "" if len(comparison.pairs) == 1 else f"/{len(comparison.pairs)}, the first step of Holm's method"
    size = f"at that size, a test finds it in {100 * POWER:.0f} % of such comparisons"
    return (
        f"With these {comparison.speakers} speakers, a true difference below {of_pairs} could not have been seen "
        f"reliably: {size} (two-sided, α = .05{adjusted})."
    )


def _p_cell(p: float | None, missing: str) -> Cell:
    return Cell(missing if p is None else p_value(p).removeprefix("p = ").removeprefix("p "), p)


def _cost(result: GroupResult) -> dict[str, Cell]:
    speed = result.clips_per_second
    shown = NOT_GIVEN if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.2f}"
    detail = "" if result.answer_s is None else f"{1000 * result.answer_s:,.0f} ms to answer"
    return {
        "clips/s": Cell(shown, speed, detail),
        "USD/1,000 clips": Cell(
            NOT_GIVEN if result.group.is_imported and not result.usd_per_1000 else f"{result.usd_per_1000:.2f}",
            result.usd_per_1000,
        ),
        "parameters": Cell(NOT_GIVEN if result.parameters is None else f"{result.parameters:,.0f}", result.parameters),
        "training time": Cell(NOT_GIVEN if result.fit_s is None else format_duration(result.fit_s), result.fit_s),
    }


def by_class(comparison: Comparison, metric: str) -> pd.DataFrame:
    """Return recall, precision or F1 (`CLASS_METRICS`): one row per predictor, one column per emotion."""
    compute = METRICS[metric].compute
    rows = []
    for result in comparison.results:
        values = np.mean([compute(metrics.confusion(p)) for p in result.by_seed], axis=0)
        rows.append({"predictor": result.name} | dict(zip(comparison.labels, values.tolist(), strict=True)))
    return pd.DataFrame(rows)


def by_clip_group(comparison: Comparison, column: str) -> pd.DataFrame | None:
    """Return the UAR of every predictor by speaker, sex, sentence or intensity: one row per group of clips.

    The UAR of a group is over the emotions that the group has. Returns None if the corpus does not give the column.
    """
    values = comparison.clips[column].astype(str)
    if not values.any():
        return None
    rows = []
    for value in sorted(values.unique()):
        positions = np.flatnonzero((values == value).to_numpy()).tolist()
        row: dict[str, object] = {column: value or NOT_STATED, "clips": len(positions)}
        for result in comparison.results:
            row[result.name] = float(np.mean([metrics.uar(p.take(positions)) for p in result.by_seed]))
        rows.append(row)
    return pd.DataFrame(rows)


def confusion_shares(result: GroupResult) -> Float64Array:
    """Return the share of each true class by answer, [C, C + 1], the mean over seeds; 0 for absent classes."""
    counts = np.mean([metrics.confusion(p) for p in result.by_seed], axis=0)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def sentence_remark(comparison: Comparison) -> str | None:
    """Return the ceiling of a predictor that uses the sentence alone; None if sentences are unknown."""
    sentences = [str(code) for code in comparison.clips["sentence"]]
    if not all(sentences):
        return None
    ceiling = sentence_ceiling(sentences, [str(truth) for truth in comparison.clips["truth"]])
    return (
        f"A predictor that uses the spoken sentence alone can reach at most accuracy {share(ceiling.accuracy)} and "
        f"UAR {share(ceiling.uar)} on these clips. Higher scores need the voice, or transcripts with errors due to it."
    )


# Confidence.


def reliability(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Return mean confidence, accuracy and number of clips in equal-width bins of confidence, without empty bins.

    Abstentions are left out, because they have no answer whose probability could be compared with its accuracy.
    Source: DeGroot & Fienberg (1983), The Statistician 32, 12-22.
    """
    truth, answers = metrics.label_indices(predictions)
    answered = ~predictions.abstained
    confidence = predictions.probabilities.max(axis=1)[answered]
    right = (truth == answers)[answered].astype(float)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    grouped = pd.DataFrame({"bin": bin_of, "confidence": confidence, "accuracy": right}).groupby("bin")
    return grouped.mean().assign(clips=grouped.size()).reset_index(drop=True)


def risk_coverage(predictions: Predictions) -> pd.DataFrame:
    """Return the share of errors (risk) among the most confident answers, by their share of all clips (coverage).

    Both are in [0, 1]. Abstentions come last and count as errors. Clips of equal confidence enter together, so that
    their order has no influence. Source: El-Yaniv & Wiener (2010), JMLR 11, 1605-1641.
    """
    truth, answers = metrics.label_indices(predictions)
    confidence = np.where(predictions.abstained, -1.0, predictions.probabilities.max(axis=1))
    errors = pd.DataFrame({"confidence": confidence, "wrong": (truth != answers).astype(float)})
    grouped = errors.groupby("confidence")["wrong"]
    sums = pd.DataFrame({"wrong": grouped.sum(), "clips": grouped.size()}).sort_index(ascending=False).cumsum()
    return pd.DataFrame({"coverage": sums["clips"] / len(truth), "risk": sums["wrong"] / sums["clips"]})


# Disagreements.


def disagreements(comparison: Comparison, count: int = 12) -> pd.DataFrame:
    """Return the clips on which predictors differ most: clip, truth, and each answer with its probability and reason.

    The measure is the mean total variation distance, ½ Σ|p − q|, over all pairs of predictors; range [0, 1]. Clips with
    the same answer of all predictors are left out.
    """
    of_predictors = [result.predictions for result in comparison.results]
    distance = np.zeros(len(comparison.clips))
    for i, first in enumerate(of_predictors):
        for second in of_predictors[i + 1 :]:
            distance += 0.5 * np.abs(first.probabilities - second.probabilities).sum(axis=1)
    answers = np.array([p.predicted for p in of_predictors])
    differing = (answers != answers[0]).any(axis=0)
    order = [i for i in np.argsort(-distance, kind="stable") if differing[i]][:count]
    rows = []
    for i in order:
        row = {"clip": of_predictors[0].rows[i].clip_id, "truth": of_predictors[0].truth[i]}
        row |= {result.name: _answer(result.predictions, i) for result in comparison.results}
        rows.append(row)
    return pd.DataFrame(rows)


def _answer(predictions: Predictions, i: int) -> str:
    if predictions.abstained[i]:
        return "(abstained)"
    probability = f" {predictions.probabilities[i].max():.2f}" if predictions.gives_probabilities else ""
    reason = stated_reason(predictions.notes[i]) if predictions.notes else ""
    return f"{predictions.predicted[i]}{probability}" + (f" (“{reason}”)" if reason else "")


# Claims of other publications.


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Return claims as texts, one row per claim."""
    return pd.DataFrame(
        [
            {
                "system": f"{claim.system} (claimed)",
                METRICS["uar"].title: "" if claim.uar is None else share(claim.uar),
                METRICS["accuracy"].title: "" if claim.accuracy is None else share(claim.accuracy),
                "protocol": claim.protocol,
                "note": claim.note,
                "source": claim.source,
            }
            for claim in claims
        ]
    )


# One predictor under several protocols. The results are shown side by side; differences between them are not tested.


@dataclass(frozen=True)
class ProtocolResult:
    """The result of one predictor under one protocol.

    Attributes:
        predictor: name of the run group.
        protocol: of the split.
        clips: number of clean test clips.
        accuracy, uar: on these clips.
        all_rows: under `paper`, number and accuracy of all test rows, augmented ones included, as in the paper; None
            under other protocols.
    """

    predictor: str
    protocol: str
    clips: int
    accuracy: Interval
    uar: Interval
    all_rows: tuple[int, float] | None


def across_protocols(comparisons: Sequence[Comparison]) -> list[ProtocolResult]:
    """Return the results of predictors that were run under several protocols on one corpus, in `PROTOCOL_ORDER`."""
    rank = {protocol: i for i, protocol in enumerate(PROTOCOL_ORDER)}
    ordered = sorted(comparisons, key=lambda comparison: rank.get(comparison.protocol, len(rank)))
    results = [_protocol_result(comparison, result) for comparison in ordered for result in comparison.results]
    protocols: dict[str, set[str]] = {}
    for result in results:
        protocols.setdefault(result.predictor, set()).add(result.protocol)
    return [result for result in results if len(protocols[result.predictor]) > 1]


def protocol_table(results: Sequence[ProtocolResult]) -> tuple[list[str], list[list[Cell]]]:
    """Return headings, and one row per predictor and protocol: scores with intervals, and what leaks."""
    rows = [
        {
            "predictor": Cell(result.predictor, result.predictor),
            "split": Cell(result.protocol, result.protocol),
            "clips": Cell(f"{result.clips:,}", result.clips),
            METRICS["accuracy"].title: Cell(
                share(result.accuracy.value), result.accuracy.value, bounds(result.accuracy)
            ),
            METRICS["uar"].title: Cell(share(result.uar.value), result.uar.value, bounds(result.uar)),
            "accuracy with augmented rows": _all_rows(result.all_rows),
            "leakage": Cell(LEAKS_BY_NAME[result.protocol], LEAKS_BY_NAME[result.protocol]),
        }
        for result in results
    ]
    return list(rows[0]), [list(row.values()) for row in rows]


def _protocol_result(comparison: Comparison, result: GroupResult) -> ProtocolResult:
    run = result.group.first_of(comparison.folds[0])
    rows, accuracy = run.metrics.get("test/rows"), run.metrics.get("test/accuracy")
    augmented = "test_clean/accuracy" in run.metrics and rows is not None and accuracy is not None
    return ProtocolResult(
        result.name,
        comparison.protocol,
        len(comparison.clips),
        result.accuracy,
        result.uar,
        (int(rows or 0), float(accuracy or 0.0)) if augmented else None,
    )


def _all_rows(all_rows: tuple[int, float] | None) -> Cell:
    if all_rows is None:
        return Cell("", None)
    rows, accuracy = all_rows
    return Cell(share(accuracy), accuracy, f"{rows:,} rows")
