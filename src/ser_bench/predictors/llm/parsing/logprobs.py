"""Probabilities of the labels from the logprobs of one constrained answer.

The logprobs that servers report beside an answer are not a distribution over labels. Under a grammar, llama.cpp reports
the *unconstrained* next-token distribution of the model: most of the mass may lie on tokens that start no label, and
several tokens may start the same label ("happy", "h", "ha").

Here, P(label) is the probability with which the constrained decoder, sampling at temperature 1, would write this label.
At the token where the label starts, every reported token that can lead only to this label counts for it. If a token can
lead to several labels, the next token of the written answer decides between them. The sum over the labels is normalised
to 1. A server that reports the constrained distribution gives the same result.

A written answer is `{"emotion":"<label>"}`. Text before it (such as a code fence) and white space in it do not matter.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

FIELD = "emotion"
LABEL_START = re.compile(rf'"{FIELD}"\s*:\s*"'.encode())
END = b'"'
TOLERANCE = 0.1
"""Largest share of the labels' mass that unreported tokens may hold; it is an upper bound, which is seldom reached."""
OBJECT_ENDS, REASON_FOLLOWS = (b"", b"}"), (b"", b",", b',"')
"""What may follow the closing quotation mark in the same token: nothing or the end of the object; or the next field."""
CLOSINGS = 2
"""A label may share its token with the closing quotation mark, or with the quotation mark and the brace."""


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """One token of an answer with the reported alternatives.

    Attributes:
        text: bytes of the token; a token may end inside a character.
        logprob: natural logarithm of its probability.
        top: (bytes, logprob) of the most probable tokens at its position, which may lack the written token.
    """

    text: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


def label_probabilities(
    tokens: Sequence[AnswerToken], labels: Sequence[str], with_reason: bool = False
) -> list[float] | None:
    """Return P(label) for each label, sum 1, or None if the report does not determine them.

    It does not if the answer contains no label field, if no label has mass, or if unreported tokens could hold more
    than `TOLERANCE` of the mass. An unreported token is at most as probable as the least probable reported one; a label
    that no reported token starts gets this probability.

    Args:
        tokens: the tokens of the answer.
        labels: the possible labels.
        with_reason: True if the field `reason` follows the label.
    """
    start = _label_start(tokens)
    if start is None:
        return None
    index, lead = start
    spelled = [json.dumps(label, ensure_ascii=False)[1:-1].encode() for label in labels]
    return _shares(tokens, index, lead, b"", spelled, REASON_FOLLOWS if with_reason else OBJECT_ENDS)


def _label_start(tokens: Sequence[AnswerToken]) -> tuple[int, bytes] | None:
    """Return the index of the token that holds the label's first byte, and the bytes of that token before it."""
    written = b"".join(token.text for token in tokens)
    matches = list(LABEL_START.finditer(written))
    if not matches:
        return None
    start, position = matches[-1].end(), 0
    for index, token in enumerate(tokens):
        if position <= start < position + len(token.text):
            return index, token.text[: start - position]
        position += len(token.text)
    return None


def _shares(
    tokens: Sequence[AnswerToken],
    index: int,
    lead: bytes,
    prefix: bytes,
    labels: Sequence[bytes],
    after: tuple[bytes, ...],
) -> list[float] | None:
    """Return the shares of `labels`, sum 1, from the token at `index` on; all labels start with `prefix`."""
    if index >= len(tokens) or not tokens[index].top:
        return None
    token = tokens[index]
    is_reported = any(text == token.text for text, _ in token.top)
    reported = token.top if is_reported else (*token.top, (token.text, token.logprob))
    mass, reported_spellings = [0.0] * len(labels), [0] * len(labels)
    undecided = 0.0
    for text, logprob in reported:
        full = prefix + text[len(lead) :]
        reachable = [i for i, label in enumerate(labels) if text.startswith(lead) and _leads_to(full, label, after)]
        if not reachable:
            continue
        for i in reachable:
            reported_spellings[i] += 1
        shares: list[float] | None = [1.0]
        if len(reachable) > 1:
            written = text == token.text and full != prefix
            shares = _shares(tokens, index + 1, b"", full, [labels[i] for i in reachable], after) if written else None
        if shares is None:
            undecided += math.exp(logprob)
            continue
        for i, share in zip(reachable, shares, strict=True):
            mass[i] += math.exp(logprob) * share
    spellings = [len(label) - len(prefix) + CLOSINGS for label in labels]
    hidden = sum(max(0, possible - seen) for possible, seen in zip(spellings, reported_spellings, strict=True))
    return _completed(mass, undecided, hidden, token)


def _completed(mass: list[float], undecided: float, hidden: int, token: AnswerToken) -> list[float] | None:
    """Return the mass normalised over the labels, or None if `hidden` unreported tokens could hold too much of it."""
    floor = math.exp(min(logprob for _, logprob in token.top))
    rest = max(0.0, 1.0 - sum(math.exp(logprob) for _, logprob in token.top))
    unseen = min(hidden * floor, rest) + undecided
    if sum(mass) <= 0.0 or unseen > TOLERANCE * sum(mass):
        return None
    completed = [value if value > 0.0 else min(floor, rest) for value in mass]
    return [value / sum(completed) for value in completed]


def _leads_to(written: bytes, label: bytes, after: tuple[bytes, ...]) -> bool:
    """Return True if an answer that continues with `written` can become this label and what may follow it."""
    whole = label + END
    return whole.startswith(written) or (written.startswith(whole) and written[len(whole) :].strip() in after)
