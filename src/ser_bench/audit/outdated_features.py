"""Whether this version still computes the features that a stored predictor was fitted to."""

from __future__ import annotations

from ser_bench import predictors
from ser_bench.predictors import ScalesFeatures
from ser_bench.tracking import StoredRun


def outdated_features(stored: StoredRun) -> str:
    """Return why this version computes other features than the run was fitted to; "" if it does not.

    The features of a fusion are those of its members.

    Raises:
        TrackingError: a predictor or a member is missing.
        SerBenchError: a stored predictor cannot be read.
    """
    name = stored.config().model.name
    if predictors.has_capability(name, ScalesFeatures):
        reason: str = predictors.predictor_class(name).reason_outdated(stored.artifact("predictor"))
        if reason:
            return reason
    return next((reason for reason in map(outdated_features, stored.members()) if reason), "")
