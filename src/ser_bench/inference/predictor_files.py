"""The files of one trained predictor, from which it can be loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ser_bench import stored_predictors, tracking
from ser_bench.config import Config
from ser_bench.evaluation.calibration import CALIBRATION_FILE
from ser_bench.predictions import from_frame
from ser_bench.tracking import StoredRun


@dataclass(frozen=True)
class PredictorFiles:
    """What loading a trained predictor needs; no store is needed any more.

    Attributes:
        name: name of the run, for example "cnn speaker fold 0".
        run_id: id of the run that trained it.
        cfg: configuration of that run.
        labels: the label list, the column order of probabilities.
        folder: what `Predictor.save` wrote.
        calibration: the run's calibration.json; None if it has none.
        longest_s: length of the longest clip of the run, seconds; 0 if unknown.
        members: name within the fusion → files of each run that a fusion combines; {} for other predictors.
        keep: an object that must exist as long as the files, such as a temporary folder.
    """

    name: str
    run_id: str
    cfg: Config = field(repr=False)
    labels: tuple[str, ...]
    folder: Path
    calibration: Path | None = None
    longest_s: float = 0.0
    members: dict[str, PredictorFiles] = field(default_factory=dict)
    keep: object = field(default=None, repr=False, compare=False)

    @classmethod
    def of_run(cls, stored: StoredRun) -> PredictorFiles:
        """Return the files of a stored run, and of the runs that it combines.

        Raises:
            TrackingError: the predictor or the configuration of the run was changed after it had ended.
            ArtifactError: a file is missing or damaged.
            RunNotFoundError: a member of a fusion is no longer in the store.
        """
        calibrated = [CALIBRATION_FILE] if CALIBRATION_FILE in stored.artifact_names() else []
        tracking.refuse_changed(stored, *stored_predictors.RESTORED, *calibrated)
        members = stored.members()
        frame = stored.frame()
        return cls(
            name=stored.name,
            run_id=stored.run_id,
            cfg=stored.config(),
            labels=from_frame(frame).labels,
            folder=stored.artifact("predictor"),
            calibration=stored.artifact(CALIBRATION_FILE) if calibrated else None,
            longest_s=float(frame["duration_s"].max()) if len(frame) else 0.0,
            members={
                name: cls.of_run(run)
                for name, run in zip(stored_predictors.member_names(members), members, strict=True)
            },
            keep=stored,
        )
