"""Every metric of the project, each defined once.

Metrics of labels are functions of one table of confusion counts, [..., C, C + 1]: the truth by row, the answer by
column, abstentions in the last column. They are vectorised over the leading axes, so that the bootstrap of `statistics`
scores 10,000 resampled tables with the function that scores one run. Metrics of probabilities are functions of
`Predictions`. Decorators register every metric in `METRICS`, under the name that it has in MLflow.

Conventions, the same for every metric:

- The label list is that of the predictions, explicit and ordered. It is never derived from the labels that occur.
- An abstention is wrong whatever the truth is, and its probabilities are uniform (1/C).
- Predictions with failed requests have no score: a failure is no answer of the model, not even a wrong one.
- **Absent classes: a class without rows in the truth is left out of every mean over classes** (UAR, macro-F1, the macro
  average of the classification report), in a resampled table as in a whole one. `score` gives its support alone. A UAR
  over five classes is not comparable with one over six, which is why the support is logged beside it.
- **Metrics of levels are defined for predictions over ordered levels alone** (`Predictions.ordinal`). They are
  functions of the same table. An abstention counts there as the level that is farthest from the truth, as it is wrong.
- Precision, recall and F1 are 0 where their denominator is 0, as with `zero_division=0` in scikit-learn.
- A metric of a table without rows is NaN.
- Counts may be fractions (the mean over seeds). Results are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ser_bench.predictions import require_complete
from ser_bench.types import Predictions

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Counts = IntArray | Float64Array
"""Confusion counts, [..., C, C + 1]."""
ProbabilityMetric = TypeVar("ProbabilityMetric", bound=Callable[..., float])

ECE_BINS = 15
"""Equal-width bins of confidence over [0, 1], the number that Guo et al. (2017) use."""

SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Log-loss clips probabilities here (1.19e-7, so at most 15.9 nats per row): float32 near 1 resolves no less."""


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: in MLflow, after "test/"; of a metric per class also before "/<label>".
        title: in tables and figures.
        range: smallest and largest value.
        higher_is_better: None where neither direction is better (counts of rows).
        per_class: whether there is one value per label.
        needs_probabilities: whether it is undefined ("n/a") for a predictor that gives no probabilities.
        of_levels: whether it is defined for ordered levels alone.
        compute: the function; of `Predictions` if `needs_probabilities` or `needs_votes`, else of a table of counts.
        needs_votes: whether it compares with the votes of listeners (`vote_metrics`), which not all predictions carry.
    """

    name: str
    title: str
    range: tuple[float, float]
    higher_is_better: bool | None
    per_class: bool
    needs_probabilities: bool
    compute: Callable[[Any], Any]
    of_levels: bool = False
    needs_votes: bool = False


METRICS: dict[str, Metric] = {}
"""Every metric by its name, in the order of definition."""


class TableMetric(Protocol):
    """A metric of labels: one value per table of counts, or the value of a run's predictions."""

    @overload
    def __call__(self, data: Predictions, /) -> float: ...
    @overload
    def __call__(self, data: Counts, /) -> Float64Array: ...


def metric(
    title: str,
    range: tuple[float, float] = (0.0, 1.0),
    higher_is_better: bool | None = True,
    of_levels: bool = False,
) -> Callable[[Callable[[Counts], Float64Array]], TableMetric]:
    """Register a function of counts, [..., C, C + 1] → [...], under its own name; it accepts `Predictions` too."""

    def register(function: Callable[[Counts], Float64Array]) -> TableMetric:
        @wraps(function)
        def compute(data: Predictions | Counts, /) -> float | Float64Array:
            return float(function(confusion(data))) if isinstance(data, Predictions) else function(data)

        register_metric(function, title, range, higher_is_better, of_levels=of_levels)
        return compute  # type: ignore[return-value]

    return register


def class_metric(
    title: str, range: tuple[float, float] = (0.0, 1.0), higher_is_better: bool | None = True
) -> Callable[[Callable[[Counts], Float64Array]], Callable[[Counts], Float64Array]]:
    """Register a function of counts, [..., C, C + 1] → [..., C], under its own name."""

    def register(function: Callable[[Counts], Float64Array]) -> Callable[[Counts], Float64Array]:
        register_metric(function, title, range, higher_is_better, per_class=True)
        return function

    return register


def probability_metric(
    title: str, range: tuple[float, float], higher_is_better: bool
) -> Callable[[ProbabilityMetric], ProbabilityMetric]:
    """Register a function of `Predictions` that give probabilities, under its own name."""

    def register(function: ProbabilityMetric) -> ProbabilityMetric:
        register_metric(function, title, range, higher_is_better, needs_probabilities=True)
        return function

    return register


def register_metric(
    function: Callable[..., Any],
    title: str,
    range: tuple[float, float],
    higher_is_better: bool | None,
    per_class: bool = False,
    needs_probabilities: bool = False,
    of_levels: bool = False,
    needs_votes: bool = False,
) -> None:
    """Add a function to `METRICS` under its own name; the decorators call this. Arguments as in `Metric`."""
    name = function.__name__
    if name in METRICS:
        raise ValueError(f"two metrics are named {name!r}")
    METRICS[name] = Metric(
        name, title, range, higher_is_better, per_class, needs_probabilities, function, of_levels, needs_votes
    )


# The table of confusion counts.


def confusion(predictions: Predictions) -> IntArray:
    """Confusion counts of predictions, [C, C + 1]. Each row sums to the support of its class.

    Raises:
        ValueError: if there are no rows, or a truth is not in the label list (new audio has no truth).
        IncompleteRunError: if a request failed.

    >>> confusion(_example())
    array([[2, 0, 0],
           [1, 0, 1]])
    """
    return confusion_of(*label_indices(predictions), len(predictions.labels))


def label_indices(predictions: Predictions) -> tuple[IntArray, IntArray]:
    """Truth and answer of every row as label indices, two arrays [N]; an abstention has index C.

    Raises:
        ValueError, IncompleteRunError: as `confusion`.
    """
    if not predictions.rows:
        raise ValueError("there are no predictions to score")
    require_complete(predictions)
    index = {label: i for i, label in enumerate(predictions.labels)}
    unknown = sorted(set(predictions.truth) - set(index))
    if unknown:
        raise ValueError(f"truth {unknown[0]!r} is not one of the labels {', '.join(predictions.labels)}")
    truth = np.array([index[label] for label in predictions.truth], dtype=np.int64)
    answers = np.array([index.get(label, len(index)) for label in predictions.predicted], dtype=np.int64)
    return truth, answers


def confusion_of(
    truth: npt.ArrayLike, answers: npt.ArrayLike, classes: int, groups: npt.ArrayLike | None = None
) -> IntArray:
    """Confusion counts of label indices.

    Args:
        truth: [N] label indices, 0 to C − 1.
        answers: [N] label indices, 0 to C − 1, or C for an abstention.
        classes: C.
        groups: [N] group indices, 0 to G − 1, for one table per group.

    Returns:
        [C, C + 1], or [G, C, C + 1] with groups.

    Raises:
        ValueError: if an index is outside its range.

    >>> confusion_of([0, 0, 1, 1], [0, 0, 0, 2], classes=2)
    array([[2, 0, 0],
           [1, 0, 1]])
    """
    truths, columns = np.asarray(truth, dtype=np.int64), np.asarray(answers, dtype=np.int64)
    group = np.zeros_like(truths) if groups is None else np.asarray(groups, dtype=np.int64)
    for name, indices, limit in (("truth", truths, classes), ("answers", columns, classes + 1)):
        if indices.size and not (indices.min() >= 0 and indices.max() < limit):
            raise ValueError(f"{name}: a label index is outside 0 to {limit - 1}")
    tables = int(group.max(initial=0)) + 1
    cells = (group * classes + truths) * (classes + 1) + columns
    counts = np.bincount(cells, minlength=tables * classes * (classes + 1)).reshape(tables, classes, classes + 1)
    return counts[0] if groups is None else counts


def fractional_confusion(truth: npt.ArrayLike, answers: npt.ArrayLike) -> Float64Array:
    """Confusion counts, [C, C + 1], of rows whose answer is shared between labels (tied votes).

    Args:
        truth: [N] label indices, 0 to C − 1.
        answers: [N, C + 1] share of each answer, abstention last; each row sums to 1.

    >>> fractional_confusion([0, 1], [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 1. ]])
    """
    shares = np.asarray(answers, dtype=np.float64)
    counts = np.zeros((shares.shape[1] - 1, shares.shape[1]))
    np.add.at(counts, np.asarray(truth, dtype=np.int64), shares)
    return counts


# Metrics of each class.


@class_metric("support", (0.0, np.inf), higher_is_better=None)
def support(counts: Counts) -> Float64Array:
    """Number of rows whose truth is the class, TP + FN: [..., C, C + 1] → [..., C]. Range [0, N].

    >>> support(confusion(_example()))
    array([2., 2.])
    """
    return np.asarray(counts.sum(-1), dtype=np.float64)


@class_metric("precision")
def precision(counts: Counts) -> Float64Array:
    """Share of the answers with a class that are right, TP / (TP + FP): [..., C, C + 1] → [..., C]. Range [0, 1].

    0 for a class that is never predicted. Source: van Rijsbergen (1979), Information Retrieval, chapter 7.

    >>> precision(confusion(_example()))
    array([0.66666667, 0.        ])
    """
    return _ratio(_hits(counts), _answered(counts))


@class_metric("recall")
def recall(counts: Counts) -> Float64Array:
    """Share of the rows of a class that are answered rightly, TP / (TP + FN): [..., C, C + 1] → [..., C].

    Range [0, 1]; 0 for a class without rows. Source: van Rijsbergen (1979), Information Retrieval, chapter 7.

    >>> recall(confusion(_example()))
    array([1., 0.])
    """
    return _ratio(_hits(counts), support(counts))


@class_metric("F1")
def f1(counts: Counts) -> Float64Array:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN): [..., C, C + 1] → [..., C].

    Range [0, 1]; 0 for a class that neither occurs nor is predicted. An abstention is a false negative of its class
    and a false positive of none. Source: van Rijsbergen (1979), Information Retrieval, chapter 7.

    >>> f1(confusion(_example()))
    array([0.8, 0. ])
    """
    return _ratio(2 * _hits(counts), support(counts) + _answered(counts))


class ClassScore(NamedTuple):
    """The metrics of one class; the first three in [0, 1]."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of rows whose truth is this class."""


def per_class(predictions: Predictions) -> dict[str, ClassScore]:
    """Precision, recall, F1 and support of every label, in label order.

    >>> per_class(_example())["angry"]
    ClassScore(precision=0.6666666666666666, recall=1.0, f1=0.8, support=2)
    """
    counts = confusion(predictions)
    columns = (precision(counts).tolist(), recall(counts).tolist(), f1(counts).tolist(), counts.sum(-1).tolist())
    return {label: ClassScore(*values) for label, *values in zip(predictions.labels, *columns, strict=True)}


# Metrics over all rows.


@metric("rows", (1.0, np.inf), higher_is_better=None)
def rows(counts: Counts) -> Float64Array:
    """Number of rows, N.

    >>> rows(_example())
    4.0
    """
    return np.asarray(counts.sum((-1, -2)), dtype=np.float64)


@metric("UAR")
def uar(counts: Counts) -> Float64Array:
    """Unweighted average recall: (1 / K) Σ_k TP_k / (TP_k + FN_k), over the K classes that have rows in the truth.

    Range [0, 1]; the chance level is 1/K whatever the class sizes. Also called balanced accuracy, or macro recall. It
    is not symmetric in truth and prediction.
    Source: Schuller, Steidl & Batliner (2009), The INTERSPEECH 2009 Emotion Challenge.

    >>> uar(_example())
    0.5
    """
    return mean_over_classes(recall(counts), counts)


@metric("accuracy")
def accuracy(counts: Counts) -> Float64Array:
    """Share of rows answered rightly: Σ TP / N. Range [0, 1].

    >>> accuracy(_example())
    0.5
    """
    return _ratio(_hits(counts).sum(-1), rows(counts), empty=np.nan)


@metric("macro-F1")
def macro_f1(counts: Counts) -> Float64Array:
    """Macro-F1: the mean of F1 over the classes that have rows in the truth. Range [0, 1].

    It is the mean of the classes' F1, not the F1 of mean precision and mean recall. Source for the difference:
    Opitz & Burst (2019), arXiv 1911.03347.

    >>> macro_f1(_example())
    0.4
    """
    return mean_over_classes(f1(counts), counts)


@metric("weighted F1")
def weighted_f1(counts: Counts) -> Float64Array:
    """F1 weighted by support: Σ_k support_k · F1_k / N. Range [0, 1]. Source: scikit-learn's `average="weighted"`.

    >>> weighted_f1(_example())
    0.4
    """
    return _ratio((support(counts) * f1(counts)).sum(-1), rows(counts), empty=np.nan)


@metric("abstention rate", higher_is_better=False)
def abstention_rate(counts: Counts) -> Float64Array:
    """Share of rows without an answer: abstentions / N. Range [0, 1].

    >>> abstention_rate(_example())
    0.25
    """
    return _ratio(counts[..., -1].sum(-1).astype(np.float64), rows(counts), empty=np.nan)


# Metrics of ordered levels.


@metric("quadratic-weighted kappa", (-1.0, 1.0), of_levels=True)
def quadratic_kappa(counts: Counts) -> Float64Array:
    """Agreement beyond chance of ordered levels, by squared distance: 1 − Σ_jk d² O_jk / Σ_jk d² E_jk, d = j − k.

    O are the counts, and E those of independent truth and answer with the same totals. Range [−1, 1]: 1 if all answers
    are right, 0 if answers do not depend on the truth (so for every constant answer). NaN if truth and answers are all
    one level. An abstention counts as the farthest level. Source: Cohen (1968), Psychological Bulletin 70, 213-220.

    >>> round(float(quadratic_kappa(_levels_example())), 4)  # 1 − 3 / (42 / 6)
    0.5714
    """
    table = _levels_table(counts)
    squared = _distances(table.shape[-1]) ** 2
    by_chance = table.sum(-1)[..., :, None] * table.sum(-2)[..., None, :]
    whole = _ratio((squared * by_chance).sum((-1, -2)), table.sum((-1, -2)), empty=np.nan)
    return 1 - _ratio((squared * table).sum((-1, -2)), whole, empty=np.nan)


@metric("Spearman", (-1.0, 1.0), of_levels=True)
def spearman(counts: Counts) -> Float64Array:
    """Rank correlation of the true and the predicted level: Pearson's correlation of their mean ranks.

    Range [−1, 1]; 0 for a constant answer, which orders nothing; NaN if all truths are one level. An abstention counts
    as the farthest level. Source: Spearman (1904), American Journal of Psychology 15, 72-101; ties by mean ranks.

    >>> round(float(spearman(_levels_example())), 4)
    0.5809
    """
    table = _levels_table(counts)
    truth, answers = (_centred_ranks(table.sum(axis)) for axis in (-1, -2))
    products = (table * truth[..., :, None] * answers[..., None, :]).sum((-1, -2))
    of_truth, of_answers = (table.sum(-1) * truth**2).sum(-1), (table.sum(-2) * answers**2).sum(-1)
    correlation = _ratio(products, np.sqrt(of_truth * of_answers))
    return np.where(of_truth > 0, correlation, np.nan)


@metric("MAE (levels)", (0.0, np.inf), higher_is_better=False, of_levels=True)
def mae_levels(counts: Counts) -> Float64Array:
    """Mean absolute distance of the predicted from the true level, in levels: Σ_jk |j − k| O_jk / N.

    Range [0, C − 1]. An abstention counts as the farthest level. Source: Baccianella, Esuli & Sebastiani (2009),
    Evaluation Measures for Ordinal Regression, ISDA.

    >>> float(mae_levels(_levels_example()))
    0.5
    """
    table = _levels_table(counts)
    distance = (_distances(table.shape[-1]) * table).sum((-1, -2))
    return _ratio(distance, table.sum((-1, -2)), empty=np.nan)


def expected_levels(predictions: Predictions) -> Float64Array:
    """Expected level of every row, [N]: Σ_k k · p(k), levels counted from 0. Range [0, C − 1].

    >>> from dataclasses import replace
    >>> expected_levels(replace(_example(), ordinal=True)).round(2).tolist()
    [0.1, 0.4, 0.3, 0.5]
    """
    probabilities = predictions.probabilities.astype(np.float64)
    return np.asarray(probabilities @ np.arange(len(predictions.labels)) / probabilities.sum(axis=1))


def level_range(name: str, levels: int) -> tuple[float, float]:
    """Smallest and largest value of a metric of levels, for C levels.

    >>> level_range("mae_levels", 3), level_range("spearman", 3)
    ((0.0, 2.0), (-1.0, 1.0))
    """
    low, high = METRICS[name].range
    return low, min(high, levels - 1.0)


def _levels_table(counts: Counts) -> Float64Array:
    """[..., C, C]: counts with each abstention moved to the level farthest from the truth; two of them share it."""
    classes = counts.shape[-2]
    distance = _distances(classes)
    farthest = distance == distance.max(axis=1, keepdims=True)
    shares = farthest / farthest.sum(axis=1, keepdims=True)
    return np.asarray(counts[..., :-1] + counts[..., -1:] * shares, dtype=np.float64)


def _distances(classes: int) -> Float64Array:
    """[C, C]: |j − k|."""
    levels = np.arange(classes, dtype=np.float64)
    return np.asarray(np.abs(levels[:, None] - levels[None, :]))


def _centred_ranks(totals: Float64Array) -> Float64Array:
    """[..., C]: mean rank of each level minus the mean of all ranks, from the number of rows of each level [..., C]."""
    below = np.cumsum(totals, axis=-1) - totals
    return np.asarray(below + totals / 2 - totals.sum(-1, keepdims=True) / 2)


def uar_of(truth: npt.ArrayLike, answers: npt.ArrayLike, classes: int) -> float:
    """UAR of label indices; arguments as in `confusion_of`.

    >>> uar_of([0, 0, 1, 1], [0, 0, 0, 1], classes=3)
    0.75
    """
    return float(uar(confusion_of(truth, answers, classes)))


def mean_over_classes(values: Float64Array, counts: Counts) -> Float64Array:
    """Mean of [..., C] values over the classes that have rows in [..., C, C + 1] counts; NaN where none has."""
    present = support(counts) > 0
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1).astype(np.float64), empty=np.nan)


# Metrics of probabilities.


@probability_metric("log-loss", (0.0, float(-np.log(SMALLEST_PROBABILITY))), higher_is_better=False)
def log_loss(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the truth: −(1 / N) Σ_i ln p_i(truth_i), in nats.

    Range [0, 15.9]: rows are scaled to sum to 1, then probabilities are clipped to `SMALLEST_PROBABILITY`. Uniform
    probabilities, and so every abstention, cost ln C. Source: Good (1952), Rational Decisions.

    Raises:
        ValueError: if the predictor gives no probabilities, and as `confusion`.

    >>> round(log_loss(_example()), 4)  # (−ln .9 − ln .6 − ln .3 − ln .5) / 4
    0.6283
    """
    probabilities = scaled_probabilities(predictions)
    truth, _ = label_indices(predictions)
    likelihood = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0)).mean())


@probability_metric("ECE", (0.0, 1.0), higher_is_better=False)
def ece(predictions: Predictions, bins: int = ECE_BINS) -> float:
    """Expected calibration error: Σ_b (n_b / N) · |accuracy_b − confidence_b|, over equal-width bins b of confidence.

    Confidence is the largest probability of a row; bin b of B is ((b − 1)/B, b/B]. Range [0, 1]. It is 0 if the
    accuracy in every bin equals the mean confidence. An abstention has confidence 1/C and is wrong.
    Source: Naeini, Cooper & Hauskrecht (2015), AAAI; Guo et al. (2017), ICML, with 15 bins.

    Raises:
        ValueError: if the predictor gives no probabilities, and as `confusion`.

    >>> round(ece(_example()), 4)  # .9 right, .6 right, .7 wrong, .5 abstained: (.1 + .4 + .7 + .5) / 4
    0.425
    """
    confidence = scaled_probabilities(predictions).max(axis=1)
    truth, answers = label_indices(predictions)
    right = (truth == answers).astype(np.float64)
    # Edges are compared in float32, the precision of stored probabilities: there .6 is not above 9/15.
    edges = (np.arange(1, bins) / bins).astype(np.float32)
    bin_of = np.searchsorted(edges, confidence.astype(np.float32), side="left")
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def is_defined(entry: Metric, predictions: Predictions) -> bool:
    """Whether a metric is defined for predictions: for their kind of labels, of probabilities and of votes.

    Predictions that are votes themselves (source "votes") are not compared with votes.
    """
    if entry.needs_votes and (predictions.votes is None or predictions.source == "votes"):
        return False
    if entry.needs_probabilities and not predictions.gives_probabilities:
        return False
    return predictions.ordinal or not entry.of_levels


def score(predictions: Predictions, prefix: str = "test/") -> dict[str, float]:
    """The value of every registered metric, by the name that it has in MLflow (docs/metrics.md).

    A metric per class is named `<metric>/<label>`; for a label without rows, only the support is given. Metrics of
    probabilities are missing ("n/a") if the predictor gives none. Metrics of levels are missing if the labels are not
    ordered, and soft-label metrics if there are no votes; both also where they are not defined.

    Raises:
        ValueError: as `confusion`.

    >>> sorted(score(_example(), "test/"))[:5]
    ['test/abstention_rate', 'test/accuracy', 'test/ece', 'test/f1/angry', 'test/f1/sad']
    """
    counts = confusion(predictions)
    present = counts.sum(-1) > 0
    scores: dict[str, float] = {}
    for entry in METRICS.values():
        if not is_defined(entry, predictions):
            continue
        if entry.of_levels or entry.needs_votes:
            value = float(entry.compute(counts if entry.of_levels else predictions))
            scores |= {} if np.isnan(value) else {entry.name: value}
        elif entry.needs_probabilities:
            scores[entry.name] = entry.compute(predictions)
        elif entry.per_class:
            values = zip(predictions.labels, entry.compute(counts).tolist(), present, strict=True)
            scores |= {
                f"{entry.name}/{label}": value for label, value, shown in values if shown or entry.name == "support"
            }
        else:
            scores[entry.name] = float(entry.compute(counts))
    return {f"{prefix}{name}": value for name, value in scores.items()}


def _hits(counts: Counts) -> Float64Array:
    """[..., C] true positives."""
    return np.diagonal(counts[..., :-1], axis1=-2, axis2=-1).astype(np.float64)


def _answered(counts: Counts) -> Float64Array:
    """[..., C] rows answered with the class, TP + FP."""
    return np.asarray(counts[..., :-1].sum(-2), dtype=np.float64)


def _ratio(part: Float64Array, whole: Float64Array, empty: float = 0.0) -> Float64Array:
    """Elementwise part / whole, `empty` where whole is 0."""
    result = np.full(np.shape(whole), empty, dtype=np.float64)
    return np.divide(part, whole, out=result, where=np.asarray(whole) > 0)


def scaled_probabilities(predictions: Predictions) -> Float64Array:
    """Return [N, C] in float64, every row scaled to sum to 1.

    Raises:
        ValueError: if the predictor gives no probabilities, and as `confusion`.
    """
    if not predictions.gives_probabilities:
        raise ValueError("this predictor gives no probabilities: log-loss and ECE are n/a")
    label_indices(predictions)  # refuses empty predictions and unknown truths
    probabilities = predictions.probabilities.astype(np.float64)
    scaled: Float64Array = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


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


def _levels_example() -> IntArray:
    """Counts of six rows over three levels for the examples above: three right, three one level off."""
    return np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
