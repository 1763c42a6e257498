"""The predictors, by name. To add one: write its class, its `conf/model/<name>.yaml`, and one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ser_bench.config import Config
from ser_bench.errors import ConfigError
from ser_bench.types import EpochLog, Inputs, Predictor

REGISTRY: dict[str, str] = {
    "cnn": "ser_bench.predictors.cnn.cnn:Cnn",
    "cnn_text": "ser_bench.predictors.cnn.cnn_text:CnnText",
    "mlp": "ser_bench.predictors.cnn.mlp:Mlp",
    "crnn": "ser_bench.predictors.crnn.crnn:CrnnPredictor",
    "llm": "ser_bench.predictors.llm.llm:Llm",
    "majority": "ser_bench.predictors.baselines.majority:Majority",
    "prior": "ser_bench.predictors.baselines.majority:Prior",
    "text_only": "ser_bench.predictors.baselines.text_only:TextOnly",
    "whisper_probe": "ser_bench.predictors.embeddings.whisper_probe:WhisperProbe",
    "listeners": "ser_bench.predictors.baselines.listeners:Listeners",
    "fusion": "ser_bench.predictors.fusion.fusion:Fusion",
    "egemaps": "ser_bench.predictors.embeddings.egemaps:Egemaps",
    "ssl_probe": "ser_bench.predictors.embeddings.ssl_probe:SslProbe",
}
"""Name → class; imported when asked for, because each brings a heavy library."""


def predictor_class(name: str) -> Any:
    """The class of a predictor.

    Raises:
        ConfigError: no predictor has this name.
    """
    if name not in REGISTRY:
        raise ConfigError(f"model {name!r} is not known; choose one of {', '.join(REGISTRY)}")
    module, _, cls = REGISTRY[name].partition(":")
    return getattr(import_module(module), cls)


def build(cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog) -> Predictor:
    """An untrained predictor; `work_dir` holds the checkpoints of an interrupted run of the same key."""
    predictor: Predictor = predictor_class(cfg.model.name)(cfg, labels, inputs, work_dir, on_epoch)
    return predictor


def load(folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Predictor:
    """A trained predictor from what `Predictor.save` wrote."""
    predictor: Predictor = predictor_class(cfg.model.name).load(folder, cfg, labels, inputs)
    return predictor
