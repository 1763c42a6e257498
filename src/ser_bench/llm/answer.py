"""What a model answered for one clip: a label, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ser_bench.llm.logprobs import FIELD, Token, distribution

REASONS = ("bad_json", "not_a_label", "refusal", "content_filter", "empty", "length", "too_long")
"""Why an answered request gave no label; each is an abstention."""
OPENING = f'{{"{FIELD}":"'
"""Start of every answer; a server that lets an answer be begun for the model is given it."""
FAILED = "failed"
"""The request got no answer after all retries."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it is kept in the cache.

    Attributes:
        text: what the model wrote, whole; for a failure what went wrong.
        label: one of the labels, or "" for an abstention.
        reason: one of `REASONS` or `FAILED` where there is no label, else "".
        probabilities: P(label) in the order of the labels, or None where the server did not tell them.
        tokens_in: tokens of the prompt.
        tokens_out: tokens of the answer.
        latency_s: seconds from sending to answer, its retries included; requests at the same time overlap.
        requests: HTTP requests that it took.
        retries: of these, repetitions after a fault.
    """

    text: str
    label: str = ""
    reason: str = ""
    probabilities: tuple[float, ...] | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    latency_s: float = 0.0
    requests: int = 0
    retries: int = 0

    @property
    def failed(self) -> bool:
        """True where nothing was answered, so that asking again may help."""
        return self.reason == FAILED

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Answer:
        """The inverse of `to_json`."""
        shares = value.get("probabilities")
        return cls(**{**value, "probabilities": None if shares is None else tuple(shares)})


def schema(labels: Sequence[str]) -> dict[str, Any]:
    """`response_format` that allows an object with one of the labels, and nothing else."""
    field = {"type": "string", "enum": list(labels)}
    body = {"type": "object", "properties": {FIELD: field}, "required": [FIELD], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": FIELD, "strict": True, "schema": body}}


def ending(labels: Sequence[str]) -> str:
    """llama.cpp grammar (GBNF) of what may follow `OPENING`: the rest of an object that `schema` allows."""
    return "root ::= " + " | ".join(
        json.dumps(_written(label).removeprefix(OPENING), ensure_ascii=False) for label in labels
    )


def read(completion: dict[str, Any], labels: Sequence[str], opening: str = "") -> Answer:
    """The answer in a chat completion; never raises for what a model may write.

    Args:
        completion: a chat completion's JSON, of which any part may be missing or odd (other servers).
        labels: what may be answered.
        opening: what was written for the model, which goes on from there.
    """
    usage, choices = completion.get("usage"), completion.get("choices")
    counts: dict[str, Any] = {
        "tokens_in": _count(usage, "prompt_tokens"),
        "tokens_out": _count(usage, "completion_tokens"),
    }
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Answer("", reason="empty", **counts)
    text = str(message.get("content") or "")
    if not text.startswith(opening):
        text = opening + text
    if message.get("refusal"):
        return Answer(str(message["refusal"]), reason="refusal", **counts)
    if choice.get("finish_reason") == "content_filter":
        return Answer(text, reason="content_filter", **counts)
    label, reason = parse(text, labels)
    if reason == "bad_json" and choice.get("finish_reason") == "length":
        reason = "length"
    begun = [Token(opening.encode(), 0.0, ())] if opening else []
    shares = distribution([*begun, *tokens_of(choice)], labels) if label else None
    return Answer(text, label, reason, None if shares is None else tuple(shares), **counts)


def parse(text: str, labels: Sequence[str]) -> tuple[str, str]:
    """(label, "") of a well-formed answer, else ("", reason).

    >>> parse('{"emotion": "happy"}', ["happy", "sad"]), parse('{"emotion": "glad"}', ["happy", "sad"])
    (('happy', ''), ('', 'not_a_label'))
    """
    if not text.strip():
        return "", "empty"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "", "bad_json"
    if not isinstance(value, dict) or set(value) != {FIELD} or not isinstance(value[FIELD], str):
        return "", "bad_json"
    return (value[FIELD], "") if value[FIELD] in labels else ("", "not_a_label")


def tokens_of(choice: dict[str, Any]) -> list[Token]:
    """The logprobs of a choice; empty where the server gave none."""
    try:
        content = (choice.get("logprobs") or {}).get("content") or []
        return [
            Token(_bytes(t), t["logprob"], tuple((_bytes(a), a["logprob"]) for a in t.get("top_logprobs") or ()))
            for t in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError):  # another server's idea of logprobs
        return []


def _written(label: str) -> str:
    return json.dumps({FIELD: label}, ensure_ascii=False, separators=(",", ":"))


def _bytes(token: dict[str, Any]) -> bytes:
    raw = token.get("bytes")
    return bytes(raw) if raw is not None else str(token["token"]).encode()


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0
