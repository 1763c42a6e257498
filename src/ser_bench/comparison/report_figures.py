"""The figures of a report, as SVG that takes the text colour of the page, so that it is readable in light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison, GroupResult
from ser_bench.comparison.report_tables import ProtocolResult, reliability, risk_coverage
from ser_bench.comparison.verdict import chance_level, share
from ser_bench.evaluation.run_figures import literal_text
from ser_bench.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#123456"
"""Placeholder of the text colour; `to_svg` replaces it by that of the page."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Okabe & Ito's palette, distinguishable with all common kinds of colour vision, on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)))
"""Colours repeat after 6 predictors, markers after 7: together with line styles, no two predictors look alike."""
WIDTH_INCHES = 5.6
"""Narrow, so that the text is still readable if a phone shrinks the figure."""
LEGEND_ROW_INCHES = 0.2
LONG_LABEL = 24
"""A legend with longer labels has one column."""
CURVE_POINTS = 200
CLAIM_GAP = 0.035
"""Smallest vertical distance between the labels of two claims, in accuracy."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure: title, SVG, and its content in words."""

    title: str
    svg: str
    text: str


def figures_of(comparison: Comparison) -> list[ReportFigure]:
    """Return every figure that the predictors have data for."""
    styles = {result.name: _style(i) for i, result in enumerate(comparison.results)}
    figures = [_uar_figure(comparison, styles)]
    with_probabilities = [r for r in comparison.results if r.predictions.gives_probabilities]
    if with_probabilities:
        figures += [_calibration(with_probabilities, styles), _risk_coverage(with_probabilities, styles)]
    timed = [result for result in comparison.results if result.clips_per_second]
    if timed:
        label = "seconds per clip"
        figures.append(_uar_against(comparison, timed, styles, label, lambda r: 1 / (r.clips_per_second or 1.0)))
    paid = [result for result in comparison.results if result.usd_per_1000 > 0]
    if paid:
        figures.append(_uar_against(comparison, paid, styles, "US dollars per 1,000 clips", lambda r: r.usd_per_1000))
    curves = _learning_curves(comparison, styles)
    return figures + ([curves] if curves else [])


def protocol_figure(results: Sequence[ProtocolResult], claims: Sequence[Claim]) -> ReportFigure:
    """Return accuracy by protocol, with claimed accuracies as horizontal lines."""
    protocols = list(dict.fromkeys(result.protocol for result in results))
    predictors = list(dict.fromkeys(result.predictor for result in results))
    figure, axes = _figure(height=4.0)
    for i, predictor in enumerate(predictors):
        of_predictor = [result for result in results if result.predictor == predictor]
        x = [protocols.index(r.protocol) + 0.08 * (i - (len(predictors) - 1) / 2) for r in of_predictor]
        y = [r.accuracy.value for r in of_predictor]
        bars = np.transpose([_error_bar(r.accuracy) for r in of_predictor])
        axes.errorbar(x, y, yerr=bars, **_style(i), capsize=4, label=literal_text(predictor))
        side, offset = ("right", (-8, 4)) if i < len(predictors) / 2 else ("left", (8, 4))
        for point in zip(x, y, strict=True):
            axes.annotate(share(point[1]), point, offset, textcoords="offset points", color=INK, fontsize=9, ha=side)
    claimed = [(claim, claim.accuracy) for claim in claims if claim.accuracy is not None]
    for j, (_, accuracy) in enumerate(claimed):
        axes.axhline(accuracy, color=INK, linewidth=0.8, linestyle=(0, (2, 2 + j)), alpha=0.7)
    label_height = math.inf
    for claim, accuracy in sorted(claimed, key=lambda pair: -pair[1]):
        if label_height - accuracy > CLAIM_GAP:
            label_height = accuracy
            position = (len(protocols) - 0.45, accuracy + 0.012)
            axes.text(*position, f"claimed: {literal_text(claim.system)}", color=INK, fontsize=8, ha="right")
    axes.set_xticks(range(len(protocols)), [f"split={name}" for name in protocols], color=INK)
    axes.set(xlim=(-0.5, len(protocols) - 0.4), ylim=(0, 1), ylabel="accuracy, with 95 % interval over speakers")
    _add_legend(figure, axes)
    values = "; ".join(f"{r.predictor} under split={r.protocol} {share(r.accuracy.value)}" for r in results)
    text = f"Accuracy on clean clips: {values}. Protocols are not tested against each other: their test clips differ."
    return ReportFigure("Accuracy by protocol", to_svg(figure), text)


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element without a fixed size, in the text colour of the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ser_bench"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for attribute in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace(INK, "currentColor")


def _figure(height: float) -> tuple[Figure, Axes]:
    """Return a figure with one panel in `INK`; the height is in inches and does not include the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side not in ("top", "right"))
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=INK, alpha=0.15)
    return figure, axes


def _error_bar(interval: Interval) -> tuple[float, float]:
    """Return the lengths below and above the value; zeros if the interval says nothing."""
    if not interval.is_informative:
        return 0.0, 0.0
    return interval.value - interval.low, interval.high - interval.value


def _style(i: int) -> dict[str, Any]:
    """Return colour, marker and line style of the i-th predictor."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 6,
        "linestyle": LINE_STYLES[i // len(COLOURS) % len(LINE_STYLES)],
    }


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Add a legend below the panel, where it covers no curve, and make the figure higher by it."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= LONG_LABEL else 1
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_INCHES * math.ceil(len(labels) / columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, fontsize=9)


def _uar_figure(comparison: Comparison, styles: dict[str, dict[str, Any]]) -> ReportFigure:
    results, chance = comparison.results, chance_level(comparison)
    figure, axes = _figure(height=1.3 + 0.34 * len(results))
    for i, result in enumerate(results):
        style = styles[result.name] | {"linestyle": "none"}
        bar = np.reshape(_error_bar(result.uar), (2, 1)) if result.uar.is_informative else None
        axes.errorbar(result.uar.value, i, xerr=bar, capsize=4, **style)
    axes.axvline(chance, color=INK, linestyle=":", linewidth=1)
    axes.text(chance, -0.65, "chance level", color=INK, fontsize=9, ha="center")
    names = [literal_text(_wrapped(result.name)) for result in results]
    axes.set_yticks(range(len(results)), names, color=INK, fontsize=9)
    axes.set_ylim(len(results) - 0.4, -1.0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("UAR, with 95 % interval over speakers")
    values = "; ".join(f"{result.name} {share(result.uar.value)}" for result in results)
    return ReportFigure("UAR", to_svg(figure), f"UAR: {values}; chance level {share(chance)}.")


def _wrapped(name: str, width: int = 30) -> str:
    """Break a long name into two lines, at the separator nearest to its middle."""
    breaks = [match.end() for match in re.finditer(r"[ ,+]|_(?=\w)", name)]
    if len(name) <= width or not breaks:
        return name
    middle = min(breaks, key=lambda position: abs(position - len(name) / 2))
    return f"{name[:middle].rstrip()}\n{name[middle:]}"


def _calibration(results: Sequence[GroupResult], styles: dict[str, dict[str, Any]]) -> ReportFigure:
    figure, axes = _figure(height=3.8)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="perfect calibration")
    for result in results:
        table = reliability(result.predictions)
        style, name = styles[result.name], literal_text(result.name)
        axes.plot(table["confidence"], table["accuracy"], **style, linewidth=1.5, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (probability of the answer)", ylabel="accuracy")
    _add_legend(figure, axes)
    values = "; ".join(f"{r.name} {share(r.scores['ece'])}" for r in results if "ece" in r.scores)
    return ReportFigure(
        "Calibration", to_svg(figure), f"Reliability diagram. Expected calibration error (ECE): {values}."
    )


def _risk_coverage(results: Sequence[GroupResult], styles: dict[str, dict[str, Any]]) -> ReportFigure:
    figure, axes = _figure(height=3.6)
    risks = []
    for result in results:
        table = risk_coverage(result.predictions)
        thinned = table.iloc[:: max(1, len(table) // CURVE_POINTS)]
        style = styles[result.name] | {"marker": ""}
        axes.plot(thinned["coverage"], thinned["risk"], **style, linewidth=1.5, label=literal_text(result.name))
        half = table[table["coverage"] >= 0.5].iloc[0]
        risks.append(f"{result.name} {share(float(half['risk']))}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="coverage (share of clips, most confident first)")
    axes.set_ylabel("risk (share of errors)")
    _add_legend(figure, axes)
    text = f"Share of errors among the most confident half of the clips: {'; '.join(risks)}."
    return ReportFigure("Risk–coverage curve", to_svg(figure), text)


def _uar_against(
    comparison: Comparison,
    results: Sequence[GroupResult],
    styles: dict[str, dict[str, Any]],
    label: str,
    cost: Callable[[GroupResult], float],
) -> ReportFigure:
    figure, axes = _figure(height=3.2)
    for result in results:
        style = styles[result.name] | {"linestyle": "none"}
        axes.plot(cost(result), result.uar.value, **style, label=literal_text(result.name))
    axes.set_xscale("log")
    axes.set(ylim=(0, 1), xlabel=f"{label} (logarithmic)", ylabel="UAR")
    axes.axhline(chance_level(comparison), color=INK, linestyle=":", linewidth=1, label="chance level")
    _add_legend(figure, axes)
    values = "; ".join(f"{result.name} {cost(result):.3g}" for result in results)
    return ReportFigure(f"UAR against {label}", to_svg(figure), f"{label[0].upper()}{label[1:]}: {values}.")


def _learning_curves(comparison: Comparison, styles: dict[str, dict[str, Any]]) -> ReportFigure | None:
    """Return the loss by epoch of every network, of the first seed and fold; training dashed, validation solid."""
    figure, axes = _figure(height=3.6)
    losses = []
    for result in comparison.results:
        run = result.group.first_of(comparison.folds[0])
        for metric, part, linestyle in (("train/loss", "training", "--"), ("val/loss", "validation", "-")):
            history = run.history(metric) if metric in run.metrics else {}
            if history:
                style = styles[result.name] | {"markersize": 3, "linestyle": linestyle}
                label = f"{literal_text(result.name)}, {part}"
                axes.plot(list(history), list(history.values()), **style, linewidth=1.5, label=label)
                losses.append(f"{result.name} {part} {share(list(history.values())[-1])} after epoch {max(history)}")
    if not losses:
        return None
    axes.set(xlabel="epoch", ylabel="loss (cross-entropy, nats)")
    axes.set_ylim(bottom=0)
    _add_legend(figure, axes)
    return ReportFigure("Learning curves", to_svg(figure), f"Loss: {'; '.join(losses)}.")
