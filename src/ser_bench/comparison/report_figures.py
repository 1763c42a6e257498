"""Drawings of a comparison as SVG that takes its text colour from the page, so that it reads in light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ser_bench.comparison.paired import Comparison, Line
from ser_bench.comparison.report_tables import reliability, risk_coverage
from ser_bench.comparison.verdict import chance, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#123456"
"""Drawn in place of the page's text colour and replaced afterwards."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Okabe & Ito's palette, told apart with every common colour vision, on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH_INCHES = 7.2


@dataclass(frozen=True)
class Drawing:
    """One figure: heading, SVG, and the same in words."""

    title: str
    svg: str
    text: str


def all_of(comparison: Comparison) -> list[Drawing]:
    """Every drawing that these predictors allow."""
    told = [line for line in comparison.lines if line.predictions.gives_probabilities]
    drawings = [_scores(comparison)]
    if told:
        drawings += [_reliability(told), _risk(told)]
    timed = [line for line in comparison.lines if line.clips_per_second]
    if timed:
        drawings.append(
            _against(comparison, timed, "seconds per clip", lambda line: 1 / (line.clips_per_second or 1.0))
        )
    if any(line.usd_per_1000 > 0 for line in comparison.lines):
        paid = [line for line in comparison.lines if line.usd_per_1000 > 0]
        drawings.append(_against(comparison, paid, "US dollars per 1,000 clips", lambda line: line.usd_per_1000))
    curves = _curves(comparison)
    return drawings + ([curves] if curves else [])


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element without a fixed size, its ink that of the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ser_bench"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace(INK, "currentColor")


def figure_with_axes(columns: int = 1, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure in the page's ink: `columns` panels side by side, sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.title.set_color(INK)
        axes.grid(color=INK, alpha=0.15)
    return figure, panels


def _scores(comparison: Comparison) -> Drawing:
    lines = list(comparison.lines)
    figure, (axes,) = figure_with_axes(height=1.3 + 0.38 * len(lines))
    for i, line in enumerate(lines):
        half = line.uar.high - line.uar.value  # NaN where one speaker gives no interval
        axes.errorbar(line.uar.value, i, xerr=None if math.isnan(half) else half, capsize=4, ls="none", **_style(i))
    axes.axvline(chance(comparison), color=INK, linestyle=":", linewidth=1)
    axes.text(chance(comparison), -0.72, "guessing", color=INK, fontsize=9, ha="center")
    axes.set_yticks(range(len(lines)), [line.series.name for line in lines], color=INK)
    axes.set_ylim(len(lines) - 0.4, -0.9)
    axes.set_xlim(0, 1)
    axes.set_xlabel("UAR, with 95 % interval over speakers")
    said = "; ".join(f"{line.series.name} {share(line.uar.value)}" for line in lines)
    return Drawing("How well each recognises", to_svg(figure), f"UAR: {said}; guessing {share(chance(comparison))}.")


def _reliability(lines: Sequence[Line]) -> Drawing:
    figure, (axes,) = figure_with_axes(height=4.2)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="perfectly calibrated")
    for i, line in enumerate(lines):
        table = reliability(line.predictions)
        axes.plot(table["confidence"], table["accuracy"], **_style(i), linewidth=1.5, label=line.series.name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence: probability of the answer", ylabel="share answered rightly")
    _legend(axes)
    said = "; ".join(f"{line.series.name} {share(line.scores['ece'])}" for line in lines if "ece" in line.scores)
    return Drawing("Does confidence mean anything", to_svg(figure), f"Expected calibration error: {said}.")


def _risk(lines: Sequence[Line]) -> Drawing:
    figure, (axes,) = figure_with_axes(height=3.8)
    said = []
    for i, line in enumerate(lines):
        table = risk_coverage(line.predictions)
        thin = table.iloc[:: max(1, len(table) // 200)]
        axes.plot(thin["coverage"], thin["risk"], **(_style(i) | {"marker": ""}), linewidth=1.5, label=line.series.name)
        half = table[table["coverage"] >= 0.5].iloc[0]
        said.append(f"{line.series.name} {share(float(half['risk']))}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="coverage: share of clips answered, most confident first")
    axes.set_ylabel("risk: share of errors among them")
    _legend(axes)
    return Drawing(
        "What if only confident answers count",
        to_svg(figure),
        f"Errors among the most confident half: {'; '.join(said)}.",
    )


def _against(comparison: Comparison, lines: Sequence[Line], label: str, price: Callable[[Line], float]) -> Drawing:
    figure, (axes,) = figure_with_axes(height=3.4)
    places = {line.series.name: i for i, line in enumerate(comparison.lines)}
    for line in lines:
        axes.plot(
            price(line), line.uar.value, **_style(places[line.series.name]), linestyle="none", label=line.series.name
        )
    axes.set_xscale("log")
    axes.set(ylim=(0, 1), xlabel=f"{label} (logarithmic)", ylabel="UAR")
    axes.axhline(chance(comparison), color=INK, linestyle=":", linewidth=1)
    _legend(axes)
    said = "; ".join(f"{line.series.name} {price(line):.3g}" for line in lines)
    return Drawing(f"UAR against {label}", to_svg(figure), f"{label.capitalize()}: {said}.")


def _curves(comparison: Comparison) -> Drawing | None:
    """Loss by epoch of every network, training dashed, validation drawn through; the first seed and fold."""
    figure, (axes,) = figure_with_axes(height=3.8)
    said = []
    for i, line in enumerate(comparison.lines):
        run = line.series.first_of(comparison.folds[0])
        for metric, linestyle in (("train/loss", "--"), ("val/loss", "-")):
            points = run.history(metric) if metric in run.metrics else {}
            if points:
                part = "training" if metric.startswith("train") else "validation"
                axes.plot(list(points), list(points.values()), **(_style(i) | {"markersize": 3}), linestyle=linestyle,
                          linewidth=1.5, label=f"{line.series.name}, {part}")  # fmt: skip
                said.append(f"{line.series.name} {part} {share(list(points.values())[-1])} after epoch {max(points)}")
    if not said:
        return None
    axes.set(xlabel="epoch", ylabel="loss (cross-entropy, nats)")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return Drawing("Learning curves", to_svg(figure), f"Loss: {'; '.join(said)}.")


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 6}


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
