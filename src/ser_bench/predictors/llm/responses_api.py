"""The Responses API (`POST /v1/responses`), translated from and to a chat completion.

Everything else in this package knows chat completions only: `to_request` translates the arguments of a request just
before it is sent, and `to_completion` the reply just after it arrived.

The Responses API has no `seed`. Answers are not stored by the service (`store: false`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ser_bench.predictors.llm.parsing.completion import CONTENT_FILTER

LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that requests log-probabilities."""
RENAMED = {"model": "model", "temperature": "temperature", "top_logprobs": "top_logprobs"}
FINISH_REASONS = {"max_output_tokens": "length", CONTENT_FILTER: CONTENT_FILTER}
"""`incomplete_details.reason` → finish reason of a chat completion; another reason is kept as it is."""
PARTS = {"text": "input_text"}
"""Type of a part of a message → its type here; `input_audio` is the same."""


def to_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `responses.create` for those of `chat.completions.create`.

    Args:
        body: as `request_body` makes it; `seed` is left out.
    """
    sent: dict[str, Any] = {new: body[old] for old, new in RENAMED.items() if old in body}
    sent |= {"input": [_input_message(message) for message in body["messages"]], "store": False}
    sent["max_output_tokens"] = body.get("max_completion_tokens") or body["max_tokens"]
    sent["text"] = {"format": _text_format(body.get("response_format"))}
    if body.get("logprobs"):
        sent["include"] = [LOGPROBS]
    if "reasoning_effort" in body:
        sent["reasoning"] = {"effort": body["reasoning_effort"]}
    return sent


def to_completion(reply: Any) -> Any:
    """Return the JSON value of a response as a chat completion; a value of another form is returned as it is.

    A reply whose status is `failed` becomes an object with `error`, as services send it with HTTP 200.
    """
    output = reply.get("output") if isinstance(reply, dict) else None
    if not isinstance(reply, dict) or not isinstance(output, list) or reply.get("error"):
        return reply
    parts = [part for item in output if isinstance(item, dict) for part in _parts(item)]
    texts = [part for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    details = reply.get("incomplete_details")
    reason = str(details.get("reason")) if isinstance(details, dict) and details.get("reason") else "stop"
    logprobs = [token for part in texts for token in part.get("logprobs") or () if isinstance(token, dict)]
    choice = {
        "index": 0,
        "finish_reason": FINISH_REASONS.get(reason, reason),
        "message": {
            "role": "assistant",
            "content": "".join(part["text"] for part in texts) if texts else None,
            "refusal": " ".join(refusals) or None,
        },
        "logprobs": {"content": logprobs} if logprobs else None,
    }
    return {"choices": [choice], "usage": _usage(reply.get("usage"))}


def _parts(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of an item of the output that is a message; reasoning and other items have none."""
    content = item.get("content") if item.get("type") == "message" else None
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _input_message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    if not isinstance(content, str):
        content = [part | {"type": PARTS.get(part["type"], part["type"])} for part in content]
    return {"role": message["role"], "content": content}


def _text_format(response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `text.format`; some servers require it also where nothing constrains the answer."""
    if response_format is None:
        return {"type": "text"}
    if response_format["type"] != "json_schema":
        return dict(response_format)
    return {"type": "json_schema", **response_format["json_schema"]}


def _usage(usage: Any) -> Any:
    if not isinstance(usage, dict):
        return None
    counts = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "total_tokens": "total_tokens"}
    details = {"prompt_tokens_details": "input_tokens_details", "completion_tokens_details": "output_tokens_details"}
    return {new: usage.get(old) for new, old in (counts | details).items()}

