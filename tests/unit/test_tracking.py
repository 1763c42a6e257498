"""Runs in a temporary store: what is kept, under which status, and what is read back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_bench import redaction, tracking
from ser_bench.config import Config, TrackingConfig
from ser_bench.errors import ArtifactError, InterruptedRunError, RunNotFoundError, TrackingError
from ser_bench.predictors import HasNetwork
from ser_bench.tracking import mlflow_store, run_description, sweep_run, torch_model
from ser_bench.tracking.run_writer import rounded
from ser_bench.types import Corpus, Predictions, Split
from tests.support.tracked_runs import LABELS, compose_config, make_corpus, make_split

ROOT = Path(__file__).resolve().parents[2]

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory) -> Config:
    """A configuration whose store exists already: creating one takes seconds."""
    cfg = compose_config(tmp_path_factory.mktemp("store") / "mlruns", "model=cnn_text")
    tracking.open_store(cfg.tracking)
    return cfg


@pytest.fixture
def key(request) -> str:
    return f"{abs(hash(request.node.name)):016x}"


def make_predictions(split: Split, corpus: Corpus) -> Predictions:
    truth = tuple(corpus.by_id[row.clip_id].emotion for row in split.test)
    raw = np.random.default_rng(0).dirichlet([0.5] * 3, len(split.test)).astype(np.float32)
    raw[1] = 1 / 3
    abstained = np.zeros(len(truth), dtype=np.bool_)
    abstained[1] = True
    seconds = np.full(len(truth), 0.25, np.float32)
    notes = tuple(f"I say {i}" for i in range(len(truth)))
    return Predictions(split.test, truth, LABELS, raw, abstained, seconds, seconds, "samples", notes)


def begin(cfg: Config, key: str, parent: str | None = None, corpus: Corpus | None = None):
    corpus = corpus or make_corpus()
    return tracking.start(cfg, corpus, make_split(corpus), key, ("model", "size"), parent)


def history(cfg: Config, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in mlflow_store.client(cfg.tracking).get_metric_history(run_id, name)]


def only(cfg: Config, key: str) -> tracking.StoredRun:
    [run] = [run for run in tracking.search(cfg.tracking) if run.tags["key"] == key]
    return run


# ---- the store


@pytest.mark.slow
def test_two_processes_may_open_a_cold_store_at_once(tmp_path):
    code = (
        "from ser_bench import tracking; from ser_bench.config import TrackingConfig; "
        f"c = TrackingConfig(dir={str(tmp_path / 'mlruns')!r}, experiment='x'); print(tracking.open_store(c)); "
        "print(tracking.start_parent(c, 'x', 'sweep', {}))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], answers
    uris, runs = zip(*(out.split() for out, _ in answers), strict=True)
    assert set(uris) == {f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"}
    assert len(set(runs)) == 2
    assert all(noise == "" for _, noise in answers), "MLflow should be quiet"


def test_a_relative_folder_is_made_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mlflow_store.tracking_uri(TrackingConfig(dir="runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert mlflow_store.tracking_uri(TrackingConfig(uri="sqlite:///a.db")) == f"sqlite:///{tmp_path}/a.db"
    assert mlflow_store.tracking_uri(TrackingConfig(uri="http://host:5000")) == "http://host:5000"


def test_a_server_that_is_down_is_told_at_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cfg = TrackingConfig(uri=f"http://me:password@127.0.0.1:{port}", dir=str(tmp_path), timeout_s=2)
    started = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer") as caught:
        tracking.open_store(cfg)
    assert time.monotonic() - started < 8
    assert "\n" not in str(caught.value) and "password" not in str(caught.value)


def test_a_server_that_accepts_and_says_nothing_is_told_within_the_timeout(tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        cfg = TrackingConfig(uri=f"http://127.0.0.1:{mute.getsockname()[1]}", dir=str(tmp_path), timeout_s=1)
        started = time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            tracking.open_store(cfg)
        assert time.monotonic() - started < 8
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"cannot write here .* tracking\.dir"):
        tracking.open_store(TrackingConfig(dir=str(tmp_path / "file" / "mlruns")))


def test_a_damaged_store_is_told_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TrackingError, match=r"not a database") as caught:
        tracking.open_store(TrackingConfig(dir=str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file:/tmp/mlruns", "mlruns"])
def test_mlflows_retired_file_store_is_refused(uri):
    with pytest.raises(TrackingError, match="retired its file store"):
        tracking.open_store(TrackingConfig(uri=uri))


# ---- one run


def test_a_finished_run_holds_everything(cfg, key):
    corpus = make_corpus(skipped={"bad.wav": "zero bytes"}, warnings=("3 clips are missing",))
    split = make_split(corpus)
    predictions = make_predictions(split, corpus)
    with begin(cfg, key, corpus=corpus) as active:
        for epoch in range(3):
            active.log_epoch(epoch, {"train/loss": 1.0 / (epoch + 1), "val/uar": 0.2 * epoch})
        active.log_metrics({"test/uar": 0.5, "test/recall/ner(vous)": 0.25})
        active.log_split(split)
        active.log_predictions(predictions, corpus.by_id)
        assert active.work_dir.is_dir() and not active.resumed
    run = tracking.load_run(cfg.tracking, active.run_id[:12])
    assert run == tracking.find_finished(cfg, key)
    assert (run.name, run.status, run.parent) == ("cnn_text speaker fold 0", "FINISHED", None)
    assert run.metrics["test/uar"] == 0.5 and run.metrics["test/recall/ner_vous_"] == 0.25
    assert run.metrics["corpus/skipped_files"] == 1
    assert run.metrics["memory/peak_mib"] > 50 and run.metrics["time/total_s"] > 0
    assert history(cfg, run.run_id, "train/loss") == [(0, 1.0), (1, 0.5), (2, 0.333333)]
    assert run.params["features.pitch.floor_hz"] == "75.0" and run.params["model.channels"] == "[64, 64, 32, 32, 16]"
    assert run.params["corpus.labels"] == "native" and run.params["corpus.root"] == "null"
    wanted = {"corpus": "demo", "protocol": "speaker", "fold": "0", "folds": "2", "model": "cnn_text",
              "size": "eighth", "experiment": "demo", "synthetic": "true", "partition": split.partition,
              "rows": split.rows, "corpus_digest": corpus.digest, "labels": "angry neutral sad"}  # fmt: skip
    assert wanted.items() <= run.tags.items()
    assert run.tags["commit"] == run_description.code_version()["commit"]
    names = {"predictions.parquet", "split.json", "confusion.png", "confusion.json", "report.txt", "report.json",
             "learning_curves.png", "config.yaml", "corpus.json"}  # fmt: skip
    assert {path.name for path in run.artifact("").iterdir()} == names
    assert json.loads(run.artifact("corpus.json").read_text())["skipped"] == {"bad.wav": "zero bytes"}
    assert not active.work_dir.exists() and not active.work_dir.with_suffix(".lock").exists()


def test_pages_of_mlflow_say_what_matters_first(cfg, key):
    corpus = make_corpus()
    split = make_split(corpus)
    with begin(cfg, key) as active:
        active.log_predictions(make_predictions(split, corpus), corpus.by_id)
    mlflow = mlflow_store.client(cfg.tracking)
    run = mlflow.get_run(active.run_id)
    heading, figures = run.data.tags["mlflow.note.content"].splitlines()[:2]
    assert heading.strip() == "**cnn_text on demo (SYNTHETIC speech): split speaker, fold 0 of 2**"
    assert figures.startswith("UAR 0.") and figures.endswith(" · 4 rows")
    experiment = mlflow.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.note.content"].startswith("SYNTHETIC")
    assert "metrics.`test/uar`" in json.loads(experiment.tags["mlflow.sharedViewState.results"])["selectedColumns"]
    page = tracking.results_page(cfg.tracking)
    assert page.startswith(f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs?")


def test_metrics_are_rounded():
    assert rounded(1 / 3) == 0.333333 and rounded(7_192_710.0) == 7_192_710.0
    assert rounded(1.23456789e-5) == 1.235e-5 and rounded(0.0) == 0.0
    assert np.isnan(rounded(float("nan")))


def test_what_is_read_back_is_what_was_logged(cfg, key):
    corpus = make_corpus()
    split = make_split(corpus)
    predictions = make_predictions(split, corpus)
    with begin(cfg, key) as active:
        active.log_split(split)
        active.log_predictions(predictions, corpus.by_id)
    run = tracking.load_run(cfg.tracking, active.run_id)
    assert run.split() == split and run.split().partition == run.tags["partition"]
    assert run.config() == cfg
    back = run.predictions()
    assert (back.rows, back.truth, back.labels, back.notes) == (
        predictions.rows,
        predictions.truth,
        LABELS,
        predictions.notes,
    )
    assert back.source == "samples"  # an attribute of the table, kept in the file's metadata
    for name in ("probabilities", "abstained", "latency_s", "cost_usd"):
        np.testing.assert_array_equal(getattr(back, name), getattr(predictions, name))
    assert list(run.frame()["speaker"]) == [corpus.by_id[row.clip_id].speaker for row in split.test]
    with pytest.raises(TrackingError, match=r"has no artifact predictor"):
        run.artifact("predictor")


READERS = {
    "predictions.parquet": [tracking.StoredRun.predictions, tracking.StoredRun.frame],
    "split.json": [tracking.StoredRun.split],
    "config.yaml": [tracking.StoredRun.config],
    "clips.parquet": [tracking.stored_clips],
}


@pytest.fixture(scope="module")
def stored(cfg) -> tracking.StoredRun:
    """A run with all artifacts that are read back."""
    corpus = make_corpus()
    split = make_split(corpus)
    with begin(cfg, "damaged") as active:
        active.log_split(split)
        active.log_predictions(make_predictions(split, corpus), corpus.by_id)
        tracking.log_clips(cfg.tracking, active.run_id, corpus.clips)
    return tracking.load_run(cfg.tracking, active.run_id)


@pytest.mark.parametrize("damage", ["truncated", "empty", "binary", "null", "other table"])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_artifact_is_named_in_one_line(stored, name, damage):
    path = stored.artifact(name)
    content = path.read_bytes()
    if damage == "other table":
        pd.DataFrame({"clip_id": ["a"]}).to_parquet(path)
    else:
        damaged = {"truncated": content[: len(content) // 2], "empty": b"", "binary": bytes(range(128, 256)) * 9}
        path.write_bytes(damaged.get(damage, b"null"))
    try:
        for read in READERS[name]:
            with pytest.raises(ArtifactError, match=rf"{path}: .*{stored.run_id}.*force=true") as caught:
                read(stored)
            assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(content)


def test_aliases_in_a_stored_configuration_are_refused_before_they_are_expanded(stored):
    """Expanded, the list has 9 ** 30 elements."""
    path = stored.artifact("config.yaml")
    content = path.read_bytes()
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path.write_text("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *lists]))
    try:
        with pytest.raises(ArtifactError, match=r"config.yaml: .*line 2 uses the alias \*a0"):
            stored.config()
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("model", ["cnn", "llm", "fusion"])
def test_every_models_configuration_comes_back_typed(tmp_path, cfg, key, model):
    other = compose_config(Path(cfg.tracking.dir), f"model={model}", "split=paper", "corpus=cremad", "llm=gpt4o")
    with begin(other, key) as active:
        pass
    assert tracking.load_run(cfg.tracking, active.run_id).config() == other


def test_the_data_and_the_split_are_inputs(cfg, key):
    corpus = make_corpus()
    split = make_split(corpus)
    with begin(cfg, key) as active:
        pass
    found = mlflow_store.client(cfg.tracking).get_run(active.run_id).inputs.dataset_inputs
    by_context = {one.tags[0].value: one.dataset for one in found}
    assert set(by_context) == {"corpus", "training", "validation", "test"}
    assert (by_context["corpus"].name, by_context["corpus"].digest) == ("demo", corpus.digest)
    assert json.loads(by_context["training"].profile) == {"rows": 12, "clips": 6}
    assert json.loads(by_context["test"].source)["tags"]["partition"] == split.partition


def test_a_failure_is_marked_and_goes_on(cfg, key):
    with pytest.raises(ValueError, match="loss is NaN"), begin(cfg, key) as active:
        active.log_epoch(0, {"train/loss": 3.0})
        raise ValueError("loss is NaN\nin a second line")
    run = only(cfg, key)
    assert (run.status, run.tags["error"]) == ("FAILED", "ValueError: loss is NaN")
    assert history(cfg, run.run_id, "train/loss") == [(0, 3.0)]
    assert active.work_dir.is_dir()
    assert tracking.find_finished(cfg, key) is None


@pytest.mark.parametrize("stop", [KeyboardInterrupt, InterruptedRunError, SystemExit])
def test_an_interrupted_run_is_killed_and_resumed_under_its_own_id(cfg, key, stop):
    with pytest.raises(stop), begin(cfg, key) as first:
        first.log_epoch(0, {"train/loss": 3.0})
        first.log_epoch(1, {"train/loss": 2.0})
        (first.work_dir / "last.ckpt").write_text("epoch 1")
        raise stop("Ctrl-C")
    assert only(cfg, key).status == "KILLED" and "error" not in only(cfg, key).tags
    with begin(cfg, key) as second:
        assert second.run_id == first.run_id and second.resumed
        assert (second.work_dir / "last.ckpt").read_text() == "epoch 1"
        assert second.log_epoch.curves == {"train/loss": {0: 3.0, 1: 2.0}}
        second.log_epoch(1, {"train/loss": 99.0})  # the epoch that was under way is repeated
        second.log_epoch(2, {"train/loss": 1.0})
    assert only(cfg, key).status == "FINISHED"
    assert history(cfg, second.run_id, "train/loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_a_run_whose_process_died_is_resumed_with_what_it_had_not_sent(cfg, key):
    code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_tracking as t
cfg = t.compose_config(Path({cfg.tracking.dir!r}), "model=cnn_text")
with t.begin(cfg, {key!r}) as active:
    active.log_epoch(0, {{"train/loss": 3.0}})
    with (active.work_dir / "epochs.jsonl").open("a") as file:
        file.write('{{"epoch": 1, "time')
    os._exit(9)
"""
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert died.returncode == 9, died.stderr
    run = only(cfg, key)
    assert run.status == "RUNNING" and "train/loss" not in run.metrics
    with begin(cfg, key) as active:
        assert active.run_id == run.run_id and active.resumed
        active.log_epoch(1, {"train/loss": 2.0})
    assert history(cfg, run.run_id, "train/loss") == [(0, 3.0), (1, 2.0)]


def test_a_failed_run_that_succeeds_later_forgets_its_error(cfg, key):
    with pytest.raises(RuntimeError), begin(cfg, key):
        raise RuntimeError("no memory")
    with begin(cfg, key) as active:
        assert active.resumed
    assert only(cfg, key).status == "FINISHED" and "error" not in only(cfg, key).tags


def test_a_finished_run_is_not_resumed(cfg, key):
    with begin(cfg, key) as first:
        pass
    with begin(cfg, key) as second:
        assert second.run_id != first.run_id and not second.resumed


def test_force_starts_an_interrupted_run_from_nothing(cfg, key):
    with pytest.raises(KeyboardInterrupt), begin(cfg, key) as first:
        first.log_epoch(1, {"train/loss": 2.0})
        (first.work_dir / "last.ckpt").write_text("damaged")
        raise KeyboardInterrupt
    mlflow_store.client(cfg.tracking).update_run(first.run_id, status="RUNNING")  # as after kill -9
    with begin(replace(cfg, force=True), key) as second:
        assert second.run_id != first.run_id and not second.resumed
        assert not (second.work_dir / "last.ckpt").exists() and second.log_epoch.curves == {}
        second.log_epoch(1, {"train/loss": 3.0})
    assert tracking.load_run(cfg.tracking, first.run_id).status == "KILLED"  # it is not in progress any more
    assert history(cfg, second.run_id, "train/loss") == [(1, 3.0)]


@pytest.mark.parametrize("note", ["finished", "", "\udcff half"])
def test_files_of_a_run_that_cannot_be_resumed_are_not_used(cfg, key, note):
    with begin(cfg, key) as first:
        pass
    first.work_dir.mkdir()  # as after a kill during the last step, the removal of this folder
    (first.work_dir / "last.ckpt").write_text("best.ckpt is gone")
    run_id = first.run_id if note == "finished" else note
    (first.work_dir / "run_id").write_bytes(run_id.encode(errors="surrogateescape"))
    with begin(cfg, key) as second:
        assert second.run_id != first.run_id and not second.resumed
        assert not (second.work_dir / "last.ckpt").exists()


def test_the_same_run_twice_at_once_is_refused(cfg, key):
    with begin(cfg, key), pytest.raises(TrackingError, match="another process"), begin(cfg, key):
        pytest.fail("should not begin")
    assert only(cfg, key).status == "FINISHED"


def test_epochs_are_sent_in_batches(cfg, key, monkeypatch):
    from mlflow import MlflowClient

    sent: list[int] = []
    log_batch = MlflowClient.log_batch

    def counting(self, run_id, **batch):
        sent.append(len(batch.get("metrics", ())))
        return log_batch(self, run_id, **batch)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    with begin(cfg, key) as active:
        sent.clear()
        for epoch in range(40):
            active.log_epoch(epoch, {"train/loss": 1.0, "train/uar": 0.5})
        assert sent == []
    assert sent[0] == 80
    assert len(history(cfg, active.run_id, "train/loss")) == 40


# ---- sweeps


def test_children_are_nested_and_finished_ones_adopted(cfg, key):
    parent = tracking.start_parent(cfg.tracking, cfg.tracking.experiment, "sweep model=cnn", {"overrides": "model=cnn"})
    with begin(cfg, key, parent) as child:
        pass
    with begin(cfg, key + "b") as lonely:
        pass
    tracking.adopt(cfg.tracking, lonely.run_id, parent)
    assert {run.run_id for run in tracking.search(cfg.tracking, parent=parent)} == {child.run_id, lonely.run_id}
    later = tracking.start_parent(cfg.tracking, cfg.tracking.experiment, "sweep again", {})
    tracking.adopt(cfg.tracking, child.run_id, later)
    assert [run.run_id for run in tracking.search(cfg.tracking, parent=later)] == [child.run_id]
    assert only(cfg, key).parent == parent  # it stays where it was
    tracking.log_text(cfg.tracking, later, "a table", "table.txt")
    tracking.describe_run(cfg.tracking, later, "a line of a table that is long\n" * 400)
    cut = mlflow_store.client(cfg.tracking).get_run(later).data.tags["mlflow.note.content"]
    assert len(cut) <= 8000 and "long\n\n… the rest is in the artifacts" in cut and "long\na line" in cut
    tracking.describe_run(cfg.tracking, later, "**a table**")
    tracking.end_parent(cfg.tracking, later, "FAILED")
    stored = tracking.load_run(cfg.tracking, later)
    assert stored.status == "FAILED" and stored.artifact("table.txt").read_text() == "a table"
    assert mlflow_store.client(cfg.tracking).get_run(later).data.tags["mlflow.note.content"] == "**a table**"


def start_sweep(cfg: Config, *words: str) -> tuple[str, bool]:
    return tracking.start_sweep(cfg.tracking, cfg.tracking.experiment, "sweep", {"overrides": "model=cnn"}, words)


def test_a_sweep_whose_process_died_goes_on_under_its_parent(cfg, key):
    words = (f"seed={key}", "model=cnn,llm")
    parent, resumed = start_sweep(cfg, *words)
    assert not resumed
    with begin(cfg, key, parent) as child:
        pass
    sweep_run._open.pop(parent)[1].release()  # what the system does when a process is killed
    assert start_sweep(cfg, "model=cnn")[0] != parent, "another command has a parent of its own"
    assert start_sweep(cfg, *words) == (parent, True)
    tracking.adopt(cfg.tracking, child.run_id, parent)
    tags = mlflow_store.client(cfg.tracking).get_run(parent).data.tags
    assert not [tag for tag in tags if tag.startswith("adopted.")], "its own child needs no adoption"
    tracking.end_parent(cfg.tracking, parent, "FINISHED")
    assert tracking.load_run(cfg.tracking, parent).status == "FINISHED"
    assert start_sweep(cfg, *words)[0] != parent, "a sweep that was closed is not continued"


def test_the_same_sweep_twice_at_once_has_two_parents(cfg, key):
    parents = [start_sweep(cfg, f"seed={key}")[0] for _ in range(2)]
    assert len(set(parents)) == 2
    for parent in parents:
        tracking.end_parent(cfg.tracking, parent, "FINISHED")
    assert not list((Path(cfg.tracking.dir) / "work").glob(f"*{parents[0]}*"))


def test_a_sweep_whose_parent_was_deleted_or_closed_elsewhere_gets_a_new_one(cfg, key):
    mlflow = mlflow_store.client(cfg.tracking)
    parent, _ = start_sweep(cfg, f"seed={key}")
    for end in (mlflow.delete_run, lambda run_id: mlflow.set_terminated(run_id, "KILLED")):
        sweep_run._open.pop(parent)[1].release()
        end(parent)
        new, resumed = start_sweep(cfg, f"seed={key}")
        assert new != parent and not resumed
        parent = new


def test_search_keeps_to_its_experiment_and_limit(cfg, key):
    for i in range(2):
        with begin(cfg, f"{key}{i}"):
            pass
    assert [run.tags["key"] for run in tracking.search(cfg.tracking, "demo", limit=1)] == [key + "1"]
    assert tracking.search(cfg.tracking, "no such experiment") == []


def test_unknown_and_ambiguous_runs(cfg, key):
    for i in range(17):  # one more run than there are hexadecimal digits: two of them begin alike
        tracking.start_parent(cfg.tracking, "many", f"{i}", {})
    with pytest.raises(RunNotFoundError, match="no run 'ffffffffffff'"):
        tracking.load_run(cfg.tracking, "f" * 12)
    with pytest.raises(RunNotFoundError, match="no run"):
        tracking.load_run(cfg.tracking, "x' or 1=1")
    first = {run.info.run_id[0] for run in mlflow_store.client(cfg.tracking).search_runs(["1", "2"])}
    ambiguous = []
    for digit in first:
        try:
            tracking.load_run(cfg.tracking, digit)
        except RunNotFoundError as error:
            ambiguous.append(str(error))
    assert ambiguous and all("give more digits" in text for text in ambiguous)


def test_traces_leave_mlflows_global_tracking_uri_unset(cfg, key, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)
    share = replace(cfg.tracking, trace_share=1.0)
    with begin(cfg, key) as active, tracking.traced(share, active.run_id):
        assert mlflow.get_tracking_uri() == mlflow_store.tracking_uri(cfg.tracking)
    assert not mlflow.tracking.is_tracking_uri_set() and "MLFLOW_TRACKING_URI" not in os.environ


def test_the_advice_for_a_deleted_experiment_restores_it(cfg):
    mlflow = mlflow_store.client(cfg.tracking)
    mlflow.delete_experiment(mlflow_store.experiment_id(cfg.tracking, "deleted"))
    with pytest.raises(TrackingError) as caught:
        mlflow_store.experiment_id(cfg.tracking, "deleted")
    uri = mlflow_store.tracking_uri(cfg.tracking)
    assert f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x " in str(caught.value)


# ---- the model


class TinyNetwork(HasNetwork):
    """A predictor with a network, under the name of one that is registered with this capability."""

    name = "cnn"

    def __init__(self) -> None:
        import torch

        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
        self.example = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)

    def save(self, folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"weights")

    def torch_module(self):
        return self.module, self.example

    @classmethod
    def untrained_network(cls, cfg, classes):
        raise NotImplementedError


@pytest.mark.slow
def test_a_network_is_logged_and_loads_again(cfg, key, monkeypatch):
    import mlflow
    import torch

    predictor = TinyNetwork()
    with begin(cfg, key) as active:
        active.log_predictor(predictor)
    stored = tracking.load_run(cfg.tracking, active.run_id)
    assert (stored.artifact("predictor") / "weights.bin").read_bytes() == b"weights"
    mlflow.set_tracking_uri(mlflow_store.tracking_uri(cfg.tracking))
    rows = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)  # another batch size than the example's
    with torch.no_grad():
        expected = predictor.module.eval()(torch.from_numpy(rows)).numpy()
    uri = f"runs:/{active.run_id}/model"
    with torch.no_grad():
        np.testing.assert_allclose(mlflow.pytorch.load_model(uri)(torch.from_numpy(rows)).numpy(), expected, atol=1e-6)
    loaded = mlflow.pyfunc.load_model(uri)
    np.testing.assert_allclose(loaded.predict(rows), expected, atol=1e-6)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 5)
    assert loaded.input_example.shape == (4, 5)
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert (folder / "data" / "model.pt2").exists() and not list(folder.rglob("*.pkl")) + list(folder.rglob("*.pth"))


@pytest.mark.parametrize("killed_in", ["_save", "finalize_logged_model", "log_outputs", None])
def test_a_run_that_was_killed_while_logging_has_one_model_and_one_value_per_metric(cfg, key, monkeypatch, killed_in):
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def save(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text("a model")

    def log(active: tracking.ActiveRun, fit_s: float) -> None:
        active.log_metrics({"test/uar": 0.5, "test/ece": float("nan"), "params/total": 9.0, "time/fit_s": fit_s})
        active.log_predictor(TinyNetwork())

    monkeypatch.setattr(torch_model, "_save", save)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), begin(cfg, key) as active:
        if killed_in:
            patch.setattr(torch_model if killed_in == "_save" else MlflowClient, killed_in, killed)
        log(active, 100.0)
        raise KeyboardInterrupt
    with begin(cfg, key) as active:
        log(active, 0.1)  # the training was finished before, and only restored
        active.log_metrics({"test/uar": 0.6})
    mlflow = mlflow_store.client(cfg.tracking)
    run = mlflow.get_run(active.run_id)
    [model] = mlflow.search_logged_models([run.info.experiment_id], f"source_run_id = '{active.run_id}'")
    assert model.status == "READY" and [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    values = {name: [value for _, value in history(cfg, run.info.run_id, name)] for name in run.data.metrics}
    assert values["params/total"] == [9.0] and len(values["test/ece"]) == 1
    assert values["time/fit_s"] == [100.0], "what the process measured that did the work"
    assert values["test/uar"] == [0.5, 0.6] and run.data.metrics["test/uar"] == 0.6, "a new result is not dropped"
    assert all(len(of_metric) == 1 for name, of_metric in values.items() if name != "test/uar")


def test_a_count_of_skipped_files_is_logged_once_by_a_resumed_run(cfg, key):
    corpus = make_corpus(skipped={"bad.wav": "zero bytes"})
    with pytest.raises(KeyboardInterrupt), begin(cfg, key, corpus=corpus):
        raise KeyboardInterrupt
    with begin(cfg, key, corpus=corpus) as active:
        pass
    assert history(cfg, active.run_id, "corpus/skipped_files") == [(0, 1.0)]
    assert len(mlflow_store.client(cfg.tracking).get_run(active.run_id).inputs.dataset_inputs) == 4


def test_models_are_not_logged_where_that_is_not_wanted(cfg, key):
    plain = compose_config(Path(cfg.tracking.dir), "tracking.log_model=false")
    with begin(plain, key) as active:
        active.log_predictor(TinyNetwork())
    run = mlflow_store.client(cfg.tracking).get_run(active.run_id)
    assert not run.outputs or not run.outputs.model_outputs


def test_a_network_with_one_example_row_is_refused(cfg, key):
    predictor = TinyNetwork()
    predictor.example = predictor.example[:1]
    with pytest.raises(ValueError, match="two rows"), begin(cfg, key) as active:
        active.log_predictor(predictor)


# ---- a server


@pytest.fixture
def server(tmp_path):
    """A real tracking server on loopback that keeps artifacts itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store_uri, kept = f"sqlite:///{tmp_path}/server.db", str(tmp_path / "kept")
    where = ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", store_uri]
    command = [sys.executable, "-m", "mlflow", "server", *where, "--artifacts-destination", kept, "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):  # a loaded machine takes minutes to import a server
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        else:
            pytest.fail((tmp_path / "server.log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_run_goes_to_a_server_and_comes_back(tmp_path, server, key):
    cfg = compose_config(tmp_path / "mlruns", "model=cnn", f"tracking.uri={server}")
    assert tracking.open_store(cfg.tracking) == server
    corpus = make_corpus()
    split = make_split(corpus)
    predictions = make_predictions(split, corpus)
    with begin(cfg, key) as active:
        active.log_epoch(1, {"train/loss": 1.0})
        active.log_split(split)
        active.log_predictions(predictions, corpus.by_id)
        active.log_predictor(TinyNetwork())
    run = tracking.find_finished(cfg, key)
    assert run is not None and run.run_id == active.run_id
    assert not run.artifact_uri.startswith("file:")
    assert run.config() == cfg and run.split() == split
    assert run.predictions().predicted == predictions.predicted
    assert (run.artifact("predictor") / "weights.bin").read_bytes() == b"weights"
    assert tracking.results_page(cfg.tracking).startswith(server)
    with pytest.raises(TrackingError):
        run.artifact("no such file")


# ---- what must not be logged


def test_no_key_reaches_the_store(tmp_path, monkeypatch):
    key = "sk-test-a1b2c3d4e5f6"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("MY_URL", f"http://me:hunter22@host/{key}/v1")
    cfg = compose_config(tmp_path / "mlruns", "model=llm", "llm=gpt4o", "llm.base_url=${oc.env:MY_URL}")
    tracking.open_store(cfg.tracking)
    with pytest.raises(RuntimeError), begin(cfg, KEY):
        raise RuntimeError(f"401: incorrect key {key}")
    with begin(cfg, KEY) as active:
        tracking.describe_run(cfg.tracking, active.run_id, f"used {key}")
    with pytest.raises(RuntimeError), begin(cfg, KEY + "b"):
        raise RuntimeError(f"401: incorrect key {key}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files) and any(path.name == "config.yaml" for path in files)
    for path in files:
        content = path.read_bytes()
        assert key.encode() not in content and b"hunter22" not in content, path
    assert "api_key_env: OPENAI_API_KEY" in (
        tracking.load_run(cfg.tracking, active.run_id).artifact("config.yaml").read_text()
    )


def test_ordinary_words_are_left_alone(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "demo")
    assert redaction.redact("corpus demo") == "corpus demo"
    monkeypatch.setenv("SOME_TOKEN", "long enough")
    assert redaction.redact("it is long enough") == "it is ***"
    assert redaction.redact("https://a:b@host/x and me@host") == "https://***@host/x and me@host"


# ---- the commit


def test_the_commit_and_whether_the_code_was_changed(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    assert run_description.code_version(tmp_path) == {"commit": "unknown", "dirty": "unknown"}
    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert run_description.code_version(tmp_path) == {"commit": head, "dirty": "false"}
    (tmp_path / "my_clips.csv").write_text("path\n")  # no code
    assert run_description.code_version(tmp_path)["dirty"] == "false"
    (tmp_path / "src" / "b.py").write_text("b = 1\n")
    assert run_description.code_version(tmp_path)["dirty"] == "true"
    assert (
        run_description.code_version(tmp_path / "src")["commit"] == "unknown"
    )  # installed inside somebody else's checkout


def test_a_machine_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_description.code_version() == {"commit": "unknown", "dirty": "unknown"}
