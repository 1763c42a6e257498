"""The ways to hold a service to the form of an answer, strictest first, and the steps down from one to the next.

`grammar` (our own llama.cpp alone), `schema` (an object with one of the labels, enforced), `json` (some object), `text`
(nothing is enforced; the prompt asks for JSON, and a bare label is accepted too).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai

from ser_bench.config import AnswerFormat, LlmConfig
from ser_bench.predictors.llm.parsing import answer as answers
from ser_bench.predictors.llm.prompting.question import Question

GRAMMAR, SCHEMA, JSON, TEXT = "grammar", "schema", "json", "text"
STEPS = (SCHEMA, JSON, TEXT)
REFUSED_STATUSES = (400, 404, 415, 422, 500, 501)
"""Statuses with which servers refuse a `response_format` that they do not know; some break over it."""
ABOUT_THE_FORM = (
    "response_format",
    "json_schema",
    "json_object",
    "json mode",
    "structured output",
    "guided",
    "grammar",
)


def first(cfg: LlmConfig, is_llama_cpp: bool) -> str:
    """The way to begin with."""
    if is_llama_cpp:
        return GRAMMAR
    return SCHEMA if cfg.answer_format is AnswerFormat.auto else cfg.answer_format.value


def below(way: str, cfg: LlmConfig, error: openai.APIStatusError) -> str | None:
    """The next way where the service refuses this one; None where the error is about something else."""
    if cfg.answer_format is not AnswerFormat.auto or way not in STEPS[:-1]:
        return None
    said = f"{error.message} {error.body}".lower()
    if error.status_code not in REFUSED_STATUSES or not any(word in said for word in ABOUT_THE_FORM):
        return None
    return STEPS[STEPS.index(way) + 1]


def body(way: str, question: Question, labels: Sequence[str], reason: bool) -> dict[str, Any]:
    """The messages, and what constrains the answer to the labels.

    For our own llama.cpp that is no JSON schema: its translation of a schema leaves white space and a code fence to the
    model, which takes four times the tokens, and near-ties between layouts then move the probabilities of the labels.
    So the answer is begun for it, and a grammar allows the rest of the same object.
    """
    messages = question.to_send()
    if way == GRAMMAR:
        begun = {"role": "assistant", "content": answers.OPENING}
        return {"messages": [*messages, begun], "extra_body": {"grammar": answers.ending(labels, reason)}}
    if way == SCHEMA:
        return {"messages": messages, "response_format": answers.schema(question.order or labels, reason)}
    return {"messages": messages} | ({"response_format": {"type": "json_object"}} if way == JSON else {})
