"""The manifest of a run's artifacts: a file that was changed, removed or added after the run is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_bench import tracking
from ser_bench.cli import predict_command
from ser_bench.comparison import paired
from ser_bench.config import Config
from ser_bench.errors import NotComparableError, TrackingError
from ser_bench.tracking import StoredRun
from ser_bench.tracking.artifact_manifest import HASH_TAG, MANIFEST_FILE, manifest_of
from tests.support import stored_runs
from tests.support.tracked_runs import compose_config, make_corpus, make_split

FILES = {"predictions.parquet": b"table", "predictor/a.safetensors": b"weights", "predictor/deep/b.json": b"{}"}


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return compose_config(tmp_path_factory.mktemp("store") / "mlruns", "model=cnn_text")


@pytest.fixture(scope="module")
def finished(cfg: Config, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A finished run with a manifest, in a store with a database."""
    tracking.open_store(cfg.tracking)
    corpus = make_corpus()
    folder = tmp_path_factory.mktemp("files")
    with tracking.start(cfg, corpus, make_split(corpus), "0" * 16, ("model", "size"), None) as active:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            tracking.log_files(cfg.tracking, active.run_id, [folder / name], str(Path(name).parent).strip("."))
        tracking.log_manifest(cfg.tracking, active.run_id)
        tracking.log_audit(cfg.tracking, active.run_id, {"audit": "clean"}, {}, "{}")
    return tracking.load_run(cfg.tracking, active.run_id)


@pytest.fixture
def run(finished: StoredRun, tmp_path: Path) -> StoredRun:
    """A copy of the run's files that a test may change."""
    shutil.copytree(finished.artifact(""), tmp_path / "artifacts")
    values = {name: getattr(finished, name) for name in finished.__dataclass_fields__}
    return StoredRun(**(values | {"artifact_uri": (tmp_path / "artifacts").as_uri(), "tags": dict(finished.tags)}))


def test_the_manifest_lists_files_that_were_downloaded_from_a_server(
    finished: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in a temporary folder, which lasts as long as the object of the run."""
    monkeypatch.setattr(StoredRun, "_local_folder", lambda self: None)
    tracking.log_manifest(finished.tracking, finished.run_id)
    again = tracking.load_run(finished.tracking, finished.run_id)
    assert again.tags[HASH_TAG] == finished.tags[HASH_TAG]
    assert not tracking.check_artifacts(again).faults


def test_a_run_as_it_was_logged_has_no_fault(run: StoredRun) -> None:
    check = tracking.check_artifacts(run)
    assert check.recorded and not check.faults and check.files >= len(FILES) + 2  # config.yaml and corpus.json
    assert tracking.check_artifacts(run, "predictor", "predictions.parquet").files == len(FILES)
    tracking.log_audit(run.tracking, run.run_id, {}, {}, '{"again": 1}')
    assert not tracking.check_artifacts(run).faults, "every audit writes its result again"
    run.artifact("").joinpath("note.txt").write_text("of a reader")
    assert not tracking.check_artifacts(run).faults


def test_two_changed_bytes_are_found(run: StoredRun) -> None:
    path = run.artifact("predictor/a.safetensors")
    path.write_bytes(path.read_bytes()[:-2] + b"??")
    assert tracking.check_artifacts(run).faults == ("predictor/a.safetensors was changed",)
    assert not tracking.check_artifacts(run, "predictions.parquet").faults, "only what is asked for is read"
    tracking.refuse_changed(run, "predictions.parquet")
    with pytest.raises(TrackingError, match=r"predictor/a.safetensors was changed since the run .* force=true"):
        tracking.refuse_changed(run, "predictor")


def test_removed_and_added_files_are_found(run: StoredRun) -> None:
    run.artifact("predictor/deep/b.json").unlink()
    run.artifact("predictor").joinpath("0.safetensors").write_bytes(b"")
    faults = ("predictor/deep/b.json was removed", "predictor/0.safetensors was added")
    assert tracking.check_artifacts(run).faults == faults == tracking.check_artifacts(run, "predictor").faults


def test_a_manifest_that_was_changed_removed_or_added_is_found(run: StoredRun) -> None:
    manifest = run.artifact(MANIFEST_FILE)
    run.artifact("predictions.parquet").write_bytes(b"the truth")
    manifest.write_text(manifest_of(run.artifact(""))[0])
    assert tracking.check_artifacts(run).faults == (f"{MANIFEST_FILE} was changed",)
    manifest.unlink()
    assert tracking.check_artifacts(run).faults == (f"{MANIFEST_FILE} was removed",)
    del run.tags[HASH_TAG]
    assert not tracking.check_artifacts(run).recorded, "a run of an older version"
    tracking.refuse_changed(run)


def with_manifest(run: StoredRun) -> StoredRun:
    text, digest = manifest_of(run.artifact(""))
    run.artifact("").joinpath(MANIFEST_FILE).write_text(text)
    run.tags[HASH_TAG] = digest
    return run


def test_compare_names_the_run_whose_predictions_were_changed(tmp_path: Path) -> None:
    clips = stored_runs.make_clips(speakers=3)
    answers = [stored_runs.predict(clips, 0.5, seed) for seed in (0, 1)]
    first, second = (
        with_manifest(stored_runs.store(tmp_path, model, predictions, clips))
        for model, predictions in zip(("cnn", "crnn"), answers, strict=True)
    )
    assert paired.compare([first, second], None).results
    frame = pd.read_parquet(second.artifact("predictions.parquet"))
    frame["latency_s"] += np.float32(1)
    frame.to_parquet(second.artifact("predictions.parquet"))
    with pytest.raises(NotComparableError, match=rf"{second.run_id} .*predictions.parquet was changed"):
        paired.compare([first, second], None)


@pytest.mark.parametrize("name", ["predictor/a.safetensors", "config.yaml"])
def test_predict_refuses_a_run_whose_files_were_changed(
    name: str, run: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.artifact(name).write_bytes(b"??")
    monkeypatch.setattr(tracking, "load_run", lambda cfg, run_id: run)
    with pytest.raises(TrackingError, match=f"{name} was changed"):
        predict_command.run([], [run.run_id, "a.wav"])
