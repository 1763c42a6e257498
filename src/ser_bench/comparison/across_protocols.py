"""How one predictor's figures fall from protocol to protocol: side by side, never tested against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison, Line
from ser_bench.comparison.report_figures import COLOURS, INK, MARKERS, Drawing, figure_with_axes, to_svg
from ser_bench.comparison.verdict import LEAKS_BY_NAME, bounds, share
from ser_bench.evaluation.statistics import Interval

ORDER = ("paper", "clip", "sentence", "speaker", "loso", "speaker_sentence", "fixed", "cross_corpus")
"""From what leaks most to what leaks least."""


@dataclass(frozen=True)
class Step:
    """One predictor under one protocol."""

    model: str
    protocol: str
    clips: int
    accuracy: Interval
    uar: Interval
    all_rows: tuple[int, float] | None
    """Under `paper`: rows and accuracy with augmented rows counted, as the paper counts; None where there are none."""


def steps(comparisons: Sequence[Comparison]) -> list[Step]:
    """Predictors that were run under two protocols or more on one corpus, from what leaks most to what leaks least."""
    ordered = sorted(comparisons, key=lambda one: ORDER.index(one.protocol) if one.protocol in ORDER else len(ORDER))
    found = [_step(comparison, line) for comparison in ordered for line in comparison.lines]
    protocols = {model: {step.protocol for step in found if step.model == model} for model in {s.model for s in found}}
    return [step for step in found if len(protocols[step.model]) > 1]


def as_frame(found: Sequence[Step]) -> pd.DataFrame:
    """One line a step: figures with intervals, and what leaks."""
    return pd.DataFrame(
        [
            {
                "predictor": step.model,
                "split": step.protocol,
                "clips": f"{step.clips:,}",
                "accuracy": f"{share(step.accuracy.value)} ({bounds(step.accuracy)})",
                "UAR": f"{share(step.uar.value)} ({bounds(step.uar)})",
                "augmented rows counted": "" if step.all_rows is None else _all_rows(step.all_rows),
                "what leaks": LEAKS_BY_NAME[step.protocol],
            }
            for step in found
        ]
    )


def drawing(found: Sequence[Step], claims: Sequence[Claim]) -> Drawing:
    """Accuracy by protocol, with the accuracies that others claim as lines of their own kind."""
    protocols = list(dict.fromkeys(step.protocol for step in found))
    models = list(dict.fromkeys(step.model for step in found))
    figure, (axes,) = figure_with_axes(height=4.4)
    for i, model in enumerate(models):
        own = [step for step in found if step.model == model]
        x = [protocols.index(step.protocol) + 0.08 * (i - (len(models) - 1) / 2) for step in own]
        y = [step.accuracy.value for step in own]
        half = np.nan_to_num([step.accuracy.high - step.accuracy.value for step in own])
        axes.errorbar(
            x, y, yerr=half, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], capsize=4, label=model
        )
        for place, value in zip(x, y, strict=True):
            axes.annotate(share(value), (place, value), (8, 4), textcoords="offset points", color=INK, fontsize=9)
    claimed = [claim for claim in claims if claim.accuracy is not None]
    for j, claim in enumerate(claimed):
        axes.axhline(claim.accuracy or 0.0, color=INK, linewidth=0.8, linestyle=(0, (2, 2 + j)), alpha=0.7)
    for claim in _apart(claimed):
        axes.text(
            len(protocols) - 0.45,
            (claim.accuracy or 0.0) + 0.012,
            f"claimed: {claim.system}",
            color=INK,
            fontsize=8,
            ha="right",
        )
    axes.set_xticks(range(len(protocols)), [f"split={name}" for name in protocols], color=INK)
    axes.set(xlim=(-0.5, len(protocols) - 0.4), ylim=(0, 1), ylabel="accuracy, with 95 % interval over speakers")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="lower left")
    said = "; ".join(f"{step.model} under split={step.protocol} {share(step.accuracy.value)}" for step in found)
    text = f"Accuracy on clean clips: {said}. Side by side, not tested: each protocol tests other clips."
    return Drawing("The fall from protocol to protocol", to_svg(figure), text)


def _apart(claims: Sequence[Claim], gap: float = 0.035) -> list[Claim]:
    """Claims whose labels do not cover each other, highest first."""
    kept: list[Claim] = []
    for claim in sorted(claims, key=lambda one: -(one.accuracy or 0.0)):
        if not kept or (kept[-1].accuracy or 0.0) - (claim.accuracy or 0.0) > gap:
            kept.append(claim)
    return kept


def _step(comparison: Comparison, line: Line) -> Step:
    run = line.series.first_of(comparison.folds[0])
    rows, accuracy = run.metrics.get("test/rows"), run.metrics.get("test/accuracy")
    augmented = "test_clean/accuracy" in run.metrics and rows is not None and accuracy is not None
    return Step(
        line.series.name,
        comparison.protocol,
        len(comparison.clips),
        line.accuracy,
        line.uar,
        (int(rows or 0), float(accuracy or 0.0)) if augmented else None,
    )


def _all_rows(found: tuple[int, float]) -> str:
    rows, accuracy = found
    return f"{share(accuracy)} on {rows:,} rows"
