"""Check of the logged scores: they must be those of the stored predictions, computed again."""

from __future__ import annotations

from collections.abc import Mapping

from ser_bench.audit.finding import Finding
from ser_bench.config import Protocol
from ser_bench.evaluation.calibration import Calibration
from ser_bench.evaluation.run_scores import BOUNDS, TEST, TEST_CLEAN, score
from ser_bench.tracking import storable
from ser_bench.types import Predictions

TOLERANCE = 1.5e-6
"""Largest difference of a score: logged scores are rounded to six decimals, or to four digits below 0.01."""
BOUNDS_TOLERANCE = 5e-3
"""Largest difference of a bound of an interval: other versions of NumPy may draw other resamples."""
SHOWN = 3
"""Number of differing scores that the finding lists."""


def check_scores(
    predictions: Predictions,
    protocol: str,
    speakers: Mapping[str, str],
    logged: Mapping[str, float],
    calibration: Calibration | None = None,
) -> Finding:
    """Return a leak if a logged score is not that of the stored predictions.

    A score that the run did not log is not checked, because an older version of this package may not have had it. A
    logged score that this version cannot compute is named.

    Args:
        predictions: of the test rows, as stored.
        protocol: of the split.
        speakers: clip id → speaker, in the corpus.
        logged: the run's metrics.
        calibration: of the run, as stored.
    """
    of_test = {name: value for name, value in logged.items() if name.startswith((TEST, TEST_CLEAN))}
    if not of_test:
        return Finding("scores", "not checked: the run has logged no scores")
    try:
        computed = storable(score(predictions, Protocol(protocol), speakers, calibration))
    except ValueError as error:  # no rows, or labels that are not in the label list
        return Finding("scores", f"the stored predictions cannot be scored: {error}", 1.0, leak=True)
    common = sorted(set(computed) & set(of_test))
    different = [name for name in common if not _agree(name, of_test[name], computed[name])]
    if different:
        different.sort(key=lambda name: not name.endswith(("/uar", "/accuracy")))
        shown = [f"{name} {of_test[name]:g}, and {computed[name]:g} by predictions.parquet" for name in different]
        more = f", and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        text = f"{len(different)} of {len(common)} logged scores are not those of the stored predictions: "
        return Finding("scores", text + "; ".join(shown[:SHOWN]) + more, 1.0, leak=True)
    unknown = len(of_test) - len(common)
    text = f"{len(common)} logged scores are those of the stored predictions"
    return Finding("scores", text + (f"; {unknown} others are not scores of this version" if unknown else ""), 0.0)


def _agree(name: str, logged: float, computed: float) -> bool:
    if logged != logged or computed != computed:  # not a number
        return logged != logged and computed != computed
    return abs(logged - computed) <= (BOUNDS_TOLERANCE if name.endswith(BOUNDS) else TOLERANCE)
