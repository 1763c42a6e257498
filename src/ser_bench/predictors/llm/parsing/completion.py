"""What counts as a chat completion, and what a service sends in its place with HTTP 200.

A completion is a JSON object with a non-empty list `choices`, whose first choice holds a message. Its content is text,
a list of text parts, or null. A choice that a content filter emptied needs no message. Anything else, above all an
object with an `error`, is no answer of a model but a failed request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CONTENT_FILTER = "content_filter"
CUT_OFF = ("length", "max_tokens")
"""Finish reasons, in lower case, of an answer that reached the limit on its tokens."""
THINKING_FIELDS = ("reasoning_content", "reasoning")
"""Fields of a message in which servers put the model's thinking."""
THINK, THINK_END = "<think>", "</think>"
"""Marks of a block of thinking; its start may be part of the prompt template, and then is not in the answer."""
MOST_TOKENS = 10**9
"""No request has more tokens; a larger count is an error of the endpoint."""
STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    CONTENT_FILTER: 400,
}
"""HTTP status that belongs to an error code of OpenAI, for services that send the code with status 200."""
QUOTED_CHARS = 2_000
"""Longest part of a body that is quoted; the quotation is redacted and shortened further before anybody sees it."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """What a service sent with HTTP 200 in place of a completion.

    Attributes:
        body: the error as the service states it (text, or an object with `message`, `code`, …), or the start of the
            body.
        status: the HTTP status that the error states or that belongs to its code; 200 if there is none.
    """

    body: Any
    status: int

    @property
    def text(self) -> str:
        """The service's own words, not redacted."""
        stated = self.body.get("message") if isinstance(self.body, dict) else None
        return str(stated or self.body)[:QUOTED_CHARS]


def read_body(body: str, to_completion: Callable[[Any], Any] | None = None) -> dict[str, Any] | ErrorReply:
    """Return the chat completion in the body of a response with HTTP 200, or what stands in its place.

    The classes of the `openai` client are not used: with many logprobs they take four times as long.

    Args:
        body: the text of the response.
        to_completion: translates its JSON value into a chat completion; None: it is one.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ErrorReply(body[:QUOTED_CHARS].strip() or "an empty body", 200)
    value = value if to_completion is None else to_completion(value)
    if not isinstance(value, dict):
        return ErrorReply(body[:QUOTED_CHARS], 200)
    if first_choice(value) is not None:
        return value
    error = value.get("error") or _error_of_choice(value) or body[:QUOTED_CHARS]
    return ErrorReply(error, _status(error))


def first_choice(completion: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the choice that holds the answer, or None if the object is no chat completion."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if completion.get("error") or not isinstance(choice, dict) or _is_error(choice):
        return None
    if is_filtered(choice):
        return choice
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return choice if isinstance(message, dict) and isinstance(content, str | list | None) else None


def is_filtered(choice: Mapping[str, Any]) -> bool:
    """Return True if a content filter removed the answer; some services append the category to the finish reason."""
    return str(choice.get("finish_reason")).lower().startswith(CONTENT_FILTER)


def is_cut_off(choice: Mapping[str, Any]) -> bool:
    """Return True if the answer reached the limit on its tokens."""
    return str(choice.get("finish_reason")).lower() in CUT_OFF


def text_of(choice: Mapping[str, Any]) -> str:
    """Return the text of the message of a choice; "" if it has none."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def thinking_tokens(completion: Mapping[str, Any]) -> int:
    """Return how many tokens of thinking the service reports; 0 if none, or none that is a count."""
    usage = completion.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    value = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_TOKENS else 0


def has_thinking(choice: Mapping[str, Any]) -> bool:
    """Return True if a choice holds thinking apart from the answer (vLLM, Ollama), or an unfinished block of it."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return False
    text = text_of(choice).strip()
    return any(message.get(name) for name in THINKING_FIELDS) or (text.startswith(THINK) and THINK_END not in text)


def _is_error(choice: Mapping[str, Any]) -> bool:
    return bool(choice.get("error")) or choice.get("finish_reason") == "error"


def _error_of_choice(completion: Mapping[str, Any]) -> Any:
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice.get("error") if isinstance(choice, dict) else None


def _status(error: Any) -> int:
    """Return the status of an error: `code` or `status` as a number, or what belongs to the code; else 200."""
    if not isinstance(error, dict):
        return 200
    for value in (error.get("code"), error.get("status"), error.get("type")):
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if isinstance(number, int) and 400 <= number < 600:
            return number
        if isinstance(value, str) and value in STATUS_OF_CODE:
            return STATUS_OF_CODE[value]
    return 200
