"""The predictor of a run as an MLflow model that takes audio: when one is logged, and what goes into it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from ser_bench import predictors
from ser_bench.config import Config
from ser_bench.inference.bundle import write_bundle
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.predictors import AnswersFromFile, Need
from ser_bench.tracking import StoredRun
from ser_bench.tracking.audio_model import MODEL_NAME, log_model_folder
from ser_bench.tracking.model_requirements import model_requirements

log = logging.getLogger(__name__)


def log_audio_model(stored: StoredRun, card: str | None = None) -> str:
    """Log the run's MLflow model "audio_model" and return its id; "" if there can be none, which one line of log says.

    A predictor that needs votes of listeners has none, and neither have imported predictions. Neither has any predictor
    where this package runs without being installed, because its requirements are not known then.

    Args:
        stored: a run whose predictor is logged.
        card: its model card, Markdown.

    Raises:
        TrackingError: the store cannot be written, or files of the run were changed.
        ArtifactError: a file of the run is missing or damaged.
    """
    files = PredictorFiles.of_run(stored)
    configurations = list(_configurations(files))
    if any(predictors.has_capability(cfg.model.name, AnswersFromFile) for cfg in configurations):
        log.info("model    no MLflow model %s: imported predictions come without their model", MODEL_NAME)
        return ""
    if any(needs_votes(cfg) for cfg in configurations):
        log.info("model    no MLflow model %s: new audio has no votes of listeners", MODEL_NAME)
        return ""
    try:
        requirements = model_requirements(configurations)
    except PackageNotFoundError as error:
        log.warning("warning  no MLflow model %s: %s is not installed; pip install it", MODEL_NAME, error.name)
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        write_bundle(files, bundle, card)
        return log_model_folder(stored, bundle, requirements)


def needs_votes(cfg: Config) -> bool:
    """Return whether a predictor needs votes of listeners, which new audio does not have."""
    return Need.votes in predictors.predictor_class(cfg.model.name).needs


def _configurations(files: PredictorFiles) -> Iterator[Config]:
    yield files.cfg
    for member in files.members.values():
        yield from _configurations(member)
