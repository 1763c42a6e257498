"""The figures of a comparison as tables: one line a predictor, and scores by class, speaker, sex, sentence, level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_bench.comparison.paired import Comparison, Line
from ser_bench.comparison.verdict import bounds, p_value, points, share
from ser_bench.evaluation import metrics
from ser_bench.evaluation.sentence_ceiling import sentence_ceiling
from ser_bench.predictors.llm.parsing.answer import stated_reason
from ser_bench.types import Predictions

NOT_GIVEN = "n/a"
GROUPS = {"speaker": "speaker", "sex": "sex", "sentence": "sentence", "intensity": "intensity"}
"""Column of the clip table → heading."""


@dataclass(frozen=True)
class Cell:
    """What is shown, what it is sorted by (None: last), and what stands smaller below it."""

    text: str
    order: float | str | None
    detail: str = ""

    @property
    def whole(self) -> str:
        """Both in one line: "0.458 (0.415 to 0.501)"."""
        return f"{self.text} ({self.detail})" if self.detail else self.text


def main_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Headings and one line a predictor: figures with intervals, difference to the baseline, and the price."""
    baseline = comparison.lines[0].series.name
    rows = [_cells(line, baseline) for line in comparison.lines]
    return list(rows[0]), [list(row.values()) for row in rows]


def _cells(line: Line, baseline: str) -> dict[str, Cell]:
    cells = {"predictor": Cell(line.series.name, line.series.name)}
    for name, figure in (("UAR", line.uar), ("accuracy", line.accuracy), ("macro-F1", line.macro_f1)):
        cells[name] = Cell(share(figure.value), figure.value, bounds(figure))
    if len(line.uar_by_seed) > 1:
        spread = share(float(np.std(line.uar_by_seed, ddof=1)))
        told = f"{bounds(line.uar)}; {len(line.uar_by_seed)} seeds, standard deviation {spread}"
        cells["UAR"] = Cell(share(line.uar.value), line.uar.value, told)
    against = f"less {baseline}, points UAR"
    if line.difference is None:
        cells |= {against: Cell("baseline", 0.0), "p (Holm)": Cell("", None), "p (McNemar)": Cell("", None)}
    else:
        found, mcnemar = line.difference.interval, line.difference.mcnemar_p
        told = "" if math.isnan(found.low) else f"{points(found.low)} to {points(found.high)}"
        cells[against] = Cell(points(found.value), found.value, told)
        cells["p (Holm)"] = _p_cell(line.adjusted_p, "too few speakers")
        cells["p (McNemar)"] = _p_cell(mcnemar, NOT_GIVEN)
    return cells | _price(line)


def _p_cell(p: float | None, otherwise: str) -> Cell:
    return Cell(otherwise if p is None else p_value(p).removeprefix("p = ").removeprefix("p "), p)


def _price(line: Line) -> dict[str, Cell]:
    abstained = float(np.mean([p.abstained.sum() for p in line.by_seed]))
    speed = line.clips_per_second
    return {
        "log-loss": _optional(line.scores.get("log_loss")),
        "ECE": _optional(line.scores.get("ece")),
        "abstained": Cell(f"{abstained:.0f}", abstained),
        "clips/s": Cell(NOT_GIVEN if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.2f}", speed),
        "USD/1,000": Cell(f"{line.usd_per_1000:.2f}", line.usd_per_1000),
        "parameters": Cell(NOT_GIVEN if line.parameters is None else f"{line.parameters:,.0f}", line.parameters),
        "training": Cell(duration(line.fit_s), line.fit_s),
    }


def by_class(comparison: Comparison) -> pd.DataFrame:
    """Recall, precision and F1 of every class and predictor; support beside it."""
    columns: dict[str, list[object]] = {"emotion": [], "clips": []}
    first = metrics.per_class(comparison.lines[0].predictions)
    columns["emotion"], columns["clips"] = list(first), [score.support for score in first.values()]
    for line in comparison.lines:
        scores = [metrics.per_class(p) for p in line.by_seed]
        for what in ("recall", "precision", "f1"):
            columns[f"{line.series.name}: {what if what != 'f1' else 'F1'}"] = [
                float(np.mean([getattr(score[label], what) for score in scores])) for label in first
            ]
    return pd.DataFrame(columns)


def by_group(comparison: Comparison, column: str) -> pd.DataFrame | None:
    """Clips and each predictor's UAR (of the classes that the group has) by speaker, sex, sentence or intensity.

    None where the corpus does not say.
    """
    groups = comparison.clips[column].astype(str)
    if not groups.any():
        return None
    rows = []
    for group in sorted(groups.unique()):
        where = np.flatnonzero((groups == group).to_numpy())
        row: dict[str, object] = {GROUPS[column]: group or "(not given)", "clips": len(where)}
        for line in comparison.lines:
            row[line.series.name] = float(np.mean([metrics.uar(p.take(where.tolist())) for p in line.by_seed]))
        rows.append(row)
    return pd.DataFrame(rows)


def confusion_shares(line: Line) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """[C, C+1]: share of each true class by answer, abstentions last, the mean over seeds; 0 for absent classes."""
    table = np.mean([metrics.confusion(p) for p in line.by_seed], axis=0)
    return np.asarray(table / np.maximum(table.sum(axis=1, keepdims=True), 1))


def reliability(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Mean confidence and accuracy in equal-width bins of confidence; empty bins are left out.

    Source: DeGroot & Fienberg (1983), The Statistician 32, 12-22. Abstentions are left out: they claim nothing.
    """
    kept = ~predictions.abstained
    confidence = predictions.probabilities.max(axis=1)[kept]
    right = (np.array(predictions.predicted) == np.array(predictions.truth))[kept]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": right.astype(float)})
    means = frame.groupby("bin").mean()
    return means.assign(clips=frame.groupby("bin").size()).reset_index(drop=True)


def risk_coverage(predictions: Predictions) -> pd.DataFrame:
    """Share of errors among the most confident answers, by the share of clips answered so; both in (0, 1].

    Source: El-Yaniv & Wiener (2010), JMLR 11, 1605-1641. Abstentions come last and count as errors. Clips of equal
    confidence enter together, so that their order does not matter.
    """
    confidence = np.where(predictions.abstained, -1.0, predictions.probabilities.max(axis=1))
    wrong = (np.array(predictions.predicted) != np.array(predictions.truth)).astype(float)
    frame = pd.DataFrame({"confidence": confidence, "wrong": wrong}).groupby("confidence")["wrong"]
    steps = pd.DataFrame({"wrong": frame.sum(), "clips": frame.size()}).sort_index(ascending=False).cumsum()
    return pd.DataFrame({"coverage": steps["clips"] / len(wrong), "risk": steps["wrong"] / steps["clips"]})


def disagreements(comparison: Comparison, count: int = 12) -> pd.DataFrame:
    """The clips on which predictors differ most: clip, truth, and what each said with its probability and its reason.

    Differing is the mean total variation distance, ½ Σ|p − q|, over all pairs of predictors; range [0, 1]. Clips on
    which all of them give the same label are left out.
    """
    first = [line.predictions for line in comparison.lines]
    distance = np.zeros(len(comparison.clips))
    for i, one in enumerate(first):
        for two in first[i + 1 :]:
            distance += 0.5 * np.abs(one.probabilities - two.probabilities).sum(axis=1)
    said = np.array([p.predicted for p in first])
    differing = (said != said[0]).any(axis=0)
    order = [i for i in np.argsort(-distance, kind="stable") if differing[i]][:count]
    rows = []
    for i in order:
        row = {"clip": first[0].rows[i].clip_id, "truth": first[0].truth[i]}
        row |= {line.series.name: _said(line.predictions, i) for line in comparison.lines}
        rows.append(row)
    return pd.DataFrame(rows)


def sentence_remark(comparison: Comparison) -> str | None:
    """What knowing the sentence alone allows on these clips; None where sentences are not known."""
    sentences = [str(code) for code in comparison.clips["sentence"]]
    if not all(sentences):
        return None
    best = sentence_ceiling(sentences, [str(truth) for truth in comparison.clips["truth"]])
    return (
        f"Who knew the sentence of every clip and nothing else could reach accuracy {share(best.accuracy)} and "
        f"UAR {share(best.uar)} here at most; more than that comes from the voice, or from how the words were misheard."
    )


def duration(seconds: float) -> str:
    """ "43 s", "12 min", "3.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _said(predictions: Predictions, i: int) -> str:
    if predictions.abstained[i]:
        return "(abstained)"
    probability = f" {predictions.probabilities[i].max():.2f}" if predictions.gives_probabilities else ""
    reason = stated_reason(predictions.notes[i]) if predictions.notes else ""
    return f"{predictions.predicted[i]}{probability}" + (f" (“{reason}”)" if reason else "")


def _optional(value: float | None) -> Cell:
    return Cell(NOT_GIVEN if value is None else share(value), value)


def as_frame(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> pd.DataFrame:
    """The texts of a table."""
    return pd.DataFrame([[cell.whole for cell in row] for row in rows], columns=list(headings))
