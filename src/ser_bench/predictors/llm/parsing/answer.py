"""What a model answered for one clip: a label, or the reason why there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ser_bench.config import LlmConfig
from ser_bench.predictors.llm.parsing.logprobs import FIELD, Token, distribution

REASONS = ("bad_json", "not_a_label", "refusal", "content_filter", "empty", "length", "too_long")
"""Why an answered request gave no label; each is an abstention."""
OPENING = f'{{"{FIELD}":"'
"""Start of every answer; a server that lets an answer be begun for the model is given it."""
REASON_FIELD = "reason"
REASON_CHARS = 300
"""Of a reason under a grammar; some models would never end."""
FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
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
        tokens_in: tokens of the prompt, those of sound included.
        tokens_audio: tokens of sound in it.
        tokens_out: tokens of the answer.
        latency_s: seconds from sending to answer, its retries included; requests at the same time overlap.
        requests: HTTP requests that it took.
        retries: of these, repetitions after a fault.
        way: what held it to its form (`ways`); "" for a failure, and for answers of older versions.
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
    way: str = ""
    tokens_audio: int = 0

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


def schema(labels: Sequence[str], reason: bool = False) -> dict[str, Any]:
    """`response_format` that allows an object with one of the labels (and a reason), and nothing else."""
    fields: dict[str, Any] = {FIELD: {"type": "string", "enum": list(labels)}}
    if reason:
        fields[REASON_FIELD] = {"type": "string"}
    body = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": FIELD, "strict": True, "schema": body}}


def ending(labels: Sequence[str], reason: bool = False) -> str:
    """llama.cpp grammar (GBNF) of what may follow `OPENING`: the rest of an object that `schema` allows."""
    rests = [written(label).removeprefix(OPENING) for label in labels]
    if not reason:
        return "root ::= " + " | ".join(json.dumps(rest, ensure_ascii=False) for rest in rests)
    begun = " | ".join(json.dumps(rest[:-1] + f',"{REASON_FIELD}":"', ensure_ascii=False) for rest in rests)
    words = rf'[^"\\\x00-\x1f]{{0,{REASON_CHARS}}}'
    return f'root ::= ({begun}) {words} "\\"}}"'


def read(completion: dict[str, Any], labels: Sequence[str], way: str = "schema", reason: bool = False) -> Answer:
    """The answer in a chat completion; never raises for what a model may write.

    Args:
        completion: a chat completion's JSON, of which any part may be missing or odd (other servers).
        labels: what may be answered.
        way: what held the answer to its form; under `grammar` it was begun for the model, which goes on from there.
        reason: True where a reason was asked for too.
    """
    usage, choices = completion.get("usage"), completion.get("choices")
    known: dict[str, Any] = {
        "tokens_in": _count(usage, "prompt_tokens"),
        "tokens_out": _count(usage, "completion_tokens"),
        "tokens_audio": _audio_tokens(usage),
        "way": way,
    }
    opening = OPENING if way == "grammar" else ""
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Answer("", reason="empty", **known)
    text = str(message.get("content") or "")
    if not text.startswith(opening):
        text = opening + text
    if message.get("refusal"):
        return Answer(str(message["refusal"]), reason="refusal", **known)
    if choice.get("finish_reason") == "content_filter":
        return Answer(text, reason="content_filter", **known)
    label, why = parse_text(text, labels, reason) if way == "text" else parse(text, labels, reason)
    if why == "bad_json" and choice.get("finish_reason") == "length":
        why = "length"
    begun = [Token(opening.encode(), 0.0, ())] if opening else []
    shares = distribution([*begun, *tokens_of(choice)], labels, reason) if label else None
    return Answer(text, label, why, None if shares is None else tuple(shares), **known)


def parse(text: str, labels: Sequence[str], reason: bool = False) -> tuple[str, str]:
    """(label, "") of a well-formed answer, else ("", why not).

    >>> parse('{"emotion": "happy"}', ["happy", "sad"]), parse('{"emotion": "glad"}', ["happy", "sad"])
    (('happy', ''), ('', 'not_a_label'))
    """
    if not text.strip():
        return "", "empty"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "", "bad_json"
    fields = {FIELD, REASON_FIELD} if reason else {FIELD}
    if not isinstance(value, dict) or set(value) != fields or not all(isinstance(v, str) for v in value.values()):
        return "", "bad_json"
    return (value[FIELD], "") if value[FIELD] in labels else ("", "not_a_label")


def parse_text(text: str, labels: Sequence[str], reason: bool = False) -> tuple[str, str]:
    """As `parse`, for a service that enforces nothing: the object may stand in a code fence, or a label alone.

    A sentence is no answer, whatever label it holds: "not happy" holds one too.

    >>> parse_text("Happy.", ["happy", "sad"]), parse_text("I hear a happy voice", ["happy", "sad"])
    (('happy', ''), ('', 'not_a_label'))
    """
    body = FENCE.sub(r"\1", text.strip())
    if body.startswith("{"):
        return parse(body, labels, reason)
    word = body.strip(" \t\n\"'`*.").casefold()
    found = [label for label in labels if label.casefold() == word]
    return (found[0], "") if found else ("", "not_a_label" if word else "empty")


def said_reason(text: str) -> str:
    """The reason in an answer; "" where there is none."""
    try:
        value = json.loads(FENCE.sub(r"\1", text.strip()))
    except (ValueError, RecursionError):
        return ""
    said = value.get(REASON_FIELD) if isinstance(value, dict) else None
    return " ".join(said.split()) if isinstance(said, str) else ""


def price_usd(tokens_in: int, tokens_out: int, tokens_audio: int, cfg: LlmConfig) -> float:
    """US dollars for tokens at the configuration's prices; `tokens_audio` of `tokens_in` are sound."""
    text = tokens_in - tokens_audio
    paid = text * cfg.price_in_usd + tokens_audio * cfg.price_audio_in_usd + tokens_out * cfg.price_out_usd
    return paid / 1e6


def paid_usd(completion: dict[str, Any], cfg: LlmConfig) -> float:
    """US dollars for what a completion's `usage` counts."""
    usage = completion.get("usage")
    return price_usd(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), _audio_tokens(usage), cfg)


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


def written(label: str) -> str:
    """The shortest answer with this label.

    >>> written("sad")
    '{"emotion":"sad"}'
    """
    return json.dumps({FIELD: label}, ensure_ascii=False, separators=(",", ":"))


def _bytes(token: dict[str, Any]) -> bytes:
    raw = token.get("bytes")
    return bytes(raw) if raw is not None else str(token["token"]).encode()


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def _audio_tokens(usage: Any) -> int:
    return _count(usage.get("prompt_tokens_details") if isinstance(usage, dict) else None, "audio_tokens")
