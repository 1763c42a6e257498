"""The predictor of a run as an MLflow model that takes audio: when one is logged, and what goes into it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ser_bench import predictors
from ser_bench.config import Config
from ser_bench.inference.bundle import write_bundle
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.predictors import Need
from ser_bench.tracking import StoredRun
from ser_bench.tracking.audio_model import log_model_folder
from ser_bench.tracking.model_requirements import model_requirements


def log_audio_model(stored: StoredRun, card: str | None = None) -> str:
    """Log the run's MLflow model "audio_model" and return its id; "" if the predictor cannot predict new audio.

    Args:
        stored: a run whose predictor is logged.
        card: its model card, Markdown.

    Raises:
        TrackingError: the store cannot be written, or files of the run were changed.
        ArtifactError: a file of the run is missing or damaged.
    """
    files = PredictorFiles.of_run(stored)
    configurations = list(_configurations(files))
    if any(needs_votes(cfg) for cfg in configurations):
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        write_bundle(files, bundle, card)
        return log_model_folder(stored, bundle, model_requirements(configurations))


def needs_votes(cfg: Config) -> bool:
    """Return whether a predictor needs votes of listeners, which new audio does not have."""
    return Need.votes in predictors.predictor_class(cfg.model.name).needs


def _configurations(files: PredictorFiles) -> Iterator[Config]:
    yield files.cfg
    for member in files.members.values():
        yield from _configurations(member)
