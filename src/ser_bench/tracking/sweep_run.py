"""The parent run of a sweep or of a comparison, and its children."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ser_bench.config import TrackingConfig
from ser_bench.redaction import redact
from ser_bench.tracking.mlflow_store import client, errors, experiment_id, tracking_dir
from ser_bench.tracking.run_description import source_tags
from ser_bench.types import digest_of

PARENT_TAG = "mlflow.parentRunId"
ADOPTED = "adopted."
"""Prefix of tags of a parent. Each names a finished run of another sweep that this sweep did not have to repeat."""
RUN_ID = re.compile(r"[0-9a-f]{32}")

_open: dict[str, tuple[Path, FileLock]] = {}
"""Parent runs of the sweeps of this process → the file that notes the id, and its lock."""


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


def start_sweep(
    cfg: TrackingConfig, experiment: str, name: str, tags: Mapping[str, str], words: Sequence[str]
) -> tuple[str, bool]:
    """Create the parent run of a sweep, or continue with the one that a killed process of the same command has left.

    The id of the parent is noted in `tracking.dir`/work until `end_parent`. A lock beside the note is released by the
    system when the process ends, whatever ends it. If the same command is running now, this one gets another parent.

    Args:
        cfg: the store.
        experiment: the MLflow experiment.
        name: name of a new parent run.
        tags: tags of a new parent run.
        words: the overrides of the command.

    Returns:
        The id of the parent run, and whether it is that of a killed process.

    Raises:
        TrackingError: the store cannot be written.
    """
    note = tracking_dir(cfg) / "work" / f"sweep-{digest_of([experiment, list(words)])}"
    with errors(cfg):
        note.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(note.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return start_parent(cfg, experiment, name, tags), False
        old = note.read_text(encoding="utf-8", errors="replace") if note.exists() else ""
        resumed = is_unfinished(cfg, old) and client(cfg).get_run(old).info.status == "RUNNING"
        parent = old if resumed else start_parent(cfg, experiment, name, tags)
        note.write_text(parent)
    _open[parent] = (note, lock)
    return parent, resumed


def is_unfinished(cfg: TrackingConfig, run_id: str, **tags: str) -> bool:
    """Return whether a run that is noted in a file exists, is not finished or deleted, and has these tags."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    if not RUN_ID.fullmatch(run_id):
        return False  # the file is damaged or empty
    try:
        run = client(cfg).get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return False  # the store is another one, or the run was deleted
        raise
    has_tags = all(run.data.tags.get(name) == value for name, value in tags.items())
    return has_tags and run.info.lifecycle_stage == "active" and run.info.status != "FINISHED"


def end_parent(cfg: TrackingConfig, run_id: str, status: str) -> None:
    """Close a parent run with the status "FINISHED", "FAILED" or "KILLED".

    Raises:
        TrackingError: the store cannot be written; the same command then continues with this parent.
    """
    note, lock = _open.pop(run_id, (None, None))
    try:
        with errors(cfg):
            client(cfg).set_terminated(run_id, status=status)
        if note is not None:
            note.unlink(missing_ok=True)
    finally:
        if lock is not None:
            lock.release()
            if note is not None and not note.exists():
                Path(lock.lock_file).unlink(missing_ok=True)


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
        if run.data.tags.get(PARENT_TAG) == parent:
            return  # this sweep has carried it out before it was killed
        if PARENT_TAG in run.data.tags:
            mlflow.set_tag(parent, ADOPTED + run_id, run.info.run_name)
        else:
            mlflow.set_tag(run_id, PARENT_TAG, parent)
