"""The parent run of a sweep or of a comparison, and its children."""

from __future__ import annotations

from collections.abc import Mapping

from ser_bench.config import TrackingConfig
from ser_bench.redaction import redact
from ser_bench.tracking.mlflow_store import client, errors, experiment_id
from ser_bench.tracking.run_description import source_tags

PARENT_TAG = "mlflow.parentRunId"
ADOPTED = "adopted."
"""Prefix of tags of a parent. Each names a finished run of another sweep that this sweep did not have to repeat."""


def start_parent(cfg: TrackingConfig, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a parent run and return its id, which children get as their `parent`.

    Raises:
        TrackingError: the store cannot be written.
    """
    experiment = experiment_id(cfg, experiment)
    all_tags = {"kind": "sweep"} | source_tags() | dict(tags)
    with errors(cfg):
        run = client(cfg).create_run(
            experiment, run_name=redact(name), tags={key: redact(value) for key, value in all_tags.items()}
        )
    return str(run.info.run_id)


def end_parent(cfg: TrackingConfig, run_id: str, status: str) -> None:
    """Close a parent run with the status "FINISHED", "FAILED" or "KILLED"."""
    with errors(cfg):
        client(cfg).set_terminated(run_id, status=status)


def adopt(cfg: TrackingConfig, run_id: str, parent: str | None) -> None:
    """Add a finished run to the children of a sweep that does not have to repeat it.

    A run without a parent becomes a child of the sweep. A run that has one keeps it, and a tag of the sweep names the
    run. `search(parent=...)` returns both.
    """
    if parent is None:
        return
    mlflow = client(cfg)
    with errors(cfg):
        run = mlflow.get_run(run_id)
        if PARENT_TAG in run.data.tags:
            mlflow.set_tag(parent, ADOPTED + run_id, run.info.run_name)
        else:
            mlflow.set_tag(run_id, PARENT_TAG, parent)
