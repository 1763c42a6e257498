"""Figures of one run: confusion matrix and learning curves.

They use matplotlib's object interface, which needs no display and has no global state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ser_bench.evaluation.metrics import confusion
from ser_bench.types import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[int, float]]
"""Name of a metric → epoch (counted from 1) → value."""

DPI = 120
CELL_INCHES = 0.62
CHARACTER_INCHES = 0.075
"""Approximate width of a character of a tick label."""
NARROWEST_PANEL_INCHES = 4.2
"""Smallest width of a panel: its heading must fit above two or three classes."""
ABSTAINED = "abstained"
PAPER_TEST_CURVE = "test (shown as in the paper, not used for selection)"
COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:gray"}


def confusion_figure(predictions: Predictions, title: str) -> Figure:
    """Return two panels: counts, and shares of each true class (rows sum to 1); truth by row, prediction by column.

    A column for abstentions is added if there are any. A class without clips has a row of zeros.
    """
    from matplotlib.figure import Figure

    table = confusion(predictions)
    columns = [*predictions.labels, ABSTAINED]
    if not table[:, -1].any():
        table, columns = table[:, :-1], columns[:-1]
    support = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(support, 1)
    columns = [literal_text(name) for name in columns]
    rows = [f"{name} ({n:,})" for name, n in zip(columns, support[:, 0], strict=False)]
    longest = CHARACTER_INCHES * max(len(row) for row in rows)
    width = max(CELL_INCHES * len(columns), NARROWEST_PANEL_INCHES - longest) + longest + 0.6
    height = CELL_INCHES * len(table) + 0.75 * longest + 1.2
    figure = Figure(figsize=(2 * width, height), dpi=DPI, layout="constrained")
    figure.suptitle(literal_text(title), fontsize=12)
    left, right = figure.subplots(1, 2)
    _heat(left, shares, [[f"{n:,}" for n in line] for line in table], columns, rows)
    left.set_ylabel("truth (rows)")
    left.set_title(f"number of rows ({int(table.sum()):,} in total)", fontsize=10)
    _heat(right, shares, [[_share(s) for s in line] for line in shares], columns, rows)
    right.set_title("share of each true class (diagonal: recall)", fontsize=10)
    return figure


def learning_curves(curves: Curves, title: str) -> Figure | None:
    """Return loss in one panel, accuracy and UAR in the other, by epoch; None if there is neither.

    Names are `<part>/<metric>`. The part "test" exists only under the `paper` protocol. Its legend states that the
    curve was not used for selection.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    losses = {name: points for name, points in curves.items() if name.endswith("loss")}
    shares = {name: points for name, points in curves.items() if name.endswith(("accuracy", "uar"))}
    panels = [(kind, group) for kind, group in (("loss", losses), ("accuracy and UAR", shares)) if group]
    if not panels:
        return None
    figure = Figure(figsize=(5.6 * len(panels), 4.6), dpi=DPI, layout="constrained")
    figure.suptitle(literal_text(title), fontsize=12)
    for axes, (kind, group) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in sorted(group, key=_order):
            _curve(axes, name, group[name])
        axes.set_title("loss (cross-entropy, nats)" if kind == "loss" else kind, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(*((0, None) if kind == "loss" else (0, 1)))
        axes.grid(alpha=0.3)
        # Below the panel: inside, it would cover the curves.
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=1 if len(group) < 3 else 2)
    return figure


def literal_text(text: str) -> str:
    r"""Return a text that matplotlib shows as it is; it takes text between dollar signs for a formula.

    >>> print(literal_text("$x$"))
    \$x\$
    """
    return text.replace("$", r"\$")


def _heat(
    axes: Axes, shares: npt.NDArray[np.float64], texts: list[list[str]], columns: list[str], rows: list[str]
) -> None:
    axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues", aspect="equal")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xlabel("predicted")
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            dark = shares[i, j] > 0.55
            weight = "bold" if i == j else "normal"
            axes.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if dark else "black",
                      fontweight=weight)  # fmt: skip


def _curve(axes: Axes, name: str, points: Mapping[int, float]) -> None:
    part, _, metric = name.rpartition("/")
    epochs = sorted(points)
    axes.plot(
        epochs,
        [points[epoch] for epoch in epochs],
        label=_legend(part, metric),
        color=COLOURS.get(part.split("_")[0]),
        linestyle="--" if metric == "uar" or part.startswith("test") else "-",
        marker="o" if metric == "uar" else ".",
        markersize=3,
    )


def _legend(part: str, metric: str) -> str:
    names = {"train": "training", "val": "validation"}
    shown = PAPER_TEST_CURVE if part.startswith("test") else names.get(part, part)
    return f"{shown}: {'UAR' if metric == 'uar' else metric}"


def _order(name: str) -> tuple[int, str]:
    """Training first, then validation, then test."""
    first = name.partition("/")[0].split("_")[0]
    return (list(COLOURS).index(first) if first in COLOURS else len(COLOURS), name)


def _share(value: float) -> str:
    """Two decimals without the leading zero: .07, 1.00."""
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.00"
