"""The registry of predictors: `@register` adds one, and everything else looks it up by name.

A predictor is one package below `ser_bench.predictors`: its class, the dataclass of its keys under `model:`, and its
registration stand side by side, and the package's `__init__` imports them. The packages are found by themselves, so
no list has to be edited. Other distributions add predictors by an entry point of the group `ser_bench.predictors`,
which names the module to import. All of them must import PyTorch and other large libraries inside methods only: every
command imports every predictor.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

from ser_bench.config import Config, ModelConfig
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.stored_model import reading
from ser_bench.types import EpochLog, Inputs, Predictor

_REGISTERED: dict[str, type] = {}
_CONFIGS: dict[str, type[ModelConfig]] = {}
ENTRY_POINTS = "ser_bench.predictors"
"""Group of the entry points by which other distributions register predictors."""
Class = TypeVar("Class", bound=type)
Capability = TypeVar("Capability")


class Need(Enum):
    """What a predictor reads of a clip, or beside it."""

    audio = "audio"
    transcript = "transcript"
    f0 = "F0"
    votes = "votes of listeners"
    runs = "other finished runs"


def register(
    name: str, config: type[ModelConfig] = ModelConfig, groups: Sequence[str] = (), needs: Sequence[Need] = ()
) -> Callable[[Class], Class]:
    """Register a predictor class under the name that `model=` chooses.

    Args:
        name: of the predictor, and of its file `conf/model/<name>.yaml`.
        config: dataclass of its keys under `model:`.
        groups: configuration groups that change its result; they are part of the run key, beside `model`.
        needs: what it reads of each clip.

    Raises:
        ValueError: the name is registered already.
    """

    def add(predictor: Class) -> Class:
        if _REGISTERED.get(name, predictor).__qualname__ != predictor.__qualname__:
            raise ValueError(f"predictor {name!r} is registered twice")
        described: Any = predictor
        described.name, described.groups, described.needs = name, tuple(groups), frozenset(needs)
        _REGISTERED[name] = predictor
        _CONFIGS[name] = config
        return predictor

    return add


def names() -> tuple[str, ...]:
    """Return the names of all predictors, sorted."""
    _discover()
    return tuple(sorted(_REGISTERED))


def config_classes() -> dict[str, type[ModelConfig]]:
    """Return name → dataclass of the keys under `model:`."""
    _discover()
    return dict(_CONFIGS)


def predictor_class(name: str) -> Any:
    """Return the class of a predictor.

    Raises:
        ConfigError: no predictor has this name.
    """
    if name not in names():
        raise ConfigError(f"model {name!r} is not known; choose one of {', '.join(names())}")
    return _REGISTERED[name]


def has_capability(name: str, capability: type) -> bool:
    """Return whether the predictor of this name declares a capability (a class of `predictors/capabilities.py`)."""
    return issubclass(predictor_class(name), capability)


def require_capability(predictor: Predictor, capability: type[Capability]) -> Capability:
    """Return the predictor as an object with this capability.

    Raises:
        SerBenchError: its class does not declare it.
    """
    if not isinstance(predictor, capability):
        raise SerBenchError(f"model={predictor.name} does not offer {capability.__name__}")
    return predictor


def build(cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog) -> Predictor:
    """Return an untrained predictor; `work_dir` holds the checkpoints of an interrupted run of the same key."""
    predictor: Predictor = predictor_class(cfg.model.name)(cfg, labels, inputs, work_dir, on_epoch)
    return predictor


def load(folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Predictor:
    """Return the trained predictor that `Predictor.save` wrote.

    Raises:
        SerBenchError: the folder cannot be read, or holds another predictor or other labels.
    """
    kind = predictor_class(cfg.model.name)
    with reading(folder):
        predictor: Predictor = kind.load(folder, cfg, labels, inputs)
    return predictor


@cache
def _discover() -> None:
    """Import every package of predictors and every module that an entry point names, which registers what they hold.

    Raises:
        ConfigError: a module of another distribution cannot be imported.
    """
    package = import_module("ser_bench.predictors")
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            import_module(f"{package.__name__}.{module.name}")
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            distribution = entry.dist.name if entry.dist else "another package"
            raise ConfigError(
                f"{distribution}: its predictor {entry.name!r} ({entry.value}) cannot be imported: "
                f"{type(error).__name__}: {error}. Mend it, or uninstall {distribution}"
            ) from error
