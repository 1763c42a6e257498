"""MLflow models of a run: begun, written, finished and linked with the run.

`mlflow.<flavour>.log_model` is not used because it needs MLflow's global active run.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ser_bench.config import TrackingConfig
from ser_bench.file_access import access_errors
from ser_bench.tracking.mlflow_store import client, errors

READY: Literal["READY"] = "READY"


@contextlib.contextmanager
def logging_model(cfg: TrackingConfig, run_id: str, name: str) -> Iterator[tuple[Path, Any]]:
    """Give a folder that does not exist yet and MLflow's description of the model to a `with` block that saves it.

    A run that was killed here and is resumed writes into the model that it has begun.

    Args:
        cfg: the store.
        run_id: the run.
        name: of the model within the run.

    Raises:
        TrackingError: the store cannot be written.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    mlflow = client(cfg)
    with errors(cfg):
        run = mlflow.get_run(run_id)
        experiment = run.info.experiment_id
        logged = _logged(mlflow, experiment, run_id, name)
        if logged is None:
            logged = mlflow.create_logged_model(experiment, name=name, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            described = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            )
            with access_errors(Path(scratch)):
                yield folder, described
            mlflow.log_model_artifacts(logged.model_id, str(folder))
        mlflow.finalize_logged_model(logged.model_id, READY)
        linked = run.outputs.model_outputs if run.outputs else []
        if logged.model_id not in {output.model_id for output in linked}:
            mlflow.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def finished_model(cfg: TrackingConfig, run_id: str, name: str) -> str | None:
    """Return the id of a run's MLflow model that is complete; None if there is none.

    Raises:
        TrackingError: the store cannot be read.
    """
    mlflow = client(cfg)
    with errors(cfg):
        logged = _logged(mlflow, mlflow.get_run(run_id).info.experiment_id, run_id, name)
    return None if logged is None or str(logged.status) != READY else str(logged.model_id)


def _logged(mlflow: Any, experiment: str, run_id: str, name: str) -> Any:
    found = mlflow.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model for model in found if model.name == name), None)
