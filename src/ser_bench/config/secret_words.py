"""Refusal of overrides and settings that hold a secret, or name a key that does not exist.

Hydra writes the words of a command line and the composed configuration to a folder before the run starts.
`check_words` therefore sees the words before Hydra, and `check_composed` the configuration before Hydra writes it.
Their messages name keys, never values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ser_bench.config.folders import RUN_COMMAND
from ser_bench.config.override_words import INTERPOLATION, is_known_key, keys_by_path, path_of
from ser_bench.config.schema import Config
from ser_bench.errors import ConfigError
from ser_bench.redaction import SECRET_NAME, credentials_of, register_secret

VARIABLE_KEY = "api_key_env"
"""Last part of the keys that hold the name of an environment variable."""
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONG_RANDOM_PART = re.compile(r"(?=[^_]*\d)(?=[^_]*[A-Za-z])[A-Za-z0-9]{16,}")
"""A part between underscores that a key has, and the name of a variable hardly ever: long, of letters and digits."""
ADDRESS_VARIABLES = (
    *("OPENAI_BASE_URL", "MLFLOW_TRACKING_URI"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)
"""Environment variables whose addresses may hold a password."""
CLOSE = 0.6
"""Least similarity of a key that is suggested, from 0 to 1 (`difflib`)."""


def check_words(words: Sequence[str], own_files: bool = False) -> None:
    """Raise an error for the first override that holds a secret or sets a key that does not exist.

    Args:
        words: overrides as typed.
        own_files: True if the user adds configuration files (`--config-dir`), which may have groups of their own.

    Raises:
        ConfigError: one line without the value of the word.
    """
    for word in words:
        if "=" in word:
            _check_word(word, own_files)


def check_composed(composed: DictConfig) -> None:
    """Raise an error if a composed configuration has keys that do not exist, or a secret in one of its values.

    Values that refer to the environment (`${oc.env:NAME}`) are not resolved, because Hydra writes the reference.

    Raises:
        ConfigError: one line without any value.
    """
    for path in _unknown_keys(composed):
        raise ConfigError(_unknown(path))
    for path, value in _texts(OmegaConf.to_container(composed, resolve=False)):
        if path.rpartition(".")[2] == VARIABLE_KEY:
            _check_variable(path, value)
        _check_address(path, value)


def register_secrets(cfg: Config) -> None:
    """Register the secrets of a run: the keys that it will read, and the passwords in its addresses."""
    for variable in (cfg.llm.api_key_env, cfg.text.api_key_env):
        register_secret(os.environ.get(variable or "", "").strip())
    addresses = [cfg.llm.base_url, cfg.text.base_url, cfg.tracking.uri, *map(os.environ.get, ADDRESS_VARIABLES)]
    for address in addresses:
        for secret in credentials_of(address or ""):
            register_secret(secret)


def is_variable_name(text: str) -> bool:
    """Return whether a text is the name of an environment variable, and not a key that was given in its place.

    Some keys consist of the characters of a name. A name that is set is accepted, whatever it looks like.

    >>> is_variable_name("OPENAI_API_KEY"), is_variable_name("sk-1234"), is_variable_name("gsk_0a1B2c3D4e5F6g7H8i9J")
    (True, False, False)
    """
    if VARIABLE_NAME.fullmatch(text) is None:
        return False
    return text in os.environ or not any(LONG_RANDOM_PART.fullmatch(part) for part in text.split("_"))


def nearest_key(path: str) -> str | None:
    """Return the key or group that is most like this one, by its whole path or by its last part.

    >>> nearest_key("llm.temprature"), nearest_key("max_epoch"), nearest_key("modle"), nearest_key("zzz")
    ('llm.temperature', 'trainer.max_epochs', 'model', None)
    """
    last = path.rpartition(".")[2]

    def likeness(known: str) -> float:
        of_last = SequenceMatcher(None, last, known.rpartition(".")[2]).ratio()
        return max(SequenceMatcher(None, path, known).ratio(), 0.95 * of_last)

    groups = dict.fromkeys(["experiment", *(known.partition(".")[0] for known in keys_by_path())])
    best = max([*groups, *keys_by_path()], key=likeness)
    return best if likeness(best) >= CLOSE else None


def _check_word(word: str, own_files: bool) -> None:
    path, value = path_of(word), word.partition("=")[2]
    last = path.rpartition(".")[2]
    if path.startswith("hydra.job.env") and SECRET_NAME.search(last):
        register_secret(value)
        raise ConfigError(
            f"{path}: Hydra stores this value with the run; set the variable in the shell instead: export {last}=..."
        )
    may_be_own_group = own_files and "." not in path
    if not is_known_key(path) and not word.startswith("~") and not may_be_own_group:
        if SECRET_NAME.search(last):
            register_secret(value)
        raise ConfigError(_unknown(path))
    if last == VARIABLE_KEY:
        for name in re.split(r"[,()\[\]\s]+", INTERPOLATION.sub("", value)):
            if name not in ("choice", "null"):
                _check_variable(path, name.strip("\"'"))
    _check_address(path, value)


def _unknown(path: str) -> str:
    """Return the message for a key that does not exist, without its value."""
    last = path.rpartition(".")[2]
    if SECRET_NAME.search(last):
        return (
            f"{path} is no key of the configuration. A secret is never part of it: export it as an environment "
            "variable and give the name of the variable, as in llm.api_key_env=OPENAI_API_KEY"
        )
    nearest = nearest_key(path)
    advice = f"did you mean {nearest}?" if nearest else f"{RUN_COMMAND} --cfg job shows all keys"
    return f"{path} is no key of the configuration; {advice}"


def _check_variable(path: str, name: str) -> None:
    if name and "${" not in name and not is_variable_name(name):
        register_secret(name)
        raise ConfigError(
            f"{path} takes the name of an environment variable, and this value is none: it may be the key itself. "
            f"Export the key and give the name: export OPENAI_API_KEY=... and {path}=OPENAI_API_KEY"
        )


def _check_address(path: str, text: str) -> None:
    """Raise where an address holds a password or key; user names without a password are accepted for databases."""
    address = INTERPOLATION.sub("", text)
    secrets = credentials_of(address)
    only_user = len(secrets) == 1 and f"{secrets[0]}@" in address and not re.search(r"\bhttps?://", address)
    if not secrets or only_user:
        return
    for secret in secrets:
        register_secret(secret)
    other = (
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold those of a server"
        if path == "tracking.uri"
        else "llm.api_key_env and text.api_key_env name the variable of an API key"
    )
    raise ConfigError(
        f"{path}: this address holds a user name, a password or a key, which would be stored with the run. Write it "
        f"without ({other}), or take the whole address from the environment: '{path}=${{oc.env:NAME_OF_A_VARIABLE}}'"
    )


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the path of every key that the dataclass of its node does not have."""
    schema = OmegaConf.get_type(node)
    if schema is None or not is_dataclass(schema):
        return
    known = {item.name for item in fields(schema)}
    for name in node:
        path = f"{prefix}{name!s}"
        if path == "hydra":  # checked by Hydra
            continue
        if name not in known:
            yield path
            continue
        child = node._get_node(name)  # the value of a reference is not resolved
        if isinstance(child, DictConfig) and not (child._is_interpolation() or child._is_none() or child._is_missing()):
            yield from _unknown_keys(child, f"{path}.")


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) for every text in nested mappings and lists."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
