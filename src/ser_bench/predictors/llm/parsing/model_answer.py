"""The answer of a model to one question: one of the labels, or the reason why there is none.

A well-formed answer is the JSON object `{"emotion":"<label>"}`, with a field `reason` if the prompt asks for one. Upper
and lower case, one block of thinking before it, and one code fence around it do not matter.
`read` is the only place where a chat completion is interpreted; `completion.py` decides what is one.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ser_bench.predictors.llm.parsing.completion import (
    MOST_TOKENS,
    THINK_END,
    first_choice,
    has_thinking,
    is_cut_off,
    is_filtered,
    text_of,
    thinking_tokens,
)
from ser_bench.predictors.llm.parsing.logprobs import FIELD, AnswerToken, label_probabilities

REASONS = ("bad_json", "not_a_label", "refusal", "content_filter", "empty", "length", "thinking", "too_long")
"""Why an answered request has no label. Each of them is an abstention. `length`: the answer was cut off; `thinking`: it
was cut off and the model had thought, so that no tokens were left for the label."""
FAILED = "failed"
"""The request got no answer after all retries. The next run asks again."""
LATER_FIELDS = ("tokens_thinking", "batched")
"""Fields that entries of older versions lack."""
REASON_FIELD = "reason"
OPENING = f'{{"{FIELD}":"'
"""Start of every answer. A server that can continue a message of the assistant receives it."""
CUT_REASONS = (("empty", "bad_json"), ("empty", "bad_json", "not_a_label"))
"""Reasons that an answer which was cut off can have under an enforced format, and in free text."""
MARKS = " \t\n\"'`*."
"""Characters around a label that do not matter."""
FENCE, FENCE_NAME = "```", "json"

GRAMMAR, JSON_SCHEMA, JSON_MODE, FREE_TEXT = "grammar", "schema", "json", "text"
"""Response formats; `request_body.py` describes them."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of a completion, as the endpoint counts them or at most.

    Attributes:
        prompt: tokens of the prompt, including those of audio.
        answer: tokens of the answer.
        audio: tokens of audio in the prompt.
    """

    prompt: int
    answer: int
    audio: int


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer, as the cache stores it.

    Attributes:
        text: everything that the model wrote; for a failure, the error message.
        label: one of the labels; "" for an abstention or a failure.
        reason: if there is no label, one of `REASONS` or `FAILED`; else "".
        probabilities: P(label) in the order of the labels; None if the endpoint did not report them.
        tokens_in: tokens of the prompt, including those of audio.
        tokens_out: tokens of the answer.
        latency_s: seconds from the first request to the answer, retries included; concurrent requests overlap.
        requests: HTTP requests sent for it.
        retries: how many of these were retries.
        response_format: the response format that constrained it; "" for a failure, and for answers of older versions.
        tokens_audio: tokens of audio in the prompt.
        usage_estimated: True if tokens are upper bounds, because the endpoint reported no usable counts.
        changes: keys of `request_body.CHANGES`: what was changed in the request because the endpoint refused it.
        tokens_thinking: tokens of thinking among those of the answer, where the endpoint reports them.
        batched: True if it came through the batch API, at half price.
        cause: cause of a failure in one or two words, such as "HTTP 429" or "timeout"; else "".
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
    response_format: str = ""
    tokens_audio: int = 0
    usage_estimated: bool = False
    changes: tuple[str, ...] = ()
    tokens_thinking: int = 0
    batched: bool = False
    cause: str = ""

    @property
    def failed(self) -> bool:
        """True if no answer arrived, so that asking again may help."""
        return self.reason == FAILED

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as the cache stores them; the response format has the key `way`, and `cause` has none.

        A failure is never stored. Fields that came later are stored only where they say something, so that an older
        version can read the entry.
        """
        fields = {name: value for name, value in asdict(self).items() if name != "cause"}
        fields = {name: value for name, value in fields.items() if value or name not in LATER_FIELDS}
        return {"way" if name == "response_format" else name: value for name, value in fields.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelAnswer:
        """Return the answer that `to_json` wrote; entries of older versions lack some keys."""
        fields = {"response_format" if name == "way" else name: stored for name, stored in value.items()}
        probabilities = fields.get("probabilities")
        fields["probabilities"] = None if probabilities is None else tuple(probabilities)
        return cls(**fields | {"changes": tuple(fields.get("changes", ()))})


def read(
    completion: dict[str, Any],
    labels: Sequence[str],
    most: TokenUsage,
    response_format: str = JSON_SCHEMA,
    with_reason: bool = False,
) -> ModelAnswer:
    """Return the answer in a chat completion. Nothing that a model or a server may write raises an error.

    Args:
        completion: a chat completion, as `completion.read_body` returns it; any part but the first choice may be
            missing or malformed.
        labels: the possible labels.
        most: upper bounds on its tokens, used where it reports none.
        response_format: what constrained the answer; under `GRAMMAR` the server continued `OPENING`.
        with_reason: True if the prompt asks for a reason as well.
    """
    choice = first_choice(completion) or {}
    usage, is_estimated = token_usage(completion, most)
    common: dict[str, Any] = {
        "tokens_in": usage.prompt,
        "tokens_out": usage.answer,
        "tokens_audio": usage.audio,
        "tokens_thinking": min(thinking_tokens(completion), usage.answer),
        "usage_estimated": is_estimated,
        "response_format": response_format,
    }
    opening = OPENING if response_format == GRAMMAR else ""
    text, refusal = text_of(choice), (choice.get("message") or {}).get("refusal")
    if not text.startswith(opening):
        text = opening + text
    if opening and not with_reason:
        text = completed(text, labels)
    if refusal:
        return ModelAnswer(str(refusal), reason="refusal", **common)
    if is_filtered(choice):
        return ModelAnswer(text, reason="content_filter", **common)
    parse_answer = parse_text if response_format == FREE_TEXT else parse
    label, reason = parse_answer(text, labels, with_reason)
    if reason in CUT_REASONS[response_format == FREE_TEXT] and is_cut_off(choice):
        reason = "thinking" if thinking_tokens(completion) or has_thinking(choice) else "length"
    opened = [AnswerToken(opening.encode(), 0.0, ())] if opening else []
    # Reported tokens spell the labels exactly; beside a label in another case they are those of other words.
    is_exact = bool(label) and json.dumps(label, ensure_ascii=False) in answer_part(text)
    probabilities = label_probabilities([*opened, *tokens_of(choice)], labels, with_reason) if is_exact else None
    return ModelAnswer(text, label, reason, None if probabilities is None else tuple(probabilities), **common)


def completed(text: str, labels: Sequence[str]) -> str:
    """Return the whole answer where the beginning that was written leads to one label only, else the text as it is.

    >>> completed('{"emotion":"sa', ["sad", "happy"]), completed('{"emotion":"s', ["sad", "surprised"])
    ('{"emotion":"sad"}', '{"emotion":"s')
    """
    possible = [whole for whole in map(answer_json, labels) if whole.startswith(text)] if text != OPENING else []
    return possible[0] if len(possible) == 1 else text


def token_usage(completion: dict[str, Any], most: TokenUsage) -> tuple[TokenUsage, bool]:
    """Return the tokens that a completion is charged for, and True if a missing or impossible count was replaced.

    An unknown count is the most that it can be, so that the cost is never too low. Some endpoints leave hidden tokens
    of thinking out of `completion_tokens` but not out of `total_tokens`.

    Args:
        completion: a chat completion.
        most: upper bounds.
    """
    usage = completion.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    total, audio = _count(usage, "total_tokens"), _count(details, "audio_tokens")
    has_text = bool(text_of(first_choice(completion) or {}))
    if answer == 0 and has_text:
        answer = None
    if prompt and answer is not None and total is not None:
        answer = max(answer, total - prompt)
    known = TokenUsage(prompt or most.prompt, most.answer if answer is None else answer, audio or most.audio)
    is_estimated = not prompt or answer is None or (not audio and most.audio > 0)
    return replace(known, audio=min(known.audio, known.prompt)), is_estimated


def parse(text: str, labels: Sequence[str], with_reason: bool = False) -> tuple[str, str]:
    """Return (label, "") for a well-formed answer, else ("", one of `REASONS`).

    >>> parse('{"emotion": "Happy"}', ["happy", "sad"]), parse('{"emotion": "glad"}', ["happy", "sad"])
    (('happy', ''), ('', 'not_a_label'))
    """
    body = answer_part(text)
    if not body:
        return "", "empty"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "", "bad_json"
    fields = {FIELD, REASON_FIELD} if with_reason else {FIELD}
    if not isinstance(value, dict) or set(value) != fields or not all(isinstance(v, str) for v in value.values()):
        return "", "bad_json"
    label = matching_label(value[FIELD], labels)
    return (label, "") if label else ("", "not_a_label")


def parse_text(text: str, labels: Sequence[str], with_reason: bool = False) -> tuple[str, str]:
    """Return (label, "") or ("", reason) for an answer without an enforced form.

    Accepted are an object as in `parse`, or a bare label with punctuation around it. A sentence that contains a label
    is not a label: "not happy" contains one too.

    >>> parse_text("Happy.", ["happy", "sad"]), parse_text("This is a happy voice", ["happy", "sad"])
    (('happy', ''), ('', 'not_a_label'))
    """
    body = answer_part(text)
    if body.startswith("{"):
        return parse(body, labels, with_reason)
    label = matching_label(body, labels)
    return (label, "") if label else ("", "not_a_label" if body.strip(MARKS) else "empty")


def answer_part(text: str) -> str:
    """Return an answer without one block of thinking before it and one code fence around it.

    >>> answer_part('<think>happy or sad?</think>```json {"emotion":"sad"}```')
    '{"emotion":"sad"}'
    """
    body = text.strip()
    if not body.startswith("{"):  # a JSON string may contain the end of such a block
        before, end, after = body.partition(THINK_END)
        body = after.strip() if end else before
    is_fenced = body.startswith(FENCE) and body.endswith(FENCE) and len(body) >= 2 * len(FENCE)
    if not is_fenced:
        return body
    inner = body[len(FENCE) : -len(FENCE)]
    named = inner[: len(FENCE_NAME)].lower() == FENCE_NAME
    return (inner[len(FENCE_NAME) :] if named else inner).strip()


def matching_label(word: str, labels: Sequence[str]) -> str:
    """Return the label that a word means, whatever its case and the marks around it; "" if none or several.

    >>> matching_label("Happy.", ["happy", "sad"]), matching_label("SAD", ["Sad", "sad"])
    ('happy', '')
    """
    if word in labels:
        return word
    folded = _folded(word)
    matches = [label for label in labels if _folded(label) == folded]
    return matches[0] if len(matches) == 1 else ""


def _folded(word: str) -> str:
    return unicodedata.normalize("NFC", word).strip(MARKS).casefold()


def stated_reason(text: str) -> str:
    """Return the reason that the model gave in an answer, on one line; "" if there is none."""
    try:
        value = json.loads(answer_part(text))
    except (ValueError, RecursionError):
        return ""
    reason = value.get(REASON_FIELD) if isinstance(value, dict) else None
    return " ".join(reason.split()) if isinstance(reason, str) else ""


def answer_json(label: str) -> str:
    """Return the shortest well-formed answer with this label.

    >>> answer_json("sad")
    '{"emotion":"sad"}'
    """
    return json.dumps({FIELD: label}, ensure_ascii=False, separators=(",", ":"))


def tokens_of(choice: dict[str, Any]) -> list[AnswerToken]:
    """Return the tokens of a choice with their logprobs; empty if the server reports none, or in an unknown form."""
    try:
        content = (choice.get("logprobs") or {}).get("content") or []
        return [
            AnswerToken(_bytes(t), t["logprob"], tuple((_bytes(a), a["logprob"]) for a in t.get("top_logprobs") or ()))
            for t in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _bytes(token: dict[str, Any]) -> bytes:
    raw = token.get("bytes")
    return bytes(raw) if raw is not None else str(token["token"]).encode()


def _count(usage: Any, name: str) -> int | None:
    """Return a count of tokens, or None if it is missing or impossible."""
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None
