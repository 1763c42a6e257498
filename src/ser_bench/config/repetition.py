"""The words of a command line that compose a given configuration again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ser_bench.config import folders
from ser_bench.config.compose import compose, flattened, model_schemas, to_plain
from ser_bench.config.keys import KeyRole, roles
from ser_bench.config.override_words import quoted_for_hydra
from ser_bench.config.schema import Config
from ser_bench.errors import ConfigError

PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
"""A text that Hydra reads as text without quotes, unless it is one of `NO_TEXTS`."""
NO_TEXTS = ("null", "true", "false", "inf", "nan")
LOCATIONS = ("corpus.root", "split.test_corpus", "split.test_root", "model.file")
"""Keys without which some choices do not compose."""
LEFT_OUT = ("tracking.", "experiment_name", "force")
"""Keys that say where a run is stored, or that it is made again; they are not repeated."""


def repeating_overrides(cfg: Config) -> list[str]:
    """Return the shortest overrides, in this order: experiment, choices of groups, single keys, that give this result.

    Keys of role `machine` are left out, except the folders of the corpora, which may be others on another machine.

    >>> repeating_overrides(compose(["model=majority", "split.fold=1"]))
    ['experiment=demo', 'model=majority', 'split.fold=1']
    """
    known = {path.stem for path in folders.experiment_files()}
    words = [f"experiment={cfg.experiment_name if cfg.experiment_name in known else 'none'}"]
    target = flattened(to_plain(cfg))
    words += _choices(cfg, words)
    words += _missing_values(target)
    role_of = roles(Config, model_schemas()[cfg.model.name])
    composed = flattened(to_plain(compose(words)))
    for path, value in target.items():
        if composed.get(path) != value and role_of.get(path) is not KeyRole.machine and not path.startswith(LEFT_OUT):
            words.append(f"{path}={_as_hydra(value)}")
    return words


def _missing_values(target: Mapping[str, Any]) -> list[str]:
    return [f"{path}={_as_hydra(target[path])}" for path in LOCATIONS if target.get(path) is not None]


def _choices(cfg: Config, experiment: list[str]) -> list[str]:
    """Return `group=choice` for every group whose name differs from that of the experiment's choice."""
    words: list[str] = []
    for item in fields(cfg):
        group = getattr(cfg, item.name)
        name = getattr(group, "name", None) if is_dataclass(group) else None
        if item.name == "split":
            name = cfg.split.protocol.name
        if isinstance(name, str) and name in folders.choices(item.name):
            words.append(f"{item.name}={name}")
    try:
        default = flattened(to_plain(compose([*experiment, *words[:1], *_missing_values(flattened(to_plain(cfg)))])))
    except ConfigError:
        return words
    same = {f"{path.removesuffix('.name')}={value}" for path, value in default.items() if path.endswith(".name")}
    same.add(f"split={default['split.protocol']}")
    return [word for word in words if word not in same or word.startswith("model=")]


def _as_hydra(value: Any) -> str:
    """Return a plain value in Hydra's grammar."""
    if isinstance(value, str):
        return value if PLAIN_WORD.fullmatch(value) and value.lower() not in NO_TEXTS else quoted_for_hydra(value)
    if isinstance(value, list):
        return f"[{','.join(map(_as_hydra, value))}]"
    return json.dumps(value)
