"""The words of a command line, divided into Hydra overrides and other words such as run ids and paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from typer.core import TyperCommand

from ser_bench.errors import ConfigError

OVERRIDE = re.compile(r"[+~]{0,2}[\w./@-]+=", re.ASCII)
"""The beginning of an override: an optional sign, a key, an equals sign (`split.fold=2`, `+experiment=paper`)."""
AFTER_DASHES = "ser_bench.words_after_dashes"
"""Entry of a command's context: number of words that follow `--`."""


class CommandWords(NamedTuple):
    """The positional words of a command.

    Attributes:
        overrides: Hydra overrides, in their order.
        others: every other word, in its order.
    """

    overrides: list[str]
    others: list[str]


class CommandWithWords(TyperCommand):
    """A command whose words are overrides, names, run ids or paths. No word after `--` is an option or an override."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:  # help without Python types ("<list[str]>"), which say nothing about the words
            vars(parameter)["display_type"] = lambda _ctx: ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the words after `--` for `words_after_dashes`, and parse all words as usual."""
        ctx.meta[AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else 0
        return super().parse_args(ctx, args)


def words_after_dashes(ctx: Any) -> int:
    """Return how many of the command's words follow `--`; they are the last ones."""
    count: int = ctx.meta.get(AFTER_DASHES, 0)
    return count


def parse_words(words: Sequence[str], after_dashes: int = 0) -> CommandWords:
    """Separate overrides from other words; both may stand in any order.

    A word with an equals sign is an override if a configuration key precedes the equals sign. Otherwise it is a path if
    it names an existing file or folder, or if there is a slash before the equals sign.

    >>> parse_words(["8b9797dc", "corpus.root=audio", "./take=2.wav"])
    CommandWords(overrides=['corpus.root=audio'], others=['8b9797dc', './take=2.wav'])

    Args:
        words: the positional words.
        after_dashes: number of words at the end that follow `--`; none of them is an override.

    Raises:
        ConfigError: a word is neither a path nor begins with a configuration key.
    """
    end = len(words) - after_dashes
    parsed = CommandWords([], [])
    for i, word in enumerate(words):
        (parsed.overrides if i < end and _is_override(word) else parsed.others).append(word)
    return parsed


def _is_override(word: str) -> bool:
    if not OVERRIDE.match(word):
        return False
    from ser_bench.config.override_words import is_known_key, path_of  # imports Hydra, which help does not need

    if is_known_key(path_of(word)):
        return True
    if Path(word).exists() or "/" in word.partition("=")[0]:
        return False
    if word.startswith(("+", "~")):
        return True  # Hydra says why there is nothing to add or to remove
    raise ConfigError(f"{word}: there is no file of this name, and {path_of(word)!r} is no configuration key")
