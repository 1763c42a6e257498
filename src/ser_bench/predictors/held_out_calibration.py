"""The calibration of a trained predictor, from its predictions of the validation speakers; never of test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ser_bench.config import Config
from ser_bench.evaluation import calibration
from ser_bench.evaluation.calibration import Calibration
from ser_bench.predictors.capabilities import PredictsHeldOut
from ser_bench.types import Predictor, Row

TAG = "calibration"
"""Tag of a run: its temperature, or why it has none."""


def calibrate(
    cfg: Config, predictor: Predictor, val: Sequence[Row], speakers: Mapping[str, str]
) -> tuple[Calibration | None, str]:
    """Return the calibration and a text that describes it; or None and the reason.

    Args:
        cfg: of the run.
        predictor: after `fit`.
        val: the validation rows that were given to `fit`.
        speakers: clip id → speaker.
    """
    reason = _reason_without(cfg, predictor, val)
    if reason or not isinstance(predictor, PredictsHeldOut):
        return None, f"none: {reason}"
    held_out = predictor.held_out(val)
    if not held_out.gives_probabilities:
        return None, f"none: model={predictor.name} gives no probabilities"
    found = calibration.fit(held_out, speakers)
    return found, (
        f"temperature {found.temperature:.3g}, of {found.rows:,} rows of {found.speakers} validation speakers"
    )


def _reason_without(cfg: Config, predictor: Predictor, val: Sequence[Row]) -> str:
    if not isinstance(predictor, PredictsHeldOut):
        return f"model={predictor.name} has no predictions of validation rows that it neither uses nor pays for"
    if not val:
        return f"split={cfg.split.protocol.value} has no validation rows here"
    if cfg.shuffle_labels:
        return "the labels were shuffled"
    return predictor.reason_without_held_out(cfg)
