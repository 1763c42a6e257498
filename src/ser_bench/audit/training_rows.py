"""Check of the rows that the training has read, by what the run has recorded while the predictor was fitted.

Two records exist: the rows of every step of the optimiser, which the training loop of networks counts, and the rows
whose labels or votes were requested from the feature store during `fit`, by any predictor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ser_bench.audit.finding import Finding
from ser_bench.types import Row, Split

NAME = "training_rows"
CURVE_PROTOCOL = "paper"
"""Protocol that computes metrics of the test rows in every epoch, so that `fit` requests their labels."""


def check_training_rows(
    optimised: Sequence[tuple[Row, int]], labels_read: Collection[Row] | None, split: Split
) -> Finding:
    """Return a leak if the optimiser read other rows than training rows, or if `fit` read labels of test clips.

    Args:
        optimised: the rows that the optimiser read and how often; () if there is no record.
        labels_read: the rows whose labels or votes `fit` requested; None if there is no record.
        split: the rows.
    """
    if not optimised and labels_read is None:
        return Finding(NAME, "not checked: the run has no record of the rows that its training has read")
    train, tested = set(split.train), set(split.test)
    rows = {row for row, _ in optimised}
    from_test, from_elsewhere = (rows & tested) - train, rows - train - tested
    parts = [_of_optimiser(optimised, split)] if optimised and not rows - train else []
    if from_test:
        parts.append(f"the optimiser read {len(from_test):,} test rows")
    if from_elsewhere:
        parts.append(f"the optimiser read {len(from_elsewhere):,} rows that are neither training nor test rows")
    allowed = {row.clip_id for row in (*split.train, *split.val)}
    clips = {row.clip_id for row in labels_read or ()} & {row.clip_id for row in split.test} - allowed
    announced = split.protocol == CURVE_PROTOCOL
    if labels_read is not None:
        parts.append(_of_labels(len(clips), announced))
    leaked = from_test | {row for row in split.test if row.clip_id in clips and not announced}
    share = len(leaked) / len(split.test) if split.test else 0.0
    return Finding(NAME, "; ".join(parts), share or float(bool(from_elsewhere)), bool(leaked or from_elsewhere))


def _of_optimiser(optimised: Sequence[tuple[Row, int]], split: Split) -> str:
    times = {count for _, count in optimised}
    complete = len(optimised) == len(split.train) and len(times) == 1
    if complete:
        return (
            f"in {times.pop()} epochs the optimiser read each of the {len(split.train):,} training rows once per "
            "epoch, and no other row"
        )
    return f"the optimiser read {len(optimised):,} of {len(split.train):,} training rows, and no other row"


def _of_labels(clips: int, announced: bool) -> str:
    if announced:
        return "labels of test clips are read for the test curve"
    return f"fitting read the labels of {clips:,} test clips" if clips else "fitting read no label of a test clip"
