"""Find runs in the store and read them back: tags, metrics, configuration, artifacts."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from ser_bench import predictions as tables
from ser_bench.config import Config, TrackingConfig, flattened, model_schemas, to_config
from ser_bench.config.bounded_yaml import load_bounded_yaml
from ser_bench.errors import ArtifactError, RunNotFoundError, SerBenchError, one_line
from ser_bench.evaluation.calibration import CALIBRATION_FILE, Calibration
from ser_bench.tracking.mlflow_store import client, errors, tracking_dir
from ser_bench.tracking.model_registry import MODELS_PREFIX, run_of_registered
from ser_bench.tracking.moved_store import artifacts_of, local_path
from ser_bench.tracking.sweep_run import ADOPTED, PARENT_TAG
from ser_bench.types import Predictions, Row, Split

if TYPE_CHECKING:
    from mlflow.entities import Run

RUNS_PREFIX = "runs:/"
"""How MLflow writes the address of a run."""
FULL_RUN_ID = 32
"""Hexadecimal digits of MLflow's run ids."""
RUNS_PER_PAGE = 1000
PREDICTIONS_FILE = "predictions.parquet"
FAILED_REQUESTS = "llm/failed"
"""Metric: how many clips have no answer because their request failed."""


@dataclass(frozen=True)
class StoredRun:
    """One run of the store, with access to its artifacts.

    Attributes:
        run_id: MLflow's id.
        name: for example "cnn speaker fold 0".
        status: FINISHED, FAILED, KILLED or RUNNING.
        start_time: milliseconds since 1970.
        tags: those of `run_description.tags` and later ones, without MLflow's own `mlflow.*` tags.
        metrics: the latest value of each.
        params: the composed configuration, one string per leaf.
        parent: id of the sweep's parent run, or None.
        artifact_uri: folder or address of the artifacts.
        tracking: the store.
    """

    run_id: str
    name: str
    status: str
    start_time: int
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]
    parent: str | None
    artifact_uri: str
    tracking: TrackingConfig = field(repr=False)

    def artifact(self, path: str) -> Path:
        """Return the local path of an artifact (file or folder); artifacts of a server are downloaded first.

        Raises:
            ArtifactError: the run has no such artifact.
            TrackingError: the server cannot deliver it.
        """
        folder = self._local_folder()
        if folder is not None:
            found = folder / path
        else:
            with errors(self.tracking):
                found = Path(client(self.tracking).download_artifacts(self.run_id, path, self._scratch.name))
        if not found.exists():
            raise ArtifactError(f"run {self.run_id} ({self.name}, {self.status}) has no artifact {path}: {found}")
        return found

    def artifact_names(self) -> list[str]:
        """Return the names of the files and folders at the top level of the artifacts, sorted.

        Raises:
            ArtifactError: the folder does not exist.
            TrackingError: the server cannot list them.
        """
        folder = self._local_folder()
        if folder is not None:
            return sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
        with errors(self.tracking):
            listed = client(self.tracking).list_artifacts(self.run_id)
        return sorted(f"{item.path}/" if item.is_dir else item.path for item in listed)

    def _local_folder(self) -> Path | None:
        """Return the folder of the artifacts, also in a store that was moved; None if they are on a server.

        Raises:
            ArtifactError: the folder does not exist.
        """
        recorded = local_path(self.artifact_uri)
        if recorded is None or recorded.exists():
            return recorded
        moved = artifacts_of(tracking_dir(self.tracking), self.run_id)
        if moved.exists():
            return moved
        raise ArtifactError(
            f"run {self.run_id} ({self.name}, {self.status}) has no artifacts: {recorded} does not exist. If the store "
            f"was moved, move its folder of artifacts too; it belongs at {moved.parent.parent}"
        )

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Path]:
        """Give the local path of an artifact to a `with` block that reads it.

        Raises:
            ArtifactError: the artifact is missing, or the block failed, because the file is damaged. The message names
                the file and the run.
        """
        file = self.artifact(path)
        try:
            yield file
        except SerBenchError:
            raise
        except Exception as error:  # a damaged file can raise any exception
            raise ArtifactError(
                f"{file}: this file of run {self.run_id} ({self.name}) cannot be read ({one_line(error)}); restore it "
                "from a copy of the store, or make the run again with force=true"
            ) from error

    def predictions(self) -> Predictions:
        """Return the predictions of the test rows.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        with self.reading(PREDICTIONS_FILE) as path:
            return tables.load(path)

    def calibration(self) -> Calibration | None:
        """Return the calibration of the probabilities; None if the run has none, as runs of older versions.

        Raises:
            SerBenchError: the file is damaged.
            TrackingError: the server cannot list the artifacts.
        """
        if CALIBRATION_FILE not in self.artifact_names():
            return None
        with self.reading(CALIBRATION_FILE) as path:
            return Calibration.load(path)

    def frame(self) -> pd.DataFrame:
        """Return the predictions as a table, with the speaker and other attributes of each clip.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        with self.reading(PREDICTIONS_FILE) as path:
            frame = pd.read_parquet(path)
            tables.from_frame(frame)  # raises if columns are missing or values impossible
            return frame

    def split(self) -> Split:
        """Return the training, validation and test rows.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        with self.reading("split.json") as path:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: tuple(Row(*row) for row in content[part]) for part in ("train", "val", "test")}
            return Split(content["protocol"], content["fold"], content["folds"], **parts)

    def history(self, metric: str) -> dict[int, float]:
        """Return epoch → value of a metric that was logged per epoch; empty if it was not."""
        with errors(self.tracking):
            points = client(self.tracking).get_metric_history(self.run_id, metric)
        return {point.step: point.value for point in sorted(points, key=lambda point: point.step)}

    def config(self) -> Config:
        """Return the composed configuration.

        Raises:
            ArtifactError: the file is missing or damaged, or was written by another version of this package, which
                had other keys.
        """
        with self.reading("config.yaml") as path:
            plain = load_bounded_yaml(path)
            self._refuse_incomplete(plain)
        version = self.tags.get("version", "unknown")
        try:
            plain.model = OmegaConf.merge(OmegaConf.structured(_model_schema(dict(plain.model))), plain.model)
            composed = OmegaConf.merge(OmegaConf.structured(Config), plain)
            assert isinstance(composed, DictConfig)  # for mypy: two mappings merge into a mapping
            return to_config(composed)
        except Exception as error:  # the errors of OmegaConf have no common base class
            raise ArtifactError(
                f"{path}: run {self.run_id} was configured by ser_bench {version} with keys that this version does not "
                f"have, or the file is damaged: {one_line(error)}. Use that version, or make the run again with "
                "force=true"
            ) from error

    def _refuse_incomplete(self, plain: Any) -> None:
        """Raise ValueError for a configuration without its model, or without a key that is a parameter of the run."""
        dict(plain.model)
        names = set(flattened(OmegaConf.to_container(plain)))
        missing = [name for name in self.params if name not in names]
        if missing:
            raise ValueError(f"it lacks {missing[0]}, which is a parameter of the run")

    def members(self) -> list[StoredRun]:
        """Return the runs that a fusion combines, in its order; empty for any other run.

        Raises:
            RunNotFoundError: a member is no longer in the store.
        """
        members = []
        for run_id in self.tags.get("members", "").split():
            try:
                members.append(load_run(self.tracking, run_id))
            except RunNotFoundError as error:
                raise RunNotFoundError(
                    f"run {self.run_id} ({self.name}) combines run {run_id}, which is no longer in this store; "
                    "make the fusion again with force=true"
                ) from error
        return members

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        """Folder for artifacts that are downloaded from a server; deleted with this object."""
        return tempfile.TemporaryDirectory(prefix="ser_bench_run_")


def find_finished(cfg: Config, key: str) -> StoredRun | None:
    """Return the newest finished run with this key in the experiment, or None; not one with failed requests."""
    query = f"tags.key = '{key}' and attributes.status = 'FINISHED'"
    return next(iter(_without_failures(_search(cfg.tracking, query, cfg.tracking.experiment, RUNS_PER_PAGE))), None)


def newest(cfg: TrackingConfig, **tags: str) -> list[StoredRun]:
    """Return the finished runs of the experiment with these tags, newest first; values must not contain quotes.

    Runs with failed requests are left out.
    """
    query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    found = _search(cfg, f"{query} and attributes.status = 'FINISHED'", cfg.experiment, RUNS_PER_PAGE)
    return _without_failures(found)


def _without_failures(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Leave out runs with failed requests, which earlier versions marked as finished."""
    return [run for run in runs if not run.metrics.get(FAILED_REQUESTS)]


def latest_experiment(cfg: TrackingConfig) -> str | None:
    """Return the name of the MLflow experiment of the latest finished run; None if there is no run."""
    runs = _search(cfg, "tags.kind = 'run' and attributes.status = 'FINISHED'", None, limit=1)
    return runs[0].params.get("tracking.experiment") if runs else None


def load_run(cfg: TrackingConfig, run_id: str) -> StoredRun:
    """Return the run whose id is, or begins with, `run_id`, or that made a registered model.

    Args:
        cfg: the store.
        run_id: the id or its first letters, `runs:/<id>`, `models:/NAME@ALIAS`, or `models:/NAME/VERSION`.

    Raises:
        RunNotFoundError: no run matches, or several do.
    """
    if run_id.startswith(MODELS_PREFIX):
        run_id = run_of_registered(cfg, run_id)
    digits = run_id.strip().removeprefix(RUNS_PREFIX).lower()
    matches = _search(cfg, f"attributes.run_id LIKE '{digits}%'", None, limit=3) if digits.isalnum() else []
    if not matches:
        raise RunNotFoundError(
            f"no run {run_id!r} in {cfg.uri or cfg.dir}; `ser-bench runs` lists the runs and their ids"
        )
    if len(matches) > 1 and len(digits) < FULL_RUN_ID:
        ids = ", ".join(run.run_id for run in matches)
        raise RunNotFoundError(f"the ids of several runs begin with {run_id!r} ({ids}…): give more digits")
    return matches[0]


def search(
    cfg: TrackingConfig, experiment: str | None = None, parent: str | None = None, limit: int = 1000
) -> list[StoredRun]:
    """Return runs (not sweeps), newest first.

    Args:
        cfg: the store.
        experiment: only runs of this MLflow experiment.
        parent: only the children of this parent run, including those that it adopted (`adopt`).
        limit: the largest number of runs.
    """
    query = "tags.kind = 'run'" + (f" and tags.`{PARENT_TAG}` = '{parent}'" if parent else "")
    runs = _search(cfg, query, experiment, limit)
    if parent:
        with errors(cfg):
            tags = client(cfg).get_run(parent).data.tags
        adopted = [load_run(cfg, tag.removeprefix(ADOPTED)) for tag in tags if tag.startswith(ADOPTED)]
        ids = {run.run_id for run in runs}
        runs += [run for run in adopted if run.run_id not in ids]
    return sorted(runs, key=lambda run: -run.start_time)[:limit]


def _search(cfg: TrackingConfig, query: str, experiment: str | None, limit: int) -> list[StoredRun]:
    mlflow = client(cfg)
    with errors(cfg):
        ids = [e.experiment_id for e in mlflow.search_experiments() if experiment in (None, e.name)]
        runs: list[Run] = []
        token = None
        while ids and len(runs) < limit:
            page = mlflow.search_runs(
                ids, query, max_results=min(RUNS_PER_PAGE, limit), order_by=["attributes.start_time DESC"],
                page_token=token,
            )  # fmt: skip
            runs += page
            token = page.token
            if not token:
                break
    return [_stored(cfg, run) for run in runs[:limit]]


def _stored(cfg: TrackingConfig, run: Run) -> StoredRun:
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start_time=run.info.start_time,
        tags={name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        parent=run.data.tags.get(PARENT_TAG),
        artifact_uri=run.info.artifact_uri,
        tracking=cfg,
    )


def _model_schema(model: dict[Any, Any]) -> type:
    """Return the dataclass for the group `model` of a stored run: that of its name, else one that has its keys."""
    known = model_schemas()
    fitting = [schema for schema in known.values() if set(model) <= {item.name for item in fields(schema)}]
    if str(model.get("name")) not in known and not fitting:
        raise ValueError(f"no predictor has the keys {', '.join(map(str, model))} of model {model.get('name')}")
    return known.get(str(model.get("name"))) or fitting[0]
