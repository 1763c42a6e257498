"""Tokens of a prompt before it is sent: counted where the model's own table is at hand, else estimated.

tiktoken fetches its tables from the network when they are not on disk. Here it may not: nothing is asked of anybody
before a run begins, so a table that is not there leads to the estimate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ser_bench.predictors.llm.prompting.question import Question

PER_MESSAGE, PER_REPLY = 3, 3
"""What OpenAI's chat format adds to the text: around each message, and before the answer."""
PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]{1,3}|_|\n+")
"""Words, up to three digits, up to three marks: most tokenizers cut there, and keep common words whole."""
BYTES_PER_TOKEN = 8
"""Of a word: longer ones come in two tokens or more."""
ESTIMATE = "an estimate: tiktoken and its table of this model are not at hand"


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts tokens.

    Attributes:
        how: in words, to be shown beside every figure that rests on it.
        exact: True where the model's own table counts.
        of_text: tokens of a text.
    """

    how: str
    exact: bool
    of_text: Callable[[str], int]

    def count(self, question: Question, extra: str = "") -> int:
        """Tokens of a prompt, with what a chat format adds; `extra` is sent beside the messages (a schema)."""
        text = sum(self.of_text(message["content"]) + PER_MESSAGE for message in question.messages)
        return text + PER_REPLY + self.of_text(extra) + sound_tokens(question)

    def at_most(self, question: Question, extra: str = "") -> int:
        """Tokens of text that a prompt cannot exceed: none is shorter than a byte. Sound comes besides."""
        if self.exact:
            return self.count(question, extra) - sound_tokens(question)
        text = sum(len(message["content"].encode()) + PER_MESSAGE for message in question.messages)
        return text + PER_REPLY + len(extra.encode())


def sound_tokens(question: Question) -> int:
    """Tokens of the recording; 0 where none is sent."""
    return 0 if question.sound is None else question.sound.tokens


def counter(model: str) -> TokenCounter:
    """The best counter that this machine has for a model; never fetches anything."""
    try:
        encode = _tiktoken_encode(model)
        return TokenCounter(f"counted with tiktoken for {model}", True, lambda text: len(encode(text)))
    except (ImportError, KeyError, OSError, ValueError):
        return TokenCounter(ESTIMATE, False, estimated)


def estimated(text: str) -> int:
    """A guess at the tokens of a text: one a word, three marks or three digits, more for long words.

    >>> estimated("The airplane is almost full."), estimated("mean 210 Hz")
    (6, 3)
    """
    return sum(math.ceil(len(piece.encode()) / BYTES_PER_TOKEN) for piece in PIECE.findall(text))


def text_of(value: Any) -> str:
    """A schema or the like as it is sent; "" for none."""
    return json.dumps(value, ensure_ascii=False) if value else ""


def _tiktoken_encode(model: str) -> Callable[[str], list[int]]:
    """The encoder of a model from tables on disk.

    Raises:
        ImportError: tiktoken is not installed.
        KeyError: it does not know the model.
        OSError: its table is not on disk.
    """
    tiktoken: Any = import_module("tiktoken")
    loading: Any = import_module("tiktoken.load")

    def refuse(path: str) -> bytes:
        raise OSError(f"{path} is not on disk")

    fetch, loading.read_file = loading.read_file, refuse
    try:
        encoding = tiktoken.encoding_for_model(model)
    finally:
        loading.read_file = fetch
    return lambda text: list(encoding.encode(text, disallowed_special=()))
