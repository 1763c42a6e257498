"""The MLflow model of a run that takes audio: logged, loaded in another process, registered, found by its alias."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_bench import pipeline, predictors, tracking
from ser_bench.cli.app import main
from ser_bench.config import Config
from ser_bench.errors import ConfigError, RunNotFoundError
from ser_bench.features.feature_store import Features
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.model_logging import log_audio_model
from ser_bench.tracking import StoredRun, audio_model, model_registry
from ser_bench.tracking.mlflow_store import client
from tests.support.tracked_runs import compose_config, make_corpus, make_split

CORPUS = make_corpus()
SPLIT = make_split(CORPUS)
LOAD_AND_PREDICT = """
import json, sys
sys.path[:] = [path for path in sys.path if path.rstrip("/") != sys.argv[2].rstrip("/")]
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1], suppress_warnings=True)
example = model.input_example
texts = [*example["audio"], "/etc/hostname", "https://example.org/a.wav"]
found = model.predict(pandas.DataFrame({"audio": texts}))
import ser_bench
print(json.dumps({"source": ser_bench.__file__, "rows": found.to_dict(orient="records")}, allow_nan=False))
"""


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Config:
    found = compose_config(tmp_path_factory.mktemp("store") / "mlruns", "model=majority")
    tracking.open_store(found.tracking)
    return found


def finished(cfg: Config, key: str) -> StoredRun:
    """A run as the pipeline makes it, without an MLflow model."""
    with tracking.start(cfg, CORPUS, SPLIT, key, predictors.predictor_class("majority").groups, None) as active:
        features = Features(cfg, CORPUS.by_id, CORPUS.language)
        predictor = predictors.build(cfg, CORPUS.labels, features, active.work_dir, active.log_epoch)
        predictor.fit(SPLIT.train, SPLIT.val)
        active.log_predictions(predictor.predict(SPLIT.test), CORPUS.by_id)
        active.log_predictor(predictor)
    return tracking.load_run(cfg.tracking, active.run_id)


@pytest.fixture(scope="module")
def stored(cfg: Config) -> StoredRun:
    return finished(cfg, pipeline.run_key(cfg, CORPUS, SPLIT))


@pytest.fixture(scope="module")
def folder(stored: StoredRun) -> Path:
    """The model as it lies in the store."""
    model_id = log_audio_model(stored, "# The card")
    return Path(client(stored.tracking).get_logged_model(model_id).artifact_location.removeprefix("file://"))


def test_the_model_has_no_pickle_no_path_of_the_machine_and_pinned_packages(folder: Path, stored: StoredRun) -> None:
    described = yaml.safe_load((folder / "MLmodel").read_text())
    flavour = described["flavors"]["python_function"]
    assert flavour["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert (folder / flavour["model_code_path"]).is_file()
    assert flavour["artifacts"] == {"bundle": {"path": "artifacts/bundle", "uri": "artifacts/bundle"}}
    assert [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".pyc")] == []
    own = [path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "code")]
    texts = {path.name: path.read_text().replace(described["artifact_path"], "") for path in own}
    here = (str(Path.home()), str(Path(__file__).parents[2]), str(folder.parents[4]), sys.prefix)
    for name, text in texts.items():
        assert not [path for path in here if path in text], name
    assert all("==" in line for line in texts["requirements.txt"].splitlines())
    assert json.loads(described["signature"]["inputs"]) == [{"type": "string", "name": "audio", "required": True}]
    answered = [column["name"] for column in json.loads(described["signature"]["outputs"])]
    assert answered == [*Answer("x").as_dict(), "run_id"]
    assert texts["model_card.md"] == "# The card" and stored.run_id in texts["README.md"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3_000_000


def test_another_process_answers_with_the_source_in_the_model(folder: Path, stored: StoredRun, tmp_path: Path) -> None:
    source = str(Path(__file__).parents[2] / "src")
    hidden = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_PREDICT, str(folder), source],
        capture_output=True, text=True, cwd=tmp_path, env=hidden, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["source"] == str(folder / "code/ser_bench/__init__.py")
    example, path, address = found["rows"]
    from ser_bench.inference.audio_column import recording_of

    here = AudioPredictor.from_run(stored, compose_config(tmp_path))
    expected = here.predict([recording_of(audio_model.example_audio(), "row 0", 60.0)])[0].as_dict()
    same = {name: value for name, value in expected.items() if name != "seconds"}
    assert {name: example[name] for name in same} == same and example["run_id"] == stored.run_id
    assert path["status"] == address["status"] == "failed"
    assert "not allowed" in path["reason"] and "not fetched" in address["reason"]


def test_a_run_that_is_resumed_completes_its_model(folder: Path, stored: StoredRun) -> None:
    assert log_audio_model(stored) == model_registry.audio_model_of(stored)
    models = client(stored.tracking).search_logged_models(
        [client(stored.tracking).get_run(stored.run_id).info.experiment_id], f"source_run_id = '{stored.run_id}'"
    )
    assert [model.name for model in models] == ["audio_model"]


@pytest.mark.parametrize(
    ("name", "replacement", "said"),
    [("needs_votes", lambda cfg: True, "votes"), ("model_requirements", None, "not installed")],
)
def test_a_run_without_a_model_says_why(
    stored: StoredRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, replacement: Any,
    said: str,
) -> None:  # fmt: skip
    if replacement is None:
        monkeypatch.setattr("ser_bench.tracking.model_requirements.PACKAGE", "ser-bench-from-its-source")
    else:
        monkeypatch.setattr(f"ser_bench.inference.model_logging.{name}", replacement)
    with caplog.at_level("INFO", "ser_bench"):
        assert log_audio_model(stored) == ""
    assert said in caplog.text


def test_an_alias_names_one_version_and_commands_take_it(
    cfg: Config, stored: StoredRun, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"tracking.dir={cfg.tracking.dir}"
    other = finished(cfg, "another")
    assert main(["register", stored.run_id[:12], "emotion", "--alias", "champion", store]) == 0
    assert "models:/emotion/1" in capsys.readouterr().out
    assert tracking.load_run(cfg.tracking, "models:/emotion@champion").run_id == stored.run_id
    assert main(["register", other.run_id, "emotion", "--alias", "champion", store]) == 0  # logs the model first
    assert model_registry.audio_model_of(other) is not None
    assert tracking.load_run(cfg.tracking, "models:/emotion@champion").run_id == other.run_id
    assert tracking.load_run(cfg.tracking, "models:/emotion/1").run_id == stored.run_id
    assert model_registry.register_run(stored, "emotion") == "1", "a run has one version"
    assert tracking.load_run(cfg.tracking, f"runs:/{other.run_id}").run_id == other.run_id
    registered = client(cfg.tracking).get_registered_model("emotion")
    assert "model_card.md" in registered.description and other.run_id in registered.description
    assert main(["show", "models:/emotion@champion", store]) == 0
    assert other.run_id in capsys.readouterr().out
    shutil.copytree(cfg.tracking.dir, tmp_path / "moved")
    moved = client(replace(cfg.tracking, dir=str(tmp_path / "moved")))
    assert moved.get_model_version_download_uri("emotion", "1").startswith((tmp_path / "moved").as_uri())


@pytest.mark.parametrize("address", ["models:/nothing@champion", "models:/nothing/7", "models:/nothing", "models:/"])
def test_what_is_not_registered_is_told_in_one_line(cfg: Config, address: str) -> None:
    with pytest.raises(RunNotFoundError) as told:
        tracking.load_run(cfg.tracking, address)
    assert "\n" not in str(told.value) and "models:/" in str(told.value)


@pytest.mark.parametrize(
    ("name", "alias"),
    [("a/b", None), ("", None), ("a:b", None), ("a", "latest"), ("a", "b c"), ("a", "7")],
)
def test_names_that_mlflow_does_not_take_are_refused_before_anything_is_logged(name: str, alias: str | None) -> None:
    with pytest.raises(ConfigError):
        model_registry.check_names(name, alias)
