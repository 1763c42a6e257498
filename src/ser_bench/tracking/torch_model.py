"""A network as an MLflow model in `torch.export`'s pt2 format: no pickled code, with signature and input example."""

from __future__ import annotations

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench.config import TrackingConfig
from ser_bench.file_access import access_errors
from ser_bench.tracking.mlflow_store import client, errors
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    import torch

MODEL_NAME = "model"
REQUIREMENTS = ("mlflow", "torch", "numpy")


def log_torch_model(cfg: TrackingConfig, run_id: str, module: torch.nn.Module, example: FloatArray) -> str:
    """Log `module` as the run's MLflow model "model" and return the id of the model.

    It can be loaded with `mlflow.pytorch.load_model("runs:/<run>/model")` and with `mlflow.pyfunc.load_model`.
    `mlflow.pytorch.log_model` is not used because it needs MLflow's global active run.

    Args:
        cfg: the store.
        run_id: the run.
        module: on the CPU, in evaluation mode; [N, D] → [N, C].
        example: [N, D] float32, N ≥ 2: with one row the exporter would fix the batch size to one.

    Raises:
        ValueError: the example has fewer than two rows.
        TrackingError: the store cannot be written.
    """
    import torch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if len(example) < 2:
        raise ValueError("the input example of a network needs at least two rows: one row fixes the batch size to one")
    module.eval()
    with torch.no_grad():
        answer = module(torch.from_numpy(example)).numpy()
    mlflow = client(cfg)
    with errors(cfg):
        run = mlflow.get_run(run_id)
        experiment = run.info.experiment_id
        # A run that was killed here and is resumed writes into the model that it has begun.
        earlier = mlflow.search_logged_models([experiment], f"source_run_id = '{run_id}'")
        logged = next((model for model in earlier if model.name == MODEL_NAME), None)
        if logged is None:
            logged = mlflow.create_logged_model(experiment, name=MODEL_NAME, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / MODEL_NAME
            described = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            )
            with access_errors(Path(scratch)):
                _save(folder, described, module, example, answer)
            mlflow.log_model_artifacts(logged.model_id, str(folder))
        mlflow.finalize_logged_model(logged.model_id, "READY")
        linked = run.outputs.model_outputs if run.outputs else []
        if logged.model_id not in {output.model_id for output in linked}:
            mlflow.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _save(folder: Path, described: Any, module: torch.nn.Module, example: FloatArray, answer: FloatArray) -> None:
    import mlflow.pytorch
    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        # A GRU has a second list of its weights, which the exporter takes for attributes that are not parameters.
        warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
        mlflow.pytorch.save_model(
            module,
            path=str(folder),
            mlflow_model=described,
            signature=infer_signature(example, answer),
            input_example=example,
            serialization_format="pt2",
            # Without this MLflow loads the model in a new process to find out what it imports.
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
