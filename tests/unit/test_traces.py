"""Requests to a language model as MLflow traces, in a real store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import soundfile

from ser_bench import tracking
from ser_bench.config import AudioForm, LlmApi, LlmConfig, TrackingConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.prompting.question import AudioPart, Question
from ser_bench.tracking import mlflow_store
from tests.support import fake_openai as fake
from tests.support import fake_providers
from tests.support.llm_clients import make_client

KEY = "sk-test-Very0Secret1Key2"


@pytest.fixture(scope="module")
def where(tmp_path_factory) -> tuple[TrackingConfig, str]:
    """Return (a store, the id of an experiment in it)."""
    cfg = TrackingConfig(dir=str(tmp_path_factory.mktemp("store") / "mlruns"), experiment="traces", trace_share=1.0)
    tracking.open_store(cfg)
    return cfg, mlflow_store.experiment_id(cfg, "traces")


def new_run(where) -> str:
    cfg, experiment = where
    return mlflow_store.client(cfg).create_run(experiment).info.run_id


def ask(cfg: TrackingConfig, run_id: str, folder, count: int, monkeypatch) -> list[dict[str, str]]:
    """Ask about `count` clips with tracing; return the headers that the server received."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    logprobs = [{"token": "x", "logprob": -1.0, "bytes": None, "top_logprobs": []}]
    text = json.dumps({"emotion": "sad", "key": KEY})
    with fake.serve(lambda body: fake.completion(text, logprobs=logprobs)) as server:
        llm = LlmConfig(name="fake", model="gpt-fake", base_url=server.base_url, max_concurrency=4)
        client = make_client(llm, folder)
        with tracking.traced(cfg, run_id):
            client.ask([Question(({"role": "user", "content": f"clip {n}, {KEY}"},)) for n in range(count)])
        return server.headers


def traces(where, run_id: str):
    cfg, experiment = where
    found = mlflow_store.client(cfg).search_traces(locations=[experiment], max_results=500)
    return [trace for trace in found if trace.info.trace_metadata.get("mlflow.sourceRun") == run_id]


def test_every_request_is_a_trace_of_its_run_without_secrets(where, tmp_path, monkeypatch):
    run_id, before = new_run(where), mlflow.get_tracking_uri()
    ask(where[0], run_id, tmp_path, 3, monkeypatch)
    found = traces(where, run_id)
    assert len(found) == 3
    whole = "\n".join(trace.to_json() for trace in found)
    assert all(f"clip {n}" in whole for n in range(3)), "the prompt"
    assert "emotion" in whole and "gpt-fake" in whole, "the answer, the model"
    assert KEY not in whole and '"logprob":' not in whole.replace("\\", "")
    assert all(trace.info.execution_duration is not None for trace in found)
    assert {trace.info.token_usage["input_tokens"] for trace in found} == {100}
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None
    assert "MLFLOW_TRACE_SAMPLING_RATIO" not in os.environ
    assert mlflow_store.client(where[0]).get_run(run_id).info.status == "RUNNING", "the run is unchanged"


@pytest.mark.parametrize("form", AudioForm)
def test_a_recording_in_either_form_is_in_no_trace(where, tmp_path, form):
    soundfile.write(tmp_path / "clip.wav", np.sin(np.arange(3_200) / 9).astype(np.float32), 16_000)
    recording = AudioPart(tmp_path / "clip.wav", "digest", 0.2)
    run_id = new_run(where)
    with fake.serve(fake_providers.hearing) as server, tracking.traced(where[0], run_id):
        llm = LlmConfig(name="fake", model="m", base_url=server.base_url, api_key_env=None, audio_form=form)
        asked = Question(({"role": "user", "content": "Which emotion?"},), recording=recording)
        make_client(llm, tmp_path / "cache").ask([asked])
    sent = json.dumps(server.asked[0]["messages"])
    [trace] = traces(where, run_id)
    whole = trace.to_json()
    assert "UklGR" in sent and "Which emotion?" in whole, "Base64 of a WAV file begins so"
    assert "UklGR" not in whole and len(whole) < len(sent)
    stored = [path for path in Path(where[0].dir).rglob("*") if path.is_file()]
    assert not [path for path in stored if b"RIFF" in path.read_bytes()], "MLflow stores parts of a prompt as files"


def test_a_request_to_the_responses_api_is_traced_without_logprobs(where, tmp_path):
    run_id = new_run(where)
    with fake.serve(fake_providers.responses) as server, tracking.traced(where[0], run_id):
        llm = LlmConfig(name="fake", model="m", base_url=server.base_url, api_key_env=None, api=LlmApi.responses)
        [answer] = make_client(llm, tmp_path).ask([Question(({"role": "user", "content": "clip 1"},))])
    assert answer.label == "sad" and answer.probabilities
    whole = "\n".join(trace.to_json() for trace in traces(where, run_id))
    assert "clip 1" in whole and '"logprob":' not in whole.replace("\\", "")


def test_switched_off_there_are_no_traces(where, tmp_path, monkeypatch):
    run_id = new_run(where)
    ask(replace(where[0], trace_share=0.0), run_id, tmp_path, 3, monkeypatch)
    assert traces(where, run_id) == []


def test_tracing_ends_with_the_run(where, tmp_path, monkeypatch):
    first, second = new_run(where), new_run(where)
    ask(where[0], first, tmp_path / "a", 2, monkeypatch)
    ask(replace(where[0], trace_share=0.0), second, tmp_path / "b", 2, monkeypatch)
    assert len(traces(where, first)) == 2 and traces(where, second) == []


def test_share_is_sampled(where, tmp_path, monkeypatch):
    run_id = new_run(where)
    ask(replace(where[0], trace_share=0.3), run_id, tmp_path, 60, monkeypatch)
    assert 4 <= len(traces(where, run_id)) <= 36


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_invalid_share_is_refused(share):
    with pytest.raises(ConfigError, match="trace_share"), tracking.traced(TrackingConfig(trace_share=share), "r"):
        pass
