"""A reader of YAML files from elsewhere, whose time and memory are bounded by the size of the file.

YAML's aliases let a file of one kilobyte describe a list of a billion elements, which OmegaConf would build.
"""

from __future__ import annotations

import io
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
"""Largest number of lists and mappings inside each other."""


def load_bounded_yaml(path: Path) -> DictConfig | ListConfig:
    """Return the content of a YAML file without aliases.

    Raises:
        ValueError: if the file is too large, uses an alias, or is nested too deeply.
        OSError, yaml.YAMLError: if it cannot be read.
    """
    return OmegaConf.load(io.StringIO(bounded_yaml_text(path)))


def bounded_yaml_text(path: Path) -> str:
    """Return the text of a YAML file, after the checks of `load_bounded_yaml`; errors are the same."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES:,} bytes")
    text = content.decode("utf-8-sig")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{_place(event)} uses the alias *{event.anchor}; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"{_place(event)} is nested more than {MAX_DEPTH} levels deep")
    return text


def _place(event: yaml.Event) -> str:
    return "the file" if event.start_mark is None else f"line {event.start_mark.line + 1}"
