"""Stores that were moved, copied or linked: where old artifacts are read, and where new ones are written."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking._tracking_service import utils as mlflow_service

from ser_bench import tracking
from ser_bench.config import Config
from ser_bench.errors import ArtifactError, TrackingError
from ser_bench.tracking import mlflow_store, moved_store
from ser_bench.types import Predictions
from tests.support.tracked_runs import LABELS, compose_config, make_corpus, make_split


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run, in a folder whose name has a space; tests copy it."""
    folder = tmp_path_factory.mktemp("old place") / "mlruns"
    make_run(in_folder(folder), "first")
    return folder


def make_run(cfg: Config, key: str) -> str:
    tracking.open_store(cfg.tracking)
    corpus = make_corpus()
    split = make_split(corpus)
    n = len(split.test)
    truth = tuple(corpus.by_id[row.clip_id].emotion for row in split.test)
    uniform, zero = np.full((n, 3), 1 / 3, np.float32), np.zeros(n, np.float32)
    predictions = Predictions(split.test, truth, LABELS, uniform, np.ones(n, np.bool_), zero, zero)
    with tracking.start(cfg, corpus, split, key, ("model",), None) as active:
        active.log_split(split)
        active.log_predictions(predictions, corpus.by_id)
    return active.run_id


def in_folder(folder: Path) -> Config:
    cfg = compose_config(Path("mlruns"), "model=cnn_text")
    return replace(cfg, tracking=replace(cfg.tracking, dir=str(folder)))


def only_run(cfg: Config) -> tracking.StoredRun:
    [run] = [run for run in tracking.search(cfg.tracking) if run.tags["key"] == "first"]
    return run


def test_a_moved_store_is_read_and_written_where_it_is_now(original: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "a new # % place"
    shutil.copytree(original, old)
    first = only_run(in_folder(old))
    assert Path(first.artifact("")).is_relative_to(old), "a copy is a store of its own"
    old.rename(new)
    cfg = in_folder(new)
    moved = only_run(cfg)
    assert moved.predictions().rows and moved.artifact("split.json").is_relative_to(new)
    mlflow_service._artifact_repos_cache.clear()  # a new process has none
    tracking.log_text(cfg.tracking, moved.run_id, "again", "audit.json")  # to a run from before the move
    second = tracking.load_run(cfg.tracking, make_run(cfg, "second"))
    parent = tracking.start_parent(cfg.tracking, cfg.tracking.experiment, "comparison", {})
    tracking.log_text(cfg.tracking, parent, "a table", "table.txt")
    assert second.artifact("predictions.parquet").is_relative_to(new)
    assert not old.exists()
    folders = {path.parent.parent.name for path in new.glob("artifacts/*/artifacts/*")}
    assert folders == {moved.run_id, second.run_id, parent}
    assert (moved.artifact("") / "audit.json").read_text() == "again"


def test_a_moved_store_can_be_read_where_it_cannot_be_corrected(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_store, "correct_locations", lambda *_: None)  # as of a read-only database
    shutil.copytree(original, tmp_path / "new")
    run = only_run(in_folder(tmp_path / "new"))
    gone = replace(run, artifact_uri=(tmp_path / "gone" / "artifacts" / run.run_id / "artifacts").as_uri())
    assert gone.artifact("split.json").is_relative_to(tmp_path / "new") and gone.predictions().rows
    lost = replace(gone, tracking=replace(run.tracking, dir=str(tmp_path / "elsewhere")))
    with pytest.raises(ArtifactError, match=rf"{tmp_path}/gone/.*was moved.*{tmp_path}/elsewhere/artifacts"):
        lost.predictions()


def test_only_what_is_here_is_corrected(original: Path, tmp_path: Path) -> None:
    """A database that was copied without its artifacts goes on to name the files of the original."""
    (tmp_path / "copy").mkdir()
    shutil.copy(original / "mlflow.db", tmp_path / "copy")
    run = only_run(in_folder(tmp_path / "copy"))
    assert run.artifact("split.json").is_relative_to(original)


def test_a_store_behind_a_link_is_not_moved(original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    assert only_run(in_folder(tmp_path / "link")).artifact_uri == only_run(in_folder(original)).artifact_uri


@pytest.mark.parametrize("name", ["what?", "my%20runs"])
def test_a_folder_in_which_sqlite_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrackingError, match=r"tracking\.dir"):
        tracking.open_store(in_folder(tmp_path / name).tracking)
    assert not list(tmp_path.iterdir())


def test_the_advice_for_a_deleted_experiment_can_be_pasted(original: Path) -> None:
    cfg = in_folder(original)
    mlflow = mlflow_store.client(cfg.tracking)
    mlflow.delete_experiment(mlflow_store.experiment_id(cfg.tracking, "deleted"))
    with pytest.raises(TrackingError) as caught:
        mlflow_store.experiment_id(cfg.tracking, "deleted")
    command = str(caught.value).split("`")[1]
    assert shlex.split(command)[:2] == [f"MLFLOW_TRACKING_URI={mlflow_store.tracking_uri(cfg.tracking)}", "mlflow"]
