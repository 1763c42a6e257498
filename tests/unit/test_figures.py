"""The content of a run's figures, read back from their parts."""

from __future__ import annotations

import html
import io
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ser_bench.evaluation import run_figures
from ser_bench.types import Predictions, clean_rows

LABELS = ("angry", "neutral", "sad")


def make(abstained: tuple[bool, ...] = (False,) * 4) -> Predictions:
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    zeros = np.zeros(4, np.float32)
    truth = ("angry", "angry", "neutral", "sad")
    return Predictions(clean_rows("abcd"), truth, LABELS, probabilities, np.array(abstained), zeros, zeros)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_confusion_shows_counts_and_shares_with_readable_axes():
    figure = run_figures.confusion_figure(make(), "cnn on demo (SYNTHETIC speech)")
    left, right = figure.axes
    assert "SYNTHETIC" in figure.get_suptitle()
    assert texts(left) == ["1", "1", "0", "0", "1", "0", "0", "0", "1"]
    assert texts(right) == [".50", ".50", ".00", ".00", "1.00", ".00", ".00", ".00", "1.00"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["angry (2)", "neutral (1)", "sad (1)"]
    assert [t.get_text() for t in left.get_xticklabels()] == list(LABELS)
    assert (left.get_xlabel(), left.get_ylabel()) == ("predicted", "truth (rows)")


def test_confusion_has_a_column_for_abstentions_only_where_there_are_any():
    figure = run_figures.confusion_figure(make((False, True, False, False)), "llm")
    left, _ = figure.axes
    assert [t.get_text() for t in left.get_xticklabels()] == [*LABELS, "abstained"]
    assert texts(left)[:4] == ["1", "0", "0", "1"]


@pytest.mark.parametrize("label", ["$\\foo{$", "$x$", "a $ b", "<b>", "{a}_^%#"])
def test_labels_are_shown_as_they_are(label):
    zeros = np.zeros(2, np.float32)
    labels = (label, "sad")
    p = Predictions(clean_rows("ab"), labels, labels, np.eye(2, dtype=np.float32), zeros > 0, zeros, zeros)
    figure = run_figures.confusion_figure(p, f"cnn on {label}")
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(svg, format="svg")
    shown = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.getvalue())]
    assert {label, f"{label} (1)", f"cnn on {label}"} <= set(shown)


@pytest.mark.parametrize("labels", [("a", "b"), tuple(f"a rather long label {i}" for i in range(8))])
def test_nothing_is_cut_off(labels):
    n = len(labels)
    zeros = np.zeros(n, np.float32)
    p = Predictions(clean_rows(labels), labels, labels, np.eye(n, dtype=np.float32), zeros > 0, zeros, zeros)
    figure = run_figures.confusion_figure(
        p, "cnn_text on demo (SYNTHETIC speech): split speaker_sentence, fold 3 of 25"
    )
    picture = io.BytesIO()
    figure.savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    first, second = (axes.get_tightbbox(renderer) for axes in figure.axes)
    assert first.x1 <= second.x0


def test_learning_curves_have_a_panel_for_loss_and_one_for_shares():
    curves = {"train/loss": {1: 2.0, 2: 1.0}, "val/uar": {2: 0.5, 1: 0.25}, "train/lr": {1: 1e-3}}
    figure = run_figures.learning_curves(curves, "cnn")
    loss, shares = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training: loss"]
    assert [line.get_label() for line in shares.lines] == ["validation: UAR"]
    assert list(shares.lines[0].get_xdata()) == [1, 2] and list(shares.lines[0].get_ydata()) == [0.25, 0.5]
    assert loss.get_xlabel() == "epoch"


def test_the_legend_of_the_papers_test_curve_states_that_it_was_not_used_for_selection():
    figure = run_figures.learning_curves({"test_curve/accuracy": {1: 0.5}, "train/accuracy": {1: 0.6}}, "cnn")
    training, test = [line.get_label() for line in figure.axes[0].lines]
    assert training == "training: accuracy" and test.startswith("test (") and "not used for selection" in test


def test_without_epochs_there_is_no_figure():
    assert run_figures.learning_curves({}, "llm") is None
    assert run_figures.learning_curves({"train/lr": {1: 1.0}}, "llm") is None


def test_pyplot_is_never_loaded():
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_figures as t;"
        "t.run_figures.confusion_figure(t.make(), 'x').savefig('/dev/null', format='png');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
