"""A network as an MLflow model in `torch.export`'s pt2 format: no pickled code, with signature and input example."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench.config import TrackingConfig
from ser_bench.tracking.logged_models import logging_model
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    import torch

MODEL_NAME = "model"
REQUIREMENTS = ("mlflow", "torch", "numpy")


def log_torch_model(cfg: TrackingConfig, run_id: str, module: torch.nn.Module, example: FloatArray) -> str:
    """Log `module` as the run's MLflow model "model" and return the id of the model.

    It can be loaded with `mlflow.pytorch.load_model("runs:/<run>/model")` and with `mlflow.pyfunc.load_model`.

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

    if len(example) < 2:
        raise ValueError("the input example of a network needs at least two rows: one row fixes the batch size to one")
    module.eval()
    with torch.no_grad():
        answer = module(torch.from_numpy(example)).numpy()
    with logging_model(cfg, run_id, MODEL_NAME) as (folder, described):
        _save(folder, described, module, example, answer)
    return str(described.model_id)


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
