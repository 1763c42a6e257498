"""One prompt, one answer: what is sent, and what becomes of everything that can come back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai

from ser_bench.config import LlmConfig
from ser_bench.llm import answer as answers
from ser_bench.llm import client
from ser_bench.llm.answer import FAILED, Answer
from ser_bench.llm.prompt import Message
from ser_bench.llm.service import Service

LOGPROBS_STEP = 10
"""Where the reported tokens do not tell the probabilities of all labels, so many times more are asked for."""
RETRY_COUNT = "x-stainless-retry-count"
"""Header by which the official client numbers its attempts."""


def parameters(cfg: LlmConfig) -> dict[str, Any]:
    """What is sent beside the messages and the schema."""
    sent: dict[str, Any] = {
        "model": cfg.model,
        "temperature": cfg.temperature,
        "max_tokens": cfg.max_tokens,
        "seed": cfg.seed,
    }
    return sent | ({"logprobs": True, "top_logprobs": cfg.top_logprobs} if cfg.top_logprobs else {})


async def ask(
    connection: openai.AsyncOpenAI,
    service: Service,
    cfg: LlmConfig,
    labels: Sequence[str],
    messages: Sequence[Message],
) -> Answer:
    """The answer to one prompt; one with the reason `FAILED` where this request alone went wrong.

    Raises:
        LLMError: every other request would go wrong in the same way.
    """
    started = time.perf_counter()
    try:
        answer = await _answer(connection, service, cfg, labels, messages)
    except openai.APIError as error:
        answer = _failure(error, service, cfg)
    text = client.redact(answer.text, service.secret)
    return replace(answer, text=text, latency_s=time.perf_counter() - started)


async def _answer(
    connection: openai.AsyncOpenAI,
    service: Service,
    cfg: LlmConfig,
    labels: Sequence[str],
    messages: Sequence[Message],
) -> Answer:
    """Ask; where a service reports more logprobs on demand and not all labels were among them, ask for more."""
    sent = parameters(cfg) | form(service, labels, messages)
    opening = answers.OPENING if service.is_llama_cpp else ""
    requests = retries = 0
    while True:
        raw = await connection.chat.completions.with_raw_response.create(**sent)
        requests, retries = requests + 1, retries + raw.retries_taken
        sum_up = {"requests": requests + retries, "retries": retries}
        completion = _json(raw.text)
        if completion is None:
            return Answer(f"{service.name} sent something that is not a chat completion", reason=FAILED, **sum_up)
        answer = replace(answers.read(completion, labels, opening), **sum_up)
        top = int(sent.get("top_logprobs", 0))
        if answer.probabilities or not answer.label or not 0 < top < service.most_logprobs:
            return answer
        sent["top_logprobs"] = min(top * LOGPROBS_STEP, service.most_logprobs)


def form(service: Service, labels: Sequence[str], messages: Sequence[Message]) -> dict[str, Any]:
    """The messages, and what constrains the answer to the labels.

    That is a JSON schema, but for our own llama.cpp: its translation of a schema leaves white space and a code fence
    to the model, which takes four times the tokens, and near-ties between layouts then move the probabilities of the
    labels. So the answer is begun for it, and a grammar allows the rest of the same object.
    """
    if not service.is_llama_cpp:
        return {"messages": list(messages), "response_format": answers.schema(labels)}
    begun = {"role": "assistant", "content": answers.OPENING}
    return {"messages": [*messages, begun], "extra_body": {"grammar": answers.ending(labels)}}


def _json(body: str) -> dict[str, Any] | None:
    """The object in a body; plain, because the client's own types take four times as long for many logprobs."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _failure(error: openai.APIError, service: Service, cfg: LlmConfig) -> Answer:
    """An error as the answer to one prompt.

    Raises:
        LLMError: it is none, it concerns them all.
    """
    explained = client.explain(error, service.name, cfg.model, service.secret)
    if client.too_long(error):
        return Answer(str(explained), reason="too_long", requests=1)
    if client.ends_the_run(error):
        raise explained from None  # the cause may repeat the key
    retries = int(error.request.headers.get(RETRY_COUNT, "0"))
    return Answer(str(explained), reason=FAILED, requests=retries + 1, retries=retries)
