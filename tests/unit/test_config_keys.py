"""The role of every configuration key, and that run key, run groups, sweep names and restored runs agree on it."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from ser_bench import pipeline, predictors, splits
from ser_bench.comparison import run_groups
from ser_bench.config import (
    CONTENT_GROUPS,
    Config,
    Key,
    KeyRole,
    LlmConfig,
    Protocol,
    SplitConfig,
    TrackingConfig,
    leaves,
    named_overrides,
    roles,
    run_here,
    schemas,
    scientific_part,
    to_plain,
)
from ser_bench.tracking import StoredRun, run_description
from ser_bench.types import Clip, Corpus
from tests.support.fake_inputs import compose_config

EMOTIONS = ("angry", "happy", "sad")
CORPUS = Corpus(
    "table",
    tuple(
        Clip(f"s{s:02}_{i}", Path("x.wav"), EMOTIONS[i % 3], f"s{s:02}", sentence=f"t{i // 3}", digest=f"{s}-{i}")
        for s in range(12)
        for i in range(9)
    ),
    EMOTIONS,
    "en",
)
MODELS = tuple(predictors.names())


SPLIT = splits.make(CORPUS, SplitConfig(Protocol.speaker), ["clean"])
SHARED_KEYS_OF = ("cnn_text", "llm", "whisper_probe")
"""Models that together read every shared group; the group `model` is walked for all of them."""


def keys_of(cfg: Config) -> list[Key]:
    """Every leaf of the configuration of a run; shared groups for a few models only, which saves time."""
    own = list(leaves(type(cfg.model), "model."))
    return own + [k for k in leaves(Config) if k.group != "model" and cfg.model.name in SHARED_KEYS_OF]


def value_at(node: Any, path: str) -> Any:
    for name in path.split("."):
        node = getattr(node, name)
    return node


def changed(node: Any, path: str, full: str = "") -> Any:
    """The same configuration with another value of one key."""
    first, _, rest = path.partition(".")
    value = getattr(node, first)
    return replace(node, **{first: changed(value, rest, full or path) if rest else another(value, full or path)})


def another(value: Any, path: str) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if value is None:
        lists = {"text.languages": ["xx"], "model.layers": [1], "model.trained_on": ["x"]}
        return (lists | {"model.revision": "x"}).get(path, guess_for_null(path))
    if isinstance(value, dict):
        return value | {"x": "x"}
    return [*value, value[0]] if len(value) else ["x"]


def guess_for_null(path: str) -> Any:
    """A value of the declared type of a key whose default is null."""
    text = ("root", "list", "test_corpus", "test_root", "test_language", "uri", "gguf", "base_url", "cache_dir",
            "enrol_emotion", "api_key_env")  # fmt: skip
    return "x" if path.rpartition(".")[2] in text else 3


def run_key(cfg: Config) -> str:
    """Under one corpus and one split: those enter the key by their content."""
    return pipeline.run_key(cfg, CORPUS, SPLIT)


def stored(cfg: Config) -> StoredRun:
    """A stored run of this configuration, without artifacts."""
    tags = {"model": cfg.model.name, "seed": "0", "fold": "0"}
    tags["key_groups"] = " ".join(predictors.predictor_class(cfg.model.name).groups)
    return StoredRun("id", "name", "FINISHED", 0, tags, {}, run_description.params(cfg), None, "", TrackingConfig())


CHECKED: set[tuple[str, bool]] = set()
"""Keys outside the group `model`, and whether the model reads their group, that were checked already."""


@pytest.mark.parametrize("model", MODELS)
def test_all_users_of_a_key_agree_on_its_role(model: str) -> None:
    cfg = compose_config("experiment=none", f"model={model}", "corpus=demo")
    role_of, group_names = roles(Config, type(cfg.model)), list(to_plain(cfg))
    groups = predictors.predictor_class(model).groups
    key, setting = run_key(cfg), run_groups.setting_of(stored(cfg))
    for leaf in keys_of(cfg):
        if leaf.path == "model.name":
            continue
        read = leaf.group in ("", "model", *groups)
        if leaf.group != "model" and (leaf.path, read) in CHECKED:
            continue  # another model of this process has shown it
        CHECKED.add((leaf.path, read))
        other = changed(cfg, leaf.path)
        decides = leaf.role.decides_result and read and leaf.path != "split.fold"
        assert (run_key(other) != key) == decides, f"run key and {leaf.path} ({leaf.role})"
        tells = leaf.role is KeyRole.scientific and (read or leaf.group in CONTENT_GROUPS)
        assert (run_groups.setting_of(stored(other)) != setting) == tells, f"run groups and {leaf.path} ({leaf.role})"
        named = bool(named_overrides([f"{leaf.path}=x"], role_of, group_names))
        assert named == leaf.role.decides_result, f"sweep name and {leaf.path} ({leaf.role})"
        taken = value_at(run_here(cfg, other), leaf.path)
        wanted = value_at(other if leaf.role is KeyRole.machine else cfg, leaf.path)
        assert taken == wanted, f"restored run and {leaf.path} ({leaf.role})"


def test_tokens_of_an_answer_are_scientific_and_parallel_requests_are_not() -> None:
    known = roles(Config, schemas()["schema/model/llm"])
    assert known["llm.max_tokens"] is KeyRole.scientific
    assert known["llm.max_concurrency"] is KeyRole.neutral


def test_an_unknown_entry_counts_as_scientific() -> None:
    assert scientific_part({"fold": 1, "root": "x", "new": 2}, schemas()["schema/corpus/base"]) == {"fold": 1, "new": 2}


ADDED = ("llm.option", "llm.orders", "llm.example_choice", "llm.example_pool", "llm.neighbours", "llm.calibration",
         "llm.calibration_clips", "split.scored", "llm.api", "llm.api_version", "llm.thinking_tokens",
         "llm.reasoning_effort", "llm.unsupported", "llm.audio_form")  # fmt: skip


def test_an_added_key_with_its_default_leaves_the_keys_of_earlier_runs() -> None:
    cfg = compose_config("experiment=none", "model=llm", "corpus=demo")
    now = stored(cfg)
    earlier = replace(now, params={name: value for name, value in now.params.items() if name not in ADDED})
    assert set(ADDED) <= set(now.params) and run_groups.setting_of(earlier) == run_groups.setting_of(now)
    part = scientific_part(to_plain(cfg)["llm"], LlmConfig)
    assert "prompt" in part and not {name.partition(".")[2] for name in ADDED} & set(part)
    assert scientific_part(to_plain(cfg)["llm"] | {"orders": 2}, LlmConfig) == part | {"orders": 2}


def test_folds_that_an_endpoint_asked_differently_are_not_one_run_group() -> None:
    def fold(number: int, changed: str) -> StoredRun:
        run = stored(compose_config("experiment=none", "model=llm", "corpus=demo"))
        tags = {"fold": str(number)} | ({"llm_changed_parameters": changed} if changed else {})
        return replace(run, tags=run.tags | tags)

    [group] = run_groups.group_runs([fold(0, ""), fold(1, "")])
    assert group.folds == {0, 1}
    groups = run_groups.group_runs([fold(0, "seed left out"), fold(1, "seed left out"), fold(2, "")])
    assert {g.name: g.folds for g in groups} == {"llm llm.changed=seed left out": {0, 1}, "llm llm.changed=null": {2}}


def test_run_groups_are_named_by_the_choice_of_prompting() -> None:
    words = (["llm.option=a", "llm.orders=2", "llm.shots=2"], ["llm.option=b", "llm.orders=3"])
    runs = [stored(compose_config("experiment=none", "model=llm", "corpus=demo", *given)) for given in words]
    assert [group.name for group in run_groups.group_runs(runs)] == ["llm llm.option=a", "llm llm.option=b"]


def test_the_name_of_a_sweep_holds_what_is_compared() -> None:
    known, groups = roles(Config, schemas()["schema/model/cnn"]), list(SCHEMAS_GROUPS)
    words = ["model=cnn,llm", "corpus.root=/x", "tracking.dir=/y", "hydra.sweep.dir=z", "hydra/launcher=joblib",
             "split.fold=0,1", "tracking=local", "trainer.threads=1", "+experiment=paper", "cache_dir=/c"]  # fmt: skip
    assert named_overrides(words, known, groups) == ["model=cnn,llm", "split.fold=0,1", "+experiment=paper"]


SCHEMAS_GROUPS = ("model", "size", "corpus", "split", "features", "augment", "asr", "text", "llm", "head", "adapt",
                  "trainer", "tracking")  # fmt: skip


def test_a_restored_run_computes_on_the_devices_of_this_machine() -> None:
    there = compose_config("experiment=none", "trainer.accelerator=gpu", "features.device=cuda", "corpus.root=/there")
    here = compose_config("experiment=none", "corpus.root=/here", "seed=5")
    restored = run_here(there, here)
    assert (restored.trainer.accelerator, restored.features.device, restored.corpus.root) == ("cpu", "cpu", "/here")
    assert restored == replace(there, trainer=restored.trainer, features=restored.features, corpus=restored.corpus)
