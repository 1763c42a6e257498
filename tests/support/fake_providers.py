"""How several services answer a request, as their public documentation and reported errors describe it.

Each function takes the body of a request and returns the reply, for `fake_openai.serve`. None of them was compared with
the real service. Each answers "sad".
"""

from __future__ import annotations

import json
from typing import Any

from tests.support import fake_openai as fake
from tests.support.fake_openai import Reply

Body = dict[str, Any]

THOUGHTS = 100
"""Tokens that the models below spend on thinking."""
OPENAI_KEYS = {"model", "messages", "response_format", "max_completion_tokens", "seed", "reasoning_effort"}
RESPONSES_KEYS = {"model", "input", "store", "max_output_tokens", "temperature", "top_logprobs", "include", "text"}
RESPONSES_KEYS |= {"reasoning"}
GEMINI_KEYS = {"model", "messages", "response_format", "max_tokens", "temperature", "reasoning_effort"}


def refused(param: str | None, message: str, code: str | None = "unsupported_parameter", status: int = 400) -> Reply:
    """Return an error in OpenAI's format with the parameter that it is about."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Reply({"error": error}, status)


def token(text: str, logprob: float, others: dict[str, float] | None = None) -> dict[str, Any]:
    """Return a token of an answer with the alternatives at its place."""
    top = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in (others or {text: logprob}).items()]
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": top}


SAD_TOKENS = [
    token('{"emotion":"', 0.0),
    token("sad", -0.5, {"sad": -0.5, "happy": -1.5, "angry": -2.5}),
    token('"}', 0.0),
]
"""The answer with the probabilities of the labels angry, happy and sad."""


def reasoning(body: Body) -> Reply:
    """OpenAI's reasoning models."""
    if "max_tokens" in body:
        return refused(
            "max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
        )  # fmt: skip
    if "temperature" in body:
        return refused(
            "temperature", "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1)"
            " value is supported.", "unsupported_value",
        )  # fmt: skip
    if "logprobs" in body:
        return refused(None, "You are not allowed to request logprobs from this model", None, 403)
    assert set(body) <= OPENAI_KEYS, set(body)
    most = body["max_completion_tokens"]
    is_cut = most <= THOUGHTS
    reply = fake.completion("" if is_cut else '{"emotion":"sad"}', "length" if is_cut else "stop")
    written = most if is_cut else THOUGHTS + 10
    details = {"reasoning_tokens": min(most, THOUGHTS)}
    usage = {"prompt_tokens": 100, "completion_tokens": written, "total_tokens": 100 + written}
    return fake.with_usage(reply, usage | {"completion_tokens_details": details})


def responses(body: Body) -> Reply:
    """The Responses API; chat completions are not offered."""
    for name in body:
        if name not in RESPONSES_KEYS:
            return refused(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    assert body["text"]["format"]["type"] in ("json_schema", "json_object", "text"), "a format has its keys beside type"
    assert all(part["type"] != "text" for m in body["input"] if isinstance(m["content"], list) for part in m["content"])
    is_cut = "reasoning" in body and body["max_output_tokens"] <= THOUGHTS
    part: dict[str, Any] = {"type": "output_text", "text": '{"emotion":"sad"}', "annotations": [], "logprobs": []}
    if "message.output_text.logprobs" in body.get("include", ()):
        part["logprobs"] = SAD_TOKENS
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    thinking = [{"type": "reasoning", "id": "rs_1", "summary": []}] if "reasoning" in body else []
    written = body["max_output_tokens"] if is_cut else 10
    return Reply(
        {
            "id": "resp_1",
            "object": "response",
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "error": None,
            "output": [*thinking, *([] if is_cut else [message])],
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": written if is_cut else 0},
                "total_tokens": 100 + written,
            },
        }
    )


def vllm(body: Body) -> Reply:
    """vLLM: ignores unknown keys, reports at most `--max-logprobs` (20) logprobs, keeps thinking in its own field."""
    if body.get("top_logprobs", 0) > 20:
        message = f"Requested sample logprobs of {body['top_logprobs']}, which is greater than max allowed: 20"
        return Reply({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}, 400)
    assert body["response_format"]["json_schema"]["schema"]
    reply = fake.completion('{"emotion":"sad"}', logprobs=SAD_TOKENS if body.get("logprobs") else None)
    reply.body["choices"][0]["message"]["reasoning_content"] = None
    return reply


def ollama(body: Body) -> Reply:
    """Ollama before 0.12.11: has JSON schemas, ignores the request for logprobs; a model has a tag."""
    if ":" not in body["model"]:
        return fake.error(404, f'model "{body["model"]}" not found, try pulling it first', "not_found")
    return fake.completion('{\n  "emotion": "sad"\n}')


def lmstudio(body: Body) -> Reply:
    """LM Studio: JSON schemas, but no JSON mode, which it refuses with an error that is a text."""
    if body.get("response_format", {}).get("type", "text") not in ("json_schema", "text"):
        return Reply({"error": "'response_format.type' must be 'json_schema' or 'text'"}, 400)
    return fake.completion('{"emotion":"sad"}' if "response_format" in body else "sad")


def azure(body: Body) -> Reply:
    """Azure OpenAI: refuses a prompt that holds "violent" with the error of its content filter."""
    if "violent" in json.dumps(body["messages"]):
        message = (
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
            "modify your prompt and retry."
        )
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": True}}}
        error = {"message": message, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
        return Reply({"error": error | {"innererror": inner}}, 400)
    reply = fake.completion('{"emotion":"sad"}', logprobs=SAD_TOKENS if body.get("logprobs") else None)
    reply.body["choices"][0]["content_filter_results"] = {"violence": {"filtered": False, "severity": "safe"}}
    return reply


def gemini(body: Body) -> Reply:
    """Gemini's compatible endpoint: refuses unknown keys, and sends an error as a list."""
    for name in body:
        if name not in GEMINI_KEYS:
            message = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            return Reply([{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}], 400)
    reply = fake.completion('{"emotion":"sad"}')
    if body.get("reasoning_effort") != "none":  # tokens of thinking are in the total only
        return fake.with_usage(reply, {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 + THOUGHTS})
    return reply


def anthropic(body: Body) -> Reply:
    """Anthropic's compatible endpoint: ignores the response format, seed and logprobs; newer models: no temperature."""
    if "temperature" in body and "new" in body["model"]:
        message = "`temperature` is deprecated for this model."
        return Reply({"error": {"code": "invalid_request_error", "message": message, "param": None}}, 400)
    return fake.completion("```json\n" + '{"emotion": "sad"}' + "\n```")


def hearing(body: Body) -> Reply:
    """A server that hears: the last message holds a text and a recording in one of two forms."""
    text, sound = body["messages"][-1]["content"]
    assert text["type"] == "text"
    if sound["type"] == "input_audio":
        assert set(sound["input_audio"]) == {"data", "format"}
        return fake.completion('{"emotion":"sad"}')
    assert sound["type"] == "audio_url" and sound["audio_url"]["url"].startswith("data:audio/wav;base64,")
    return fake.completion('{"emotion":"happy"}')


def without_input_audio(body: Body) -> Reply:
    """A server that knows `audio_url` only."""
    if body["messages"][-1]["content"][1]["type"] != "audio_url":
        return fake.error(400, "Unknown part type: input_audio")
    return hearing(body)
