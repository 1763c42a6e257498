"""Composition of a run's configuration: from YAML files and overrides to typed objects, and back to plain values.

Precedence: `conf/config.yaml`, then the experiment, then the command line. The dataclasses are registered with Hydra,
so that unknown keys and values of the wrong type are errors. `folders` says where the files are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from platformdirs import user_cache_dir

from ser_bench.config import folders, secret_words
from ser_bench.config.keys import ROLE, KeyRole
from ser_bench.config.override_words import check_overrides
from ser_bench.config.schema import (
    AdaptConfig,
    AsrConfig,
    AugmentConfig,
    Config,
    CorpusConfig,
    FeaturesConfig,
    HeadConfig,
    LlmConfig,
    ModelConfig,
    SizeConfig,
    SplitConfig,
    TextConfig,
    TrackingConfig,
    TrainerConfig,
)
from ser_bench.errors import ConfigError
from ser_bench.redaction import redact

NO_CHOICE = re.compile(r"Could not find '(\S+?)/(\S+)' Available options in '[^']*': (.+)$")
"""Hydra's message on a choice of a group that does not exist."""
NO_VALUE = re.compile(r"Error merging override (\S+) (.+?) full_key: ")
"""Hydra's message on a value that its key does not take."""

SHARED_SCHEMAS: dict[str, type] = {
    "schema/config": Config,
    "schema/size/base": SizeConfig,
    "schema/corpus/base": CorpusConfig,
    "schema/split/base": SplitConfig,
    "schema/features/base": FeaturesConfig,
    "schema/augment/base": AugmentConfig,
    "schema/asr/base": AsrConfig,
    "schema/text/base": TextConfig,
    "schema/llm/base": LlmConfig,
    "schema/adapt/base": AdaptConfig,
    "schema/head/base": HeadConfig,
    "schema/trainer/base": TrainerConfig,
    "schema/tracking/base": TrackingConfig,
}


def model_schemas() -> dict[str, type[ModelConfig]]:
    """Return the name of every predictor → the dataclass of its keys under `model:`."""
    # The one import against the direction of the chain: the dataclasses stand beside the predictors' classes.
    from ser_bench.predictors.registry import config_classes

    return config_classes()


def schemas() -> dict[str, type]:
    """Return every dataclass by the name under which the YAML files refer to it ("schema/model/cnn")."""
    return SHARED_SCHEMAS | {f"schema/model/{name}": schema for name, schema in model_schemas().items()}


def register() -> None:
    """Register the dataclasses, the experiments and the user's own folders with Hydra; call it before composing.

    Raises:
        ConfigError: if a configuration in the working directory has the name of one that comes with ser_bench.
    """
    folders.register_search_path()
    files = tuple((path, path.stat().st_mtime_ns) for path in folders.experiment_files())
    without_file = tuple(sorted(set(model_schemas()) - folders.choices("model")))
    _register_once(tuple(schemas().items()), without_file, files)


@lru_cache(maxsize=1)
def _register_once(
    nodes: tuple[tuple[str, type], ...], without_file: tuple[str, ...], experiments: tuple[tuple[Path, int], ...]
) -> None:
    """Register these; what was registered last is not registered again, which takes as long as half a composition.

    A model without a YAML file, as another distribution may add it, has the defaults of its dataclass.
    """
    store = ConfigStore.instance()
    for name, schema in nodes:
        group, _, node = name.rpartition("/")
        store.store(group=group, name=node, node=schema)
        if group == "schema/model" and node in without_file:
            store.store(group="model", name=node, node=schema)
    for path, _ in experiments:
        store.store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


def compose(overrides: Sequence[str]) -> Config:
    """Return the configuration that a run would have, composed of these overrides.

    Raises:
        ConfigError: a word is no override or needs quotes, or a choice or key does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    secret_words.check_words(overrides)  # first, because other messages may quote a word
    check_overrides(overrides, sweep=False)
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders.CONF), version_base="1.3"):
            composed = hydra_compose("config", list(overrides))
    except HydraException as error:
        raise ConfigError(redact(message_of(error))) from error
    secret_words.check_composed(composed)
    cfg = to_config(composed)
    secret_words.register_secrets(cfg)
    return cfg


def message_of(error: BaseException) -> str:
    """Return the message of one of Hydra's errors in one line, with that of its cause.

    Two frequent ones are said in the words of the command line: a choice that does not exist, and a value that its key
    does not take.
    """
    texts = dict.fromkeys(str(e) for e in (error, error.__cause__) if e is not None)
    text = " ".join(" ".join(texts).split()).partition(" Config search path:")[0]
    choice, value = NO_CHOICE.search(text), NO_VALUE.search(text)
    if choice:
        group, name, choices = choice.groups()
        near = get_close_matches(name, choices.split(), n=1)
        advice = f"did you mean {near[0]}? " if near else ""
        return f"{group}={name}: there is no such choice; {advice}Choices: {choices.replace(' ', ', ')}"
    return f"{value[1]}: {value[2][0].lower()}{value[2][1:]}" if value else text


def to_config(composed: DictConfig) -> Config:
    """Resolve interpolations and return typed objects.

    Raises:
        ConfigError: a value is missing or of the wrong type.
    """
    try:
        config = OmegaConf.to_object(composed)
    except Exception as error:  # omegaconf has no common base for these
        raise ConfigError(f"the configuration is not complete: {str(error).splitlines()[0]}") from error
    if not isinstance(config, Config):
        raise ConfigError(f"the configuration was composed without its schema; start runs with {folders.RUN_COMMAND}")
    return config


def to_plain(cfg: Config) -> dict[str, Any]:
    """Return the configuration as nested dicts of plain values, enums as their names."""
    container = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    if not isinstance(container, dict):
        raise ConfigError("a configuration must be a mapping")
    return {str(name): value for name, value in container.items()}


def flattened(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names.

    >>> flattened({"features": {"pitch": {"floor_hz": 75.0}}, "seed": 0})
    {'features.pitch.floor_hz': 75.0, 'seed': 0}
    """
    leaves: dict[str, Any] = {}
    for name, value in node.items():
        path = f"{prefix}{name}"
        leaves |= flattened(value, path + ".") if isinstance(value, Mapping) else {path: value}
    return leaves


def run_here(cfg: Config, here: Config) -> Config:
    """Return another run's configuration with the keys of role `machine` taken from `here`."""
    moved: Config = _with_machine_keys(cfg, here)
    return moved


def _with_machine_keys(node: Any, here: Any) -> Any:
    changes = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if item.metadata.get(ROLE) is KeyRole.machine:
            changes[item.name] = getattr(here, item.name)
        elif is_dataclass(value) and type(value) is type(getattr(here, item.name)):
            changes[item.name] = _with_machine_keys(value, getattr(here, item.name))
    return replace(node, **changes)


def cache_dir(cfg: Config) -> Path:
    """Return the folder of everything that can be computed or downloaded again."""
    return Path(cfg.cache_dir) if cfg.cache_dir else default_cache_dir()


def default_cache_dir() -> Path:
    """Return `$SER_BENCH_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("SER_BENCH_CACHE") or user_cache_dir("ser_bench"))
