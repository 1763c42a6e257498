"""The run above the runs of a sweep, and remarks on any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_bench.config import TrackingConfig
from ser_bench.redaction import redact
from ser_bench.tracking import code_version
from ser_bench.tracking.mlflow_store import client, errors, experiment_id
from ser_bench.tracking.run_description import source_tags

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
NOTE_CHARACTERS = 8_000
"""MLflow cuts longer values of tags, in the middle of whatever they are."""
CUT = "\n… the rest is in the artifacts of this run.\n"
ADOPTED = "adopted."
"""Tags of a parent that name runs of earlier sweeps that it did not need to repeat."""


def start_parent(cfg: TrackingConfig, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a sweep's parent run; children name it as their `parent`. Returns its id.

    Raises:
        TrackingError: the store refused.
    """
    experiment = experiment_id(cfg, experiment)
    git = code_version.commit()
    known = {"kind": "sweep"} | git | source_tags(git["commit"]) | dict(tags)
    with errors(cfg):
        run = client(cfg).create_run(experiment, run_name=redact(name), tags={k: redact(v) for k, v in known.items()})
    return str(run.info.run_id)


def end_parent(cfg: TrackingConfig, run_id: str, status: str) -> None:
    """Close a parent: "FINISHED", "FAILED" or "KILLED"."""
    with errors(cfg):
        client(cfg).set_terminated(run_id, status=status)


def adopt(cfg: TrackingConfig, run_id: str, parent: str | None) -> None:
    """Count a finished run among the children of a sweep that did not have to repeat it.

    It is nested under the sweep where it has no parent yet; else it stays where it is, and the sweep names it in a tag.
    Both are found by `search(parent=...)`.
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


def describe_run(cfg: TrackingConfig, run_id: str, markdown: str) -> None:
    """Set the description that heads a run's page; one longer than MLflow keeps ends at a line, and says so."""
    text = redact(markdown)
    if len(text) > NOTE_CHARACTERS:
        kept = text[: NOTE_CHARACTERS - len(CUT)]
        text = kept[: kept.rfind("\n") + 1] + CUT
    with errors(cfg):
        client(cfg).set_tag(run_id, NOTE_TAG, text)


def log_files(cfg: TrackingConfig, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
    """Keep files as artifacts, below `folder` where it is given."""
    with errors(cfg):
        for path in paths:
            client(cfg).log_artifact(run_id, str(path), folder)


def log_text(cfg: TrackingConfig, run_id: str, text: str, name: str) -> None:
    """Keep a text as an artifact called `name`."""
    with errors(cfg):
        client(cfg).log_text(run_id, redact(text), name)
