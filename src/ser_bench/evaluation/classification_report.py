"""The per-class report of a run, in the layout of scikit-learn's `classification_report`.

Made from our own counts, because scikit-learn takes an abstention for one more class: it then drops the accuracy line
for a micro average, and abstentions no longer count as wrong.
"""

from __future__ import annotations

from ser_bench.evaluation.metrics import ClassScore, accuracy, per_class
from ser_bench.types import Predictions

Averages = dict[str, float]


def report_dict(predictions: Predictions) -> dict[str, Averages | float]:
    """What `classification_report(..., labels=labels, zero_division=0, output_dict=True)` returns.

    Keys: every label, then "accuracy", "macro avg", "weighted avg". As in scikit-learn, "macro avg" is over all labels,
    so that a label absent from the truth pulls it down; `metrics.uar` and `metrics.macro_f1` leave such a label out.
    """
    scores = per_class(predictions)
    total = len(predictions.rows)
    count = len(scores)
    macro = [1 / count] * count
    weights = [score.support / total for score in scores.values()]
    report: dict[str, Averages | float] = {label: _line(score) for label, score in scores.items()}
    report["accuracy"] = accuracy(predictions)
    report["macro avg"] = _average(list(scores.values()), macro, total)
    report["weighted avg"] = _average(list(scores.values()), weights, total)
    return report


def report_text(predictions: Predictions, digits: int = 3) -> str:
    """The same as the text that scikit-learn prints, with a last line that counts abstentions where there are any."""
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
    return text + (f"\nabstained: {abstained} of {len(predictions.rows)} rows, counted as wrong\n" if abstained else "")


def _line(score: ClassScore) -> Averages:
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1-score": score.f1,
        "support": float(score.support),
    }


def _average(scores: list[ClassScore], weights: list[float], total: int) -> Averages:
    return {
        "precision": sum(w * s.precision for w, s in zip(weights, scores, strict=True)),
        "recall": sum(w * s.recall for w, s in zip(weights, scores, strict=True)),
        "f1-score": sum(w * s.f1 for w, s in zip(weights, scores, strict=True)),
        "support": float(total),
    }


def _cell(name: str, value: float, digits: int) -> str:
    return f" {int(value):>9}" if name == "support" else f" {value:>9.{digits}f}"
