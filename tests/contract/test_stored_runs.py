"""What earlier code stored can be read, answers as it did, and is written in the same form; run keys stay as they are.

The data was made with the code of commit 85780d1; `tests/fixtures/make_stored_runs.py` says how. A test that fails here
means that runs in users' stores can no longer be restored, or are carried out again although they are finished.
"""

from __future__ import annotations

import functools
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from ser_bench import predictions, predictors, splits, tracking
from ser_bench.config import TrackingConfig
from ser_bench.pipeline import run_key
from ser_bench.tracking.run_description import params
from ser_bench.types import Corpus
from tests.fixtures.small_corpus import small_corpus
from tests.fixtures.spoken import Spoken
from tests.support import fake_openai
from tests.support.fake_inputs import FakeInputs, compose_config

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CASES = sorted(path.name for path in (FIXTURES / "stored_runs").iterdir())
KEYS: list[dict[str, Any]] = json.loads((FIXTURES / "run_keys.json").read_text(encoding="utf-8"))
ARTIFACTS = ("config.yaml", "predictions.parquet", "split.json", "clips.parquet")
VERSION = "0.1.0"
"""Of the package when the data was made; a run's key holds it."""
KEY_VARIABLE = "SER_BENCH_TEST_KEY"
SPREAD = 1.5
PARAMS_PER_BATCH = 100

each = pytest.mark.parametrize("case", CASES)
cached_corpus = functools.cache(small_corpus)


class SpokenInputs(Spoken, FakeInputs):
    """The inputs that every predictor was fitted on."""


@dataclass(eq=False)
class Store:
    """A store to which the stored runs are logged when they are asked for."""

    cfg: TrackingConfig
    client: MlflowClient
    experiment: str
    known: dict[str, tracking.StoredRun] = field(default_factory=dict)

    def run(self, case: str) -> tracking.StoredRun:
        """One case as a finished run."""
        if case not in self.known:
            self.known[case] = tracking.load_run(self.cfg, self.log(case))
        return self.known[case]

    def log(self, case: str) -> str:
        """The id of a new run."""
        folder = FIXTURES / "stored_runs" / case
        run_id: str = self.client.create_run(self.experiment, run_name=case).info.run_id
        tags = [RunTag(name, value) for name, value in read_json(folder / "tags.json").items()]
        metrics = [Metric(name, value, 0, 0) for name, value in read_json(folder / "metrics.json").items()]
        self.client.log_batch(run_id, metrics=metrics, tags=tags)
        logged = [Param(name, value) for name, value in read_json(folder / "params.json").items()]
        for start in range(0, len(logged), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=logged[start : start + PARAMS_PER_BATCH])
        for name in ARTIFACTS:
            self.client.log_artifact(run_id, str(folder / name))
        self.client.log_artifacts(run_id, str(folder / "predictor"), "predictor")
        self.client.set_terminated(run_id, status="FINISHED")
        return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    cfg = TrackingConfig(dir=str(folder), experiment="stored")
    client = MlflowClient(tracking_uri=tracking.open_store(cfg))
    return Store(cfg, client, client.create_experiment("stored", artifact_location=(folder / "artifacts").as_uri()))


@pytest.fixture
def restored(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Gives the predictor of a case; the language model is a server on loopback."""
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with fake_openai.serve(answer) as server:

        def load(case: str) -> Any:
            run = store.run(case)
            cfg = run.config()
            cfg = replace(cfg, cache_dir=str(tmp_path / "cache"), llm=replace(cfg.llm, base_url=server.base_url))
            labels = run.predictions().labels
            return predictors.load(run.artifact("predictor"), cfg, labels, SpokenInputs(spread=SPREAD))

        yield load


@pytest.fixture
def stored_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[run_key.__module__], "__version__", VERSION)


def answer(body: dict[str, Any]) -> fake_openai.Reply:
    """A label that depends on every character of the messages."""
    labels = ("anger", "fear", "sadness")
    return fake_openai.label(labels[zlib.crc32(json.dumps(body["messages"]).encode()) % len(labels)])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def corpus_of(run: tracking.StoredRun) -> Corpus:
    clips = tracking.stored_clips(run)
    assert clips is not None
    return Corpus(run.tags["corpus"], tuple(clips.values()), tuple(run.tags["labels"].split()), run.tags["language"])


def test_there_are_stored_runs_and_keys() -> None:
    assert len(CASES) >= 18 and len(KEYS) >= 157


@each
def test_the_restored_predictor_answers_as_it_did(case: str, store: Store, restored: Callable[[str], Any]) -> None:
    before = store.run(case).predictions()
    now = restored(case).predict(store.run(case).split().test)
    assert (now.rows, now.labels, now.truth, now.source) == (before.rows, before.labels, before.truth, before.source)
    assert now.predicted == before.predicted
    assert now.notes == before.notes
    np.testing.assert_allclose(now.probabilities, before.probabilities, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(now.abstained, before.abstained)
    np.testing.assert_array_equal(now.cost_usd, before.cost_usd)


@each
def test_the_restored_predictor_is_stored_in_the_same_form(case: str, store: Store, tmp_path: Path) -> None:
    run = store.run(case)
    predictors.load(run.artifact("predictor"), run.config(), run.predictions().labels, SpokenInputs()).save(tmp_path)
    before = FIXTURES / "stored_runs" / case / "predictor"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in before.iterdir()}
    for path in before.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@each
def test_every_parameter_keeps_its_name_and_its_value(case: str, store: Store) -> None:
    run = store.run(case)
    now = params(run.config())
    assert {name: now.get(name) for name in run.params} == run.params
    assert run.params == read_json(FIXTURES / "stored_runs" / case / "params.json")


@each
def test_split_and_clips_are_what_they_were(case: str, store: Store) -> None:
    run = store.run(case)
    split, corpus = run.split(), corpus_of(run)
    said = [run.tags[name] for name in ("protocol", "fold", "folds")]
    assert [split.protocol, str(split.fold), str(split.folds)] == said
    assert (split.partition, split.rows) == (run.tags["partition"], run.tags["rows"])
    assert corpus.digest == run.tags["corpus_digest"]
    assert {row.clip_id for part in (split.train, split.val, split.test) for row in part} == set(corpus.by_id)


@each
def test_the_table_of_predictions_is_written_in_the_same_form(case: str, store: Store, tmp_path: Path) -> None:
    run = store.run(case)
    predictions.save(run.predictions(), corpus_of(run).by_id, tmp_path / "predictions.parquet")
    before, now = run.frame(), pd.read_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(now, before, check_exact=True)
    assert now.attrs == before.attrs


@each
@pytest.mark.usefixtures("stored_version")
def test_a_stored_run_keeps_its_key(case: str, store: Store) -> None:
    run = store.run(case)
    assert run_key(run.config(), corpus_of(run), run.split(), run.tags.get("members", "").split()) == run.tags["key"]


@pytest.mark.parametrize("entry", KEYS, ids=lambda entry: " ".join(entry["overrides"]) or "no override")
@pytest.mark.usefixtures("stored_version")
def test_the_same_overrides_give_the_same_key(entry: dict[str, Any]) -> None:
    cfg = compose_config(*entry["overrides"])
    corpus = cached_corpus(cfg.corpus.target.name, cfg.split.test_corpus)
    split = splits.make(corpus, cfg.split, cfg.augment.variants)
    assert run_key(cfg, corpus, split, entry.get("members", ())) == entry["key"]
