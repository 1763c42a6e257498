"""Probabilities over the labels from the logprobs of one constrained answer.

What servers report beside an answer is not a distribution over labels: under a grammar llama.cpp reports the model's
*unconstrained* next-token distribution, in which most of the mass may lie on tokens that no label starts with, and a
label may be started by several tokens ("happy", "h", "ha"). Here P(label) is the probability with which the
constrained decoder, sampling at temperature 1, would go on to write that label: at the token where the label starts,
every reported token that can only lead to this label counts for it, and the sum over labels is normalised to 1. Where
a token could lead to two labels, the next token of the written answer decides between them. A server that reports the
already constrained distribution gives the same result.

Written answers are `{"emotion":"<label>"}`; text before it (a code fence) and white space within do not matter.
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
"""Tokens that are not reported may at most have this share of the labels' mass: a bound, seldom reached."""
CLOSED, GOES_ON = (b"", b"}"), (b"", b",", b',"')
"""What may follow the label in its token: nothing yet, the end of the object; or the next field's beginning."""
CLOSINGS = 2
"""A label may come in one token with its closing quote, or with quote and brace."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer, and what the server reports that could have stood there.

    Attributes:
        text: bytes of the token (a token may end inside a character).
        top: (bytes, natural logarithm of the probability) of the most probable tokens, the written one not always
            among them.
        logprob: of the written token.
    """

    text: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


def distribution(tokens: Sequence[Token], labels: Sequence[str], goes_on: bool = False) -> list[float] | None:
    """P(label) for each label, sum 1; None where the report does not tell them. `goes_on`: a reason follows the label.

    It does not where the label's place is not found, where no label has mass, or where tokens that are not reported
    could hold more than `TOLERANCE` of it. Each of these is at most as probable as the least probable reported one; a
    label that no reported token starts gets that much.
    """
    place = _label_start(tokens)
    if place is None:
        return None
    index, lead = place
    spelled = [json.dumps(label, ensure_ascii=False)[1:-1].encode() for label in labels]
    return _shares(tokens, index, lead, b"", spelled, GOES_ON if goes_on else CLOSED)


def _label_start(tokens: Sequence[Token]) -> tuple[int, bytes] | None:
    """Index of the token that holds the label's first byte, and the bytes of that token before it."""
    written = b"".join(token.text for token in tokens)
    matches = list(LABEL_START.finditer(written))
    if not matches:
        return None
    start, at = matches[-1].end(), 0
    for index, token in enumerate(tokens):
        if at <= start < at + len(token.text):
            return index, token.text[: start - at]
        at += len(token.text)
    return None


def _shares(
    tokens: Sequence[Token],
    index: int,
    lead: bytes,
    prefix: bytes,
    labels: Sequence[bytes],
    after: tuple[bytes, ...],
) -> list[float] | None:
    """Shares of `labels`, all of which start with `prefix`, as decided from token `index` on; sum 1."""
    if index >= len(tokens) or not tokens[index].top:
        return None
    token = tokens[index]
    listed = any(text == token.text for text, _ in token.top)
    reported = token.top if listed else (*token.top, (token.text, token.logprob))
    mass, pieces = [0.0] * len(labels), [0] * len(labels)
    undecided = 0.0
    for text, logprob in reported:
        full = prefix + text[len(lead) :]
        reachable = [i for i, label in enumerate(labels) if text.startswith(lead) and _leads_to(full, label, after)]
        if not reachable:
            continue
        for i in reachable:
            pieces[i] += 1
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
    hidden = sum(max(0, possible - seen) for possible, seen in zip(spellings, pieces, strict=True))
    return _completed(mass, undecided, hidden, token)


def _completed(mass: list[float], undecided: float, hidden: int, token: Token) -> list[float] | None:
    """Mass normalised over the labels, or None where too much could lie in `hidden` tokens that are not reported."""
    floor = math.exp(min(logprob for _, logprob in token.top))
    rest = max(0.0, 1.0 - sum(math.exp(logprob) for _, logprob in token.top))
    unseen = min(hidden * floor, rest) + undecided
    if sum(mass) <= 0.0 or unseen > TOLERANCE * sum(mass):
        return None
    completed = [value if value > 0.0 else min(floor, rest) for value in mass]
    return [value / sum(completed) for value in completed]


def _leads_to(written: bytes, label: bytes, after: tuple[bytes, ...]) -> bool:
    """True where an answer that goes on with `written` can only be, or become, this label and what may follow it."""
    whole = label + END
    return whole.startswith(written) or (written.startswith(whole) and written[len(whole) :].strip() in after)
