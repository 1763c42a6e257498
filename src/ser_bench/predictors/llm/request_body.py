"""The body of a request: parameters, messages, and the response format that constrains the answer to the labels.

Response formats, strictest first:

- `grammar`: the server that this process started continues `{"emotion":"` under a grammar of the labels;
- `schema`: a JSON schema, which allows an object with one of the labels and nothing else;
- `json`: JSON mode, which allows any object;
- `text`: nothing is enforced; the prompt asks for JSON, and a bare label is accepted as well.

Some models refuse a parameter that others need. It is then left out or renamed for the rest of the run (`CHANGES`). The
cache keys stay those of the configured parameters: what an endpoint refuses follows from the endpoint and the model,
which are part of the keys, and a run that finds all answers in the cache must not ask to learn it. Each stored answer
holds the changes under which it was given.

With `llm.answer_format=auto`, requests start with `schema` and fall back to the next format if the endpoint refuses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ser_bench.config import AnswerFormat, AudioForm, CacheMode, LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.logprobs import FIELD
from ser_bench.predictors.llm.parsing.model_answer import (
    FREE_TEXT,
    GRAMMAR,
    JSON_MODE,
    JSON_SCHEMA,
    OPENING,
    REASON_FIELD,
    answer_json,
)
from ser_bench.predictors.llm.prompting.question import Message, Question

if TYPE_CHECKING:
    import openai

FALLBACKS = (JSON_SCHEMA, JSON_MODE, FREE_TEXT)
REASON_TOKENS = 96
"""Most tokens that a reason in one sentence adds to an answer."""
REASON_CHARS = 300
"""Longest reason under a grammar; some models would never end it."""
REFUSAL_STATUSES = (400, 404, 415, 422, 500, 501)
"""Statuses with which servers refuse an unknown `response_format`; some fail with a server error."""
REFUSAL_WORDS = (
    "response_format",
    "json_schema",
    "json_object",
    "json mode",
    "structured output",
    "text.format",
    "guided",
    "grammar",
)
"""An error is about the response format if its message contains one of these."""


CHANGES = {
    "max_tokens": "max_tokens sent as max_completion_tokens",
    "temperature": "temperature left out",
    "seed": "seed left out",
    "logprobs": "logprobs left out",
    "system": "system message sent as part of the user message",
    "reasoning_effort": "reasoning effort left out",
}
"""What is changed in all later requests of a run after an endpoint has refused it, or from the start if
`llm.unsupported` names it."""
LEFT_OUT_KEYS = {
    "temperature": ("temperature",),
    "seed": ("seed",),
    "logprobs": ("logprobs", "top_logprobs"),
    "reasoning_effort": ("reasoning_effort",),
}
CHANGE_OF_KEY = {"max_tokens": "max_tokens"} | {key: name for name, keys in LEFT_OUT_KEYS.items() for key in keys}
ALIASES = {"include": "logprobs", "reasoning.effort": "reasoning_effort", "reasoning": "reasoning_effort"}
"""Names in errors of the Responses API → the key of a chat completion that they stand for."""
PARAMETER_NAME = re.compile(rf"\b({'|'.join(map(re.escape, [*CHANGE_OF_KEY, 'reasoning.effort']))})\b")
SYSTEM_ROLE = re.compile(r"\b(system (role|message|prompt|instruction)|developer instruction)")
UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecognized|unknown (name|argument|parameter|field)|unexpected|extra_forbidden|"
    r"not permitted|not allowed|cannot find field|not enabled|deprecated|only the default|"
    r"only \S+ is (allowed|supported)"
)
"""Words with which services refuse a parameter as such, in lower case."""


def parameters(cfg: LlmConfig, with_reason: bool = False, sample: int = 0) -> dict[str, Any]:
    """Return the parameters that are sent beside messages and response format; they are part of the cache keys."""
    sent: dict[str, Any] = {
        "model": cfg.model,
        "temperature": cfg.temperature,
        "max_tokens": cfg.max_tokens + (REASON_TOKENS if with_reason else 0) + cfg.thinking_tokens,
        "seed": cfg.seed + sample,
    }
    sent |= {"logprobs": True, "top_logprobs": cfg.top_logprobs} if cfg.top_logprobs else {}
    sent |= {"reasoning_effort": cfg.reasoning_effort} if cfg.reasoning_effort else {}
    return _changed_parameters(sent, cfg.unsupported)


def answer_limit(body: Mapping[str, Any]) -> int:
    """Return the most tokens of an answer, thinking included, that a request allows."""
    return int(body.get("max_tokens") or body["max_completion_tokens"])


def check_keys(cfg: LlmConfig) -> None:
    """Check `llm.unsupported`, `llm.thinking_tokens` and `llm.batch`.

    Raises:
        ConfigError: if the first holds a name that is no key of `CHANGES`, if thinking has a negative budget, or if
            there can be no batch.
    """
    unknown = sorted(set(cfg.unsupported) - set(CHANGES))
    if unknown:
        raise ConfigError(f"llm.unsupported: {', '.join(unknown)} is none of {', '.join(CHANGES)}")
    if cfg.thinking_tokens < 0:
        raise ConfigError(f"llm.thinking_tokens={cfg.thinking_tokens}: a number of tokens is 0 or more")
    if cfg.batch and cfg.local and cfg.base_url is None:
        raise ConfigError("llm.batch=true: the local server has no batch API; choose a service, or llm.batch=false")
    if cfg.batch and cfg.cache is not CacheMode.readwrite:
        raise ConfigError("llm.batch=true needs llm.cache=readwrite: answers that arrive later must be kept")


def content(
    response_format: str,
    question: Question,
    labels: Sequence[str],
    with_reason: bool,
    first_token_only: bool = False,
    audio_form: AudioForm = AudioForm.input_audio,
) -> dict[str, Any]:
    """Return the messages and what constrains the answer to the labels, as arguments of the `openai` client.

    The server of this process gets a grammar and not a JSON schema. llama.cpp's translation of a schema leaves white
    space and a code fence to the model. This takes four times as many tokens, and near-ties between layouts change the
    probabilities of the labels. With a grammar the answer starts with `OPENING`, and only the rest of the object
    remains to be written.

    The first token of the answer nearly always decides the label, and its report holds the probabilities of all labels.
    With `first_token_only`, the server therefore computes nothing after the pass over the prompt.
    """
    messages = question.to_send(audio_form.value)
    if response_format == GRAMMAR:
        opened = {"role": "assistant", "content": OPENING}
        sent = {"messages": [*messages, opened], "extra_body": {"grammar": grammar(labels, with_reason)}}
        return sent | ({"max_tokens": 1} if first_token_only else {})
    if response_format == JSON_SCHEMA:
        return {"messages": messages, "response_format": json_schema(question.order or labels, with_reason)}
    if response_format == JSON_MODE:
        return {"messages": messages, "response_format": {"type": "json_object"}}
    return {"messages": messages}


def changed(body: Mapping[str, Any], changes: Collection[str]) -> dict[str, Any]:
    """Return the arguments of a request with these `CHANGES`."""
    sent = _changed_parameters(body, changes)
    if "system" in changes:
        sent["messages"] = _without_system(sent["messages"])
    return sent


def _changed_parameters(parameters: Mapping[str, Any], changes: Collection[str]) -> dict[str, Any]:
    sent = dict(parameters)
    if "max_tokens" in changes and "max_tokens" in sent:
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    for name in changes:
        for key in LEFT_OUT_KEYS.get(name, ()):
            sent.pop(key, None)
    return sent


def refused_parameter(error: openai.APIStatusError, body: Mapping[str, Any]) -> str | None:
    """Return which of `CHANGES` may help after a refusal, or None.

    The error must call something unsupported. A value that is wrong for another reason stops the run, so that a mistake
    in the configuration is not removed.

    Args:
        error: the refusal. Its field `param` is read first, then the fields of `detail`, then its words.
        body: the request that was refused.
    """
    text = f"{error.message} {error.body}".lower()
    if error.status_code not in (*REFUSAL_STATUSES, 403) or not UNSUPPORTED.search(text):
        return None
    has_system = any(message.get("role") == "system" for message in body["messages"])
    if isinstance(error.param, str):
        is_role = error.param.startswith("messages") and "system" in text
        names = ["system" if is_role else _change_of(error.param)]
    else:
        names = _refused_fields(error) or [_change_of(key) for key in re.findall(PARAMETER_NAME, text)]
        names += ["system"] if SYSTEM_ROLE.search(text) else []
    possible = {CHANGE_OF_KEY[key] for key in body if key in CHANGE_OF_KEY} | ({"system"} if has_system else set())
    return next((name for name in names if name in possible), None)


def _change_of(name: str) -> str:
    """Return the change for a parameter that an error names; "" if there is none."""
    return CHANGE_OF_KEY.get(ALIASES.get(name, name), "")


def _refused_fields(error: openai.APIStatusError) -> list[str]:
    """Return the changes for the fields that a validation error in the form of FastAPI names."""
    detail = error.body.get("detail") if isinstance(error.body, dict) else None
    places = [item.get("loc") for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
    keys = [str(place[-1]) for place in places if isinstance(place, list) and place]
    return [CHANGE_OF_KEY[key] for key in keys if key in CHANGE_OF_KEY]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the system message before the text of the first user message."""
    system = "\n\n".join(str(message["content"]) for message in messages if message["role"] == "system")
    rest = [dict(message) for message in messages if message["role"] != "system"]
    for message in rest[:1] if system else []:
        content = message["content"]
        part = {"type": "text", "text": system}
        message["content"] = f"{system}\n\n{content}" if isinstance(content, str) else [part, *content]
    return rest


def json_schema(labels: Sequence[str], with_reason: bool = False) -> dict[str, Any]:
    """Return the `response_format` that allows an object with one of the labels (and a reason), and nothing else."""
    fields: dict[str, Any] = {FIELD: {"type": "string", "enum": list(labels)}}
    if with_reason:
        fields[REASON_FIELD] = {"type": "string"}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": FIELD, "strict": True, "schema": schema}}


def grammar(labels: Sequence[str], with_reason: bool = False) -> str:
    """Return a llama.cpp grammar (GBNF) for the text after `OPENING`: the rest of an object as in `json_schema`."""
    rests = [answer_json(label).removeprefix(OPENING) for label in labels]
    if not with_reason:
        return "root ::= " + " | ".join(json.dumps(rest, ensure_ascii=False) for rest in rests)
    begun = " | ".join(json.dumps(rest[:-1] + f',"{REASON_FIELD}":"', ensure_ascii=False) for rest in rests)
    words = rf'[^"\\\x00-\x1f]{{0,{REASON_CHARS}}}'
    return f'root ::= ({begun}) {words} "\\"}}"'


def first_format(cfg: LlmConfig, is_llama_cpp: bool) -> str:
    """Return the response format of the first request; `is_llama_cpp` is True for the server of this process."""
    if is_llama_cpp:
        return GRAMMAR
    return JSON_SCHEMA if cfg.answer_format is AnswerFormat.auto else cfg.answer_format.value


def next_format(response_format: str, cfg: LlmConfig, error: openai.APIStatusError) -> str | None:
    """Return the format to fall back to, or None if there is none or the error is not about the response format."""
    if cfg.answer_format is not AnswerFormat.auto or response_format not in FALLBACKS[:-1]:
        return None
    message = f"{error.message} {error.body}".lower()
    if error.status_code not in REFUSAL_STATUSES or not any(word in message for word in REFUSAL_WORDS):
        return None
    return FALLBACKS[FALLBACKS.index(response_format) + 1]


def less_strict(one: str, other: str) -> str:
    """Return the less strict of two formats of `FALLBACKS`."""
    return max(one, other, key=FALLBACKS.index)
