"""Every YAML in conf/ and experiments/ composes against its schema; unknown keys, choices and values fail."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from ser_bench import config, predictors
from ser_bench.config import to_config, to_plain
from ser_bench.errors import ConfigError
from ser_bench.predictors.fusion import Combine, FusionConfig
from ser_bench.predictors.registry import config_classes

ROOT = Path(__file__).resolve().parents[2]
CHOICES = sorted(p.relative_to(ROOT / "conf") for p in (ROOT / "conf").glob("*/*.yaml"))
GROUPS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml")) for group in sorted((ROOT / "conf").glob("*/"))
}
"""Name of a group → its choices."""
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


def composed(*overrides: str) -> config.Config:
    config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_config(compose("config", list(overrides)))


@pytest.mark.parametrize("position", range(max(map(len, GROUPS.values()))))
def test_every_choice_composes(position: int) -> None:
    """One composition has a choice of every group that has so many, because a composition takes a third of a second."""
    chosen = {group: names[position] for group, names in GROUPS.items() if position < len(names)}
    extra = ["corpus.root=my_clips.csv"] if chosen.get("corpus") == "table" else []
    cfg = to_plain(composed("experiment=none", *(f"{group}={name}" for group, name in chosen.items()), *extra))
    if "prompting" in chosen:  # it sets keys of `llm` and has no node of its own
        assert cfg["llm"]["option"] == chosen.pop("prompting").replace("none", "")
    for group, name in chosen.items():
        assert cfg[group] and cfg[group].get("name", name) in (name, cfg[group].get("protocol", name)), (group, name)


@pytest.mark.parametrize("path", CHOICES, ids=str)
def test_the_first_line_says_what_the_choice_is(path: Path) -> None:
    assert (ROOT / "conf" / path).read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_composes_and_says_its_question(path: Path) -> None:
    models = predictors.names()
    composed(f"experiment={path.stem}")
    composed(f"experiment={path.stem}", f"model={models[EXPERIMENTS.index(path) % len(models)]}")
    header = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    for word in ("question:", "command:", "time:", "result:"):
        assert any(line.startswith(f"# {word}") for line in header), f"{path.name} has no line '# {word}'"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_sets_no_key_that_only_some_models_have(path: Path) -> None:
    """With every model it composes then: a key under `model:` that a model does not know would be an error."""
    known = set.intersection(*({field.name for field in fields(kind)} for kind in config_classes().values()))
    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    assert set(content.get("model", {})) <= known


def test_every_model_has_a_yaml_and_the_other_way_round() -> None:
    assert {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} == set(predictors.names())


def test_without_a_word_the_demo_runs() -> None:
    cfg = composed()
    assert (cfg.experiment_name, cfg.corpus.name, cfg.size.name, cfg.trainer.name) == ("demo", "demo", "eighth", "demo")
    assert (cfg.llm.name, cfg.split.folds) == ("local", 2)


def test_command_line_beats_experiment_beats_config() -> None:
    assert composed("experiment=paper").size.name == "paper"
    assert composed("experiment=paper", "size=quarter").size.name == "quarter"
    assert composed("corpus=cremad").size.name == "eighth"
    assert composed("corpus=cremad").split.folds == 5


def test_size_reaches_the_networks() -> None:
    assert composed("size=half", "model=cnn_text").model.channels == [256, 256, 128, 128, 64]


def test_every_key_of_a_fusion_can_be_set() -> None:
    changed = {
        "members": ["cnn_text", "0ab11646"], "C": 0.1, "max_iter": 5, "width": 7, "dropout": 0.1, "member_dropout": 0.2,
        "label_smoothing": 0.3, "epochs": 4, "batch_size": 6, "learning_rate": 0.01, "weight_decay": 0.5, "seeds": 2,
    }  # fmt: skip
    words = [f"model.{key}={value}" for key, value in changed.items()]
    found = composed("model=fusion", "model.combine=mean", *words).model
    assert found == FusionConfig(**changed, combine=Combine.mean)
    assert {*changed, "name", "combine"} == set(FusionConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=resnet", "cnn_text"),
        ("model.width=3", "model.width"),
        ("model=fusion model.combine=product", "product"),
        ("seeed=1", "seeed"),
        ("on_bad_clip=maybe", "on_bad_clip"),
        ("split.protocol=random", "split.protocol"),
        ("trainer.max_epochs=many", "trainer.max_epochs"),
    ],
)
def test_unknown_names_fail_and_are_named(override: str, said: str) -> None:
    with pytest.raises((ConfigCompositionException, MissingConfigException), match=said):
        composed(*override.split())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "model=cnnn",
            r"model=cnnn: there is no such choice; did you mean cnn\? Choices: audio_llm, cnn, .*whisper_probe$",
        ),
        ("experiment=mines", r"experiment=mines: there is no such choice; Choices: adaptation, .*three_predictors$"),
        (
            "trainer.max_epochs=two",
            r"trainer.max_epochs=two: value 'two' of type 'str' could not be converted to Integer$",
        ),
        ("corpus.labels=basic7", r"corpus.labels=basic7: invalid value 'basic7', expected one of \[native, basic6\]$"),
    ],
)
def test_a_wrong_choice_or_value_is_said_in_one_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        config.compose([word])
