"""Every figure of a run, computed from its `Predictions` alone.

Conventions, the same for every metric here:

- The label list is that of the predictions, explicit and ordered; it is never guessed from what happens to occur.
- An abstention is wrong whatever the truth, and its probabilities are uniform (1/C).
- A class that nobody speaks in these rows (support 0) has no recall: it is left out of the means over classes, and
  `score` gives its support alone. Comparing a UAR over five classes with one over six is the reader's mistake to avoid,
  which is why the support stands beside it.
- Precision of a class that is never predicted is 0, as with `zero_division=0` in scikit-learn.
- Counts are exact; everything else is float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ser_bench.types import Predictions

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

ECE_BINS = 15
"""Equal-width bins of confidence over [0, 1], the number that Guo et al. (2017) use."""

SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Log-loss clips here (1.19e-7, so at most 15.9 nats a row): what float32 probabilities can still tell from 0."""


class ClassScore(NamedTuple):
    """How one class was recognised; the first three in [0, 1]."""

    precision: float
    recall: float
    f1: float
    support: int
    """Rows whose truth is this class."""


def confusion(predictions: Predictions) -> IntArray:
    """Confusion matrix, [C, C + 1]: truth by row, prediction by column, abstentions in the last column.

    Source: the contingency table of truth and answer. Rows sum to the support of their class.

    Raises:
        ValueError: there are no rows, or a truth is not in the label list (new audio has none).

    >>> confusion(_example())
    array([[2, 0, 0],
           [1, 0, 1]])
    """
    if not predictions.rows:
        raise ValueError("there are no predictions to score")
    index = {label: i for i, label in enumerate(predictions.labels)}
    strange = sorted(set(predictions.truth) - set(index))
    if strange:
        raise ValueError(f"truth {strange[0]!r} is not one of the labels {', '.join(predictions.labels)}")
    count = len(predictions.labels)
    table = np.zeros((count, count + 1), dtype=np.int64)
    for truth, predicted in zip(predictions.truth, predictions.predicted, strict=True):
        table[index[truth], index.get(predicted, count)] += 1
    return table


def per_class(predictions: Predictions) -> dict[str, ClassScore]:
    """Precision TP/(TP+FP), recall TP/(TP+FN), F1 2TP/(2TP+FP+FN) and support TP+FN of every label, in label order.

    Range [0, 1]; 0 where a denominator is 0. An abstention is a false negative of its class and nobody's false
    positive. Source: van Rijsbergen (1979), Information Retrieval, chapter 7.

    >>> per_class(_example())["angry"]
    ClassScore(precision=0.6666666666666666, recall=1.0, f1=0.8, support=2)
    """
    table = confusion(predictions)
    scores = {}
    for i, label in enumerate(predictions.labels):
        hits, support, answers = int(table[i, i]), int(table[i].sum()), int(table[:, i].sum())
        scores[label] = ClassScore(
            precision=_ratio(hits, answers),
            recall=_ratio(hits, support),
            f1=_ratio(2 * hits, support + answers),
            support=support,
        )
    return scores


def accuracy(predictions: Predictions) -> float:
    """Share of rows answered rightly: Σ TP / N. Range [0, 1]; an abstention is not right.

    >>> accuracy(_example())
    0.5
    """
    table = confusion(predictions)
    return _ratio(int(np.trace(table)), int(table.sum()))


def uar(predictions: Predictions) -> float:
    """Unweighted average recall: (1 / K) Σ_k TP_k / (TP_k + FN_k), over the K labels that occur in the truth.

    Range [0, 1]; chance is 1/K whatever the class sizes. Also called balanced accuracy, or macro recall. It is not
    symmetric in truth and prediction, and a label absent from the truth has no recall, so it is not in the mean.
    Source: Schuller, Steidl & Batliner (2009), The INTERSPEECH 2009 Emotion Challenge.

    >>> uar(_example())
    0.5
    """
    return _mean([score.recall for score in per_class(predictions).values() if score.support])


def macro_f1(predictions: Predictions) -> float:
    """Macro-F1: the mean of F1 over the labels that occur in the truth. Range [0, 1].

    The mean of the classes' F1, not the F1 of mean precision and mean recall (Opitz & Burst 2019, arXiv 1911.03347,
    on why that matters).

    >>> macro_f1(_example())
    0.4
    """
    return _mean([score.f1 for score in per_class(predictions).values() if score.support])


def weighted_f1(predictions: Predictions) -> float:
    """F1 weighted by support: Σ_k support_k · F1_k / N. Range [0, 1]. Source: scikit-learn's `average="weighted"`.

    >>> weighted_f1(_example())
    0.4
    """
    scores = per_class(predictions).values()
    return sum(score.support * score.f1 for score in scores) / len(predictions.rows)


def abstention_rate(predictions: Predictions) -> float:
    """Share of rows without an answer: abstentions / N. Range [0, 1]; 0 is best.

    >>> abstention_rate(_example())
    0.25
    """
    table = confusion(predictions)
    return _ratio(int(table[:, -1].sum()), int(table.sum()))


def log_loss(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the truth: −(1 / N) Σ_i ln p_i(truth_i), in nats.

    Range [0, 15.9]: rows are scaled to sum to 1, then probabilities are clipped to `SMALLEST_PROBABILITY`. Uniform
    probabilities, and so every abstention, cost ln C. Source: Good (1952), Rational Decisions.

    Raises:
        ValueError: the predictor gives no probabilities.

    >>> round(log_loss(_example()), 4)  # (−ln .9 − ln .6 − ln .3 − ln .5) / 4
    0.6283
    """
    probabilities = _probabilities(predictions)
    index = [predictions.labels.index(truth) for truth in predictions.truth]
    likelihood = probabilities[np.arange(len(index)), index]
    return float(-np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0)).mean())


def ece(predictions: Predictions, bins: int = ECE_BINS) -> float:
    """Expected calibration error: Σ_b (n_b / N) · |accuracy_b − confidence_b|, over equal-width bins b of confidence.

    Confidence is the largest probability of a row; bin b of B is ((b − 1)/B, b/B]. Range [0, 1]; 0 is best, and reached
    by a predictor that is right exactly as often as it says. An abstention has confidence 1/C and is wrong.
    Source: Naeini, Cooper & Hauskrecht (2015), AAAI; Guo et al. (2017), ICML, with 15 bins.

    Raises:
        ValueError: the predictor gives no probabilities.

    >>> round(ece(_example()), 4)  # .9 right, .6 right, .7 wrong, .5 abstained: (.1 + .4 + .7 + .5) / 4
    0.425
    """
    confidence = _probabilities(predictions).max(axis=1)
    right = np.array([p == t for p, t in zip(predictions.predicted, predictions.truth, strict=True)], dtype=np.float64)
    # Edges are compared in float32, the precision that the probabilities are stored with: .6 is not above 9/15.
    edges = (np.arange(1, bins) / bins).astype(np.float32)
    where = np.searchsorted(edges, confidence.astype(np.float32), side="left")
    gaps = np.bincount(where, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def score(predictions: Predictions, prefix: str = "test/") -> dict[str, float]:
    """Every metric by the name that it has in MLflow; see docs/metrics.md.

    Names: `rows`, `accuracy`, `uar`, `macro_f1`, `weighted_f1`, `abstention_rate`, `log_loss` and `ece` (both absent,
    that is "n/a", where the predictor gives no probabilities), and for each label `precision/<label>`,
    `recall/<label>`, `f1/<label>`, `support/<label>` (support alone where that is 0).

    >>> sorted(score(_example(), "test/"))[:5]
    ['test/abstention_rate', 'test/accuracy', 'test/ece', 'test/f1/angry', 'test/f1/sad']
    """
    scores: dict[str, float] = {
        "rows": float(len(predictions.rows)),
        "accuracy": accuracy(predictions),
        "uar": uar(predictions),
        "macro_f1": macro_f1(predictions),
        "weighted_f1": weighted_f1(predictions),
        "abstention_rate": abstention_rate(predictions),
    }
    if predictions.gives_probabilities:
        scores["log_loss"] = log_loss(predictions)
        scores["ece"] = ece(predictions)
    for label, one in per_class(predictions).items():
        scores[f"support/{label}"] = float(one.support)
        if one.support:
            scores |= {f"precision/{label}": one.precision, f"recall/{label}": one.recall, f"f1/{label}": one.f1}
    return {prefix + name: value for name, value in scores.items()}


def _probabilities(predictions: Predictions) -> Float64Array:
    """[N, C] float64, rows scaled to sum to exactly 1."""
    if not predictions.gives_probabilities:
        raise ValueError("this predictor gives no probabilities: log-loss and ECE are n/a")
    confusion(predictions)  # the same complaints about empty predictions and strange truths as everywhere
    probabilities = predictions.probabilities.astype(np.float64)
    scaled: Float64Array = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _example() -> Predictions:
    """Four rows over two labels for the examples above: right, right, wrong, abstained."""
    from ser_bench.types import clean_rows

    return Predictions(
        rows=clean_rows("abcd"),
        truth=("angry", "angry", "sad", "sad"),
        labels=("angry", "sad"),
        probabilities=np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.5, 0.5]], dtype=np.float32),
        abstained=np.array([False, False, False, True]),
        latency_s=np.zeros(4, dtype=np.float32),
        cost_usd=np.zeros(4, dtype=np.float32),
    )
