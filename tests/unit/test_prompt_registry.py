"""Prompts in MLflow's prompt registry, in a real store."""

from __future__ import annotations

import json

from ser_bench import tracking
from ser_bench.config import TrackingConfig
from ser_bench.tracking import mlflow_store
from ser_bench.tracking.prompt_registry import register_prompt

SYSTEM, USER = "One of $labels. It costs 5 $$.", "${transcript}"
WORDING = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]


def test_wording_is_registered_once_and_linked_to_its_runs(tmp_path):
    cfg = TrackingConfig(dir=str(tmp_path / "mlruns"), experiment="prompts")
    tracking.open_store(cfg)
    experiment, mlflow_client = mlflow_store.experiment_id(cfg, "prompts"), mlflow_store.client(cfg)
    first, second = (mlflow_client.create_run(experiment).info.run_id for _ in range(2))
    uri = register_prompt(cfg, first, "mine", WORDING, "d1", "1")
    assert uri == "prompts:/ser_bench-mine/1" == register_prompt(cfg, second, "mine", WORDING, "d1", "1")
    stored = mlflow_client.load_prompt(uri)
    assert [m["content"] for m in stored.template] == ["One of {{labels}}. It costs 5 $.", "{{transcript}}"]
    assert stored.tags["digest"] == "d1"
    other = [WORDING[0], {"role": "user", "content": "Say: $transcript"}]
    assert register_prompt(cfg, second, "mine", other, "d2", "2") == "prompts:/ser_bench-mine/2"
    assert register_prompt(cfg, first, "mine", WORDING, "d1", "1") == uri, "an earlier wording keeps its version"
    tags = mlflow_client.get_run(second).data.tags
    assert (tags["prompt"], tags["prompt_digest"]) == ("ser_bench-mine/2", "d2")
    assert json.loads(tags["mlflow.linkedPrompts"]) == [{"name": "ser_bench-mine", "version": "2"}]
