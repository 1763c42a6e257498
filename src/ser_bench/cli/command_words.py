"""The words of a command line, divided into Hydra overrides and other words such as run ids and paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

OVERRIDE = re.compile(r"[+~]{0,2}[\w./@-]+=")
"""The beginning of an override: an optional sign, a key, an equals sign (`split.fold=2`, `+experiment=paper`)."""


class CommandWords(NamedTuple):
    """The positional words of a command.

    Attributes:
        overrides: Hydra overrides, in their order.
        others: every other word, in its order.
    """

    overrides: list[str]
    others: list[str]


def parse_words(words: Sequence[str]) -> CommandWords:
    """Separate overrides from other words; both may stand in any order.

    A word with an equals sign is an override, unless it is the path of an existing file or folder.

    >>> parse_words(["8b9797dc", "corpus.root=audio", "e6a68616"])
    CommandWords(overrides=['corpus.root=audio'], others=['8b9797dc', 'e6a68616'])
    """
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    return CommandWords(overrides, [word for word in words if word not in overrides])
