"""The per-class report of a run, in the layout of scikit-learn's `classification_report`.

It is made from our own counts. scikit-learn would treat an abstention as one more class: it would then replace the
accuracy line by a micro average, and abstentions would not count as wrong.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ser_bench.evaluation import metrics
from ser_bench.types import Predictions

Averages = dict[str, float]


def report_dict(predictions: Predictions) -> dict[str, Averages | float]:
    """Return what `classification_report(..., labels=labels, zero_division=0, output_dict=True)` returns.

    Keys: every label, then "accuracy", "macro avg", "weighted avg". In scikit-learn, "macro avg" is over all labels;
    here it leaves out labels that are absent from the truth, as every mean over classes does (`evaluation.metrics`).
    Its recall is therefore `metrics.uar`, and its F1 is `metrics.macro_f1`.
    """
    counts = metrics.confusion(predictions)
    total = float(metrics.rows(counts))
    weights = metrics.support(counts) / total
    values = {name: metrics.METRICS[name].compute(counts) for name in ("precision", "recall", "f1")}
    keys = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    report: dict[str, Averages | float] = {
        label: {keys[name]: float(values[name][i]) for name in keys} | {"support": float(counts[i].sum())}
        for i, label in enumerate(predictions.labels)
    }
    report["accuracy"] = float(metrics.accuracy(counts))
    macro = {keys[name]: float(metrics.mean_over_classes(values[name], counts)) for name in keys}
    report["macro avg"] = macro | {"support": total}
    report["weighted avg"] = {keys[name]: float(np.dot(weights, values[name])) for name in keys} | {"support": total}
    return report


def report_text(predictions: Predictions, digits: int = 3) -> str:
    """Return `report_dict` as scikit-learn prints it, followed by the number of abstentions if there are any."""
    report = report_dict(predictions)
    width = max(len("weighted avg"), digits, *(len(label) for label in predictions.labels))
    lines = [" " * (width + 1) + "".join(f" {head:>9}" for head in ("precision", "recall", "f1-score", "support")), ""]
    for name, values in report.items():
        if name == "accuracy":
            lines += ["", f"{name:>{width}}  {'':>9} {'':>9} {values:>9.{digits}f} {len(predictions.rows):>9}"]
        elif isinstance(values, dict):
            lines.append(f"{name:>{width}} " + "".join(_cell(key, value, digits) for key, value in values.items()))
    text = "\n".join(lines) + "\n"
    abstained = int(predictions.abstained.sum())
    if not abstained:
        return text
    stated = reasons_text(predictions)
    return f"{text}\nabstained: {abstained} of {len(predictions.rows)} rows, counted as wrong{stated}\n"


def reasons_text(predictions: Predictions) -> str:
    """Return how often each reason for an abstention occurs, as " (length 4, refusal 2)"; "" if none is stated."""
    counts = Counter(reason for reason in predictions.reasons if reason)
    return f" ({', '.join(f'{reason} {count}' for reason, count in counts.most_common())})" if counts else ""


def _cell(name: str, value: float, digits: int) -> str:
    return f" {int(value):>9}" if name == "support" else f" {value:>9.{digits}f}"
