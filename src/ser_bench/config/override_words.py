"""Overrides as words of a command line: the keys that exist, and the quoting of values with special characters.

Hydra parses the value of an override. Some characters have a meaning for it (`a,b` is a sweep, `[a]` a list), and
others are allowed only between quotes (`ü`, `#`). A shell removes one layer of quotes before. `check_overrides` stops a
word that Hydra cannot read, or would read as something else than the text that was typed, and shows the right quoting.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from ser_bench.config.folders import RUN_COMMAND
from ser_bench.config.keys import Key, leaves
from ser_bench.config.schema import Config
from ser_bench.errors import ConfigError
from ser_bench.redaction import redact

UNQUOTED = re.compile(r"[A-Za-z0-9_/\\+.$%*@?|: \t-]")
"""A character that Hydra reads as itself in a value without quotes."""
INTERPOLATION = re.compile(r"\$\{[^}]+\}")
"""A reference to another key, or to a resolver ("${corpus.name}", "${now:%H}")."""
UNESCAPED_REFERENCE = re.compile(r"(\\*)\$\{")
HYDRA_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
"""Keys of Hydra's own configuration that hold a folder."""
OTHER_GROUPS = ("experiment", "prompting")
"""Groups that set keys of other groups and have no key of their own."""


def keys_by_path() -> Mapping[str, Key]:
    """Return path → key for every leaf of the configuration, with the keys of every predictor under `model.`."""
    from ser_bench.config.compose import model_schemas  # compose checks its words with this module

    return _keys_by_path(tuple(model_schemas().values()))


@lru_cache(maxsize=1)
def _keys_by_path(of_predictors: tuple[type, ...]) -> Mapping[str, Key]:
    shared = [leaf for leaf in leaves(Config) if leaf.group != "model"]
    of_models = [leaf for schema in of_predictors for leaf in leaves(schema, "model.")]
    return MappingProxyType({leaf.path: leaf for leaf in [*shared, *of_models]})


def is_known_key(path: str) -> bool:
    """Return whether a key, a node above keys, a group, or a setting of Hydra has this name.

    >>> is_known_key("corpus.root"), is_known_key("corpus"), is_known_key("hydra/launcher"), is_known_key("./take")
    (True, True, True, False)
    """
    if path in OTHER_GROUPS or path.startswith(("hydra.", "hydra/")):
        return True
    return path in keys_by_path() or any(known.startswith(f"{path}.") for known in keys_by_path())


def path_of(word: str) -> str:
    """Return the key or group that an override sets, without sign and package.

    >>> path_of("+experiment=paper"), path_of("model@x=cnn")
    ('experiment', 'model')
    """
    return word.partition("=")[0].lstrip("+~").partition("@")[0]


def quoted_word(key: str, value: str) -> str:
    """Return the word to type in a POSIX shell so that a key gets this text, whatever characters it contains.

    Complete interpolations such as `${corpus.name}` are kept.

    >>> print(quoted_word("corpus.root", "/a/b,c"))
    'corpus.root="/a/b,c"'
    """
    return shlex.quote(f"{key}={quoted_for_hydra(value)}")


def check_overrides(words: Sequence[str], sweep: bool) -> None:
    """Raise an error for the first word that Hydra would not read as it was typed.

    These are values that Hydra cannot parse, and texts that it would turn into a list, a number or a sweep.

    Args:
        words: overrides as typed, after the shell has removed its quotes.
        sweep: True under `-m`, where a comma separates values. It stops then only in a path: in a value that exists as
            a whole, and for keys that hold a path also if not all of its parts exist.

    Raises:
        ConfigError: one line with the word and its right quoting. Secrets are hidden.
    """
    parser = OverridesParser.create()
    for i, word in enumerate(words):
        if "=" not in word:
            if word.startswith("~"):
                continue  # removes an entry of the defaults list
            raise ConfigError(redact(_not_an_override(words, i)))
        reason = _reason_against(parser, word, sweep)
        if reason:
            raise ConfigError(redact(f"{word}: {reason}"))


def _reason_against(parser: OverridesParser, word: str, sweep: bool) -> str:
    """Return why a word must not reach Hydra as it is, with the right quoting; "" if it may."""
    key, _, value = word.partition("=")
    try:
        override = parser.parse_override(word)
    except HydraException:
        return _cannot_be_read(parser, key, value)
    if override.is_delete():
        return ""
    path = path_of(word)
    leaf = keys_by_path().get(path)
    holds_file = path in HYDRA_FOLDERS or (leaf is not None and leaf.holds_file)
    holds_text = holds_file or (leaf is not None and leaf.holds_text)
    if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
        return _comma(key, value, sweep, holds_text, holds_file)
    if override.is_sweep_override():
        return "" if sweep else f"this is a sweep, which only {RUN_COMMAND} -m carries out"
    if holds_text and not _is_read_as_typed(override, value):
        return f"Hydra reads this value as {override.value()!r}; write {_suggestion(key, value)}"
    return ""


def _is_read_as_typed(override: Override, value: str) -> bool:
    """Return whether a value is read as the text that was typed, or was quoted or escaped on purpose."""
    if value.startswith(("'", '"')) or "\\" in value or "${" in value:
        return True
    read = override.value()
    return read is None or (not isinstance(read, list | dict) and str(read) == value)


def _comma(key: str, value: str, sweep: bool, holds_text: bool, holds_file: bool) -> str:
    """Return why a value with commas between its parts is stopped; "" if it is a sweep."""
    parts = [part.strip() for part in value.split(",")]
    if not sweep:
        if holds_text:
            return f"the value needs quotes because of the comma; write {_suggestion(key, value)}"
        listed = shlex.quote(f"{key}=[{value}]")
        return (
            f"a comma separates the values of a sweep, which only {RUN_COMMAND} -m carries out; for a list write "
            f"{listed}, for a text with a comma write {quoted_word(key, value)}"
        )
    all_exist = all(Path(part).expanduser().exists() for part in parts)
    if Path(value).expanduser().exists() or (holds_file and not all_exist):
        choice = shlex.quote(f"{key}=choice({','.join(map(quoted_for_hydra, parts))})")
        return f"-m would split this path at the comma (a sweep over paths: {choice}); write {_suggestion(key, value)}"
    return ""


def _cannot_be_read(parser: OverridesParser, key: str, value: str) -> str:
    """Return why Hydra's parser fails, with the right quoting of the value."""
    try:
        parser.parse_override(f"{key}=x")
    except HydraException:
        return f"{key!r} is no configuration key; {RUN_COMMAND} --help lists them"
    special = " ".join(dict.fromkeys(char for char in value if not UNQUOTED.match(char)))
    reason = f"the value needs quotes because of {special}" if special else "Hydra cannot read this value"
    leaf = keys_by_path().get(path_of(f"{key}="))
    if leaf is not None and not leaf.holds_text:
        if value.startswith("[") and value.endswith("]"):
            parts = [part.strip() for part in value[1:-1].split(",")]
            listed = f"{key}=[{','.join(map(quoted_for_hydra, parts))}]"
            return f"{reason}; write {shlex.quote(listed)}"
        if value.startswith(("[", "{")):
            return f"{reason}; close every bracket, and put quotes around each text inside"
    return f"{reason}; write {_suggestion(key, value)}"


def _suggestion(key: str, value: str) -> str:
    """Return the quoted word; for a path, with the home folder written out, because a shell leaves `key=~` as it is."""
    path = path_of(f"{key}=")
    leaf = keys_by_path().get(path)
    if value.startswith("~") and (path in HYDRA_FOLDERS or (leaf is not None and leaf.holds_file)):
        with contextlib.suppress(RuntimeError):  # there is no such user
            value = str(Path(value).expanduser())
    return quoted_word(key, value)


def quoted_for_hydra(value: str) -> str:
    """Return a value between the quotes of Hydra's grammar."""
    if not INTERPOLATION.search(value):
        # The backslashes before "${" are doubled, and one more makes it text.
        value = UNESCAPED_REFERENCE.sub(lambda match: f"{match[1]}{match[1]}\\${{", value)
    return QuotedString(text=value, quote=Quote.double).with_quotes()


def _not_an_override(words: Sequence[str], at: int) -> str:
    """Return the message for a word without an equals sign, which may be the rest of a path with spaces."""
    message = f"{words[at]!r} is no override; write key=value, as in model=cnn"
    if at == 0:
        return message
    rest = next((i for i in range(at, len(words)) if "=" in words[i]), len(words))
    key, _, value = words[at - 1].partition("=")
    whole = _suggestion(key, " ".join([value, *words[at:rest]]))
    return f"{message}; if it belongs to the word before it, write {whole}"
