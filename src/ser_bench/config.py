"""Composing a run: the schemas registered with Hydra so that unknown keys and values fail, and typed objects back.

Precedence: `conf/config.yaml`, then the experiment, then the command line.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from platformdirs import user_cache_dir

from ser_bench.choices import (
    AnswerFormat,
    CacheMode,
    Combine,
    Engine,
    LabelSet,
    MfccOrder,
    Mix,
    OnBadClip,
    Pad,
    Pooling,
    Protocol,
    Target,
)
from ser_bench.errors import ConfigError
from ser_bench.schema import (
    AsrConfig,
    AugmentConfig,
    CnnConfig,
    Config,
    ControlConfig,
    CorpusConfig,
    FeaturesConfig,
    FusionConfig,
    LlmModelConfig,
    PitchConfig,
    SizeConfig,
    SplitConfig,
    TextConfig,
    TextOnlyConfig,
    TrackingConfig,
    TrainerConfig,
)
from ser_bench.schema_heads import (
    AdaptConfig,
    AttentivePoolingConfig,
    FixedEpochsConfig,
    HeadConfig,
    WhisperProbeConfig,
)
from ser_bench.schema_llm import LlmConfig
from ser_bench.schema_networks import CrnnConfig, LogMelConfig, MlpConfig
from ser_bench.schema_ssl import SslProbeConfig

__all__ = [
    "PROJECT_ROOT",
    "SCHEMAS",
    "AdaptConfig",
    "AnswerFormat",
    "AsrConfig",
    "AttentivePoolingConfig",
    "AugmentConfig",
    "CacheMode",
    "CnnConfig",
    "Combine",
    "Config",
    "ControlConfig",
    "CorpusConfig",
    "CrnnConfig",
    "Engine",
    "FeaturesConfig",
    "FixedEpochsConfig",
    "FusionConfig",
    "HeadConfig",
    "LabelSet",
    "LlmConfig",
    "LlmModelConfig",
    "LogMelConfig",
    "MfccOrder",
    "Mix",
    "MlpConfig",
    "OnBadClip",
    "Pad",
    "PitchConfig",
    "Pooling",
    "Protocol",
    "SizeConfig",
    "SplitConfig",
    "SslProbeConfig",
    "Target",
    "TextConfig",
    "TextOnlyConfig",
    "TrackingConfig",
    "TrainerConfig",
    "WhisperProbeConfig",
    "cache_dir",
    "default_cache_dir",
    "register",
    "run_here",
    "to_config",
    "to_plain",
]

PROJECT_ROOT = Path(__file__).resolve().parents[2]

SCHEMAS: dict[str, type] = {
    "schema/config": Config,
    "schema/model/cnn": CnnConfig,
    "schema/model/mlp": MlpConfig,
    "schema/model/crnn": CrnnConfig,
    "schema/model/llm": LlmModelConfig,
    "schema/model/majority": ControlConfig,
    "schema/model/prior": ControlConfig,
    "schema/model/text_only": TextOnlyConfig,
    "schema/model/listeners": ControlConfig,
    "schema/model/fusion": FusionConfig,
    "schema/model/egemaps": ControlConfig,
    "schema/model/whisper_probe": WhisperProbeConfig,
    "schema/model/ssl_probe": SslProbeConfig,
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


def register(experiments: Path = PROJECT_ROOT / "experiments") -> None:
    """Put the schemas and every `experiments/*.yaml` where Hydra finds them; call before composing."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        group, _, node = name.rpartition("/")
        store.store(group=group, name=node, node=schema)
    for path in sorted(experiments.glob("*.yaml")):
        store.store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


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
        raise ConfigError("the configuration was composed without its schema; start runs with run.py")
    return config


def to_plain(cfg: Config) -> dict[str, Any]:
    """The configuration as nested dicts of plain values, enums as their names."""
    container = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    if not isinstance(container, dict):
        raise ConfigError("a configuration must be a mapping")
    return {str(key): value for key, value in container.items()}


def run_here(cfg: Config, here: Config) -> Config:
    """Another run's configuration, where files and devices are those of `here`: nothing that a figure depends on."""
    machine = ("accelerator", "devices", "threads", "progress")
    return replace(
        cfg,
        cache_dir=here.cache_dir,
        corpus=replace(cfg.corpus, root=here.corpus.root),
        split=replace(cfg.split, test_root=here.split.test_root),
        trainer=replace(cfg.trainer, **{name: getattr(here.trainer, name) for name in machine}),
    )


def cache_dir(cfg: Config) -> Path:
    """Folder of everything that can be computed or downloaded again."""
    return Path(cfg.cache_dir) if cfg.cache_dir else default_cache_dir()


def default_cache_dir() -> Path:
    """`$SER_BENCH_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("SER_BENCH_CACHE") or user_cache_dir("ser_bench"))
