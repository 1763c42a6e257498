"""One question, one answer: what is sent, and what becomes of everything that can come back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import openai

from ser_bench import openai_client
from ser_bench.config import LlmConfig
from ser_bench.predictors.llm import response_format, token_count
from ser_bench.predictors.llm.budget import Purse
from ser_bench.predictors.llm.endpoint import Service
from ser_bench.predictors.llm.local_server import CONTEXT_TOKENS
from ser_bench.predictors.llm.parsing import answer as answers
from ser_bench.predictors.llm.parsing.answer import FAILED, Answer
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.rate_limiter import Pace
from ser_bench.predictors.llm.retry import Attempts
from ser_bench.predictors.llm.token_count import TokenCounter

log = logging.getLogger(__name__)

LOGPROBS_STEP = 10
"""Where the reported tokens do not tell the probabilities of all labels, so many times more are asked for."""
REASON_TOKENS = 96
"""What a reason in one sentence adds to an answer, at most."""

CONTEXT_MARGIN, CONTEXT_STEP = 1.5, 256
"""What an estimate of tokens may be short of: small models cut figures into single digits."""
SOUND_MARGIN = 2
"""A recording counts for so many times its usual tokens before the budget: services differ."""


@dataclass
class Session:
    """All that the questions of one run share.

    Attributes:
        connection: the client.
        service: where it asks.
        cfg: model, parameters, limits.
        labels: what may be answered, in the order of the probabilities.
        counter: of tokens, for pace and budget.
        reason: True where the prompt asks for a reason too.
        pace: how fast.
        purse: for how much.
        way: what holds the answer to its form (`ways`); steps down where the service refuses it.
    """

    connection: openai.AsyncOpenAI
    service: Service
    cfg: LlmConfig
    labels: Sequence[str]
    counter: TokenCounter
    reason: bool = False
    pace: Pace = field(init=False)
    purse: Purse = field(default_factory=lambda: Purse(None))
    way: str = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.cfg.requests_per_minute, self.cfg.tokens_per_minute)
        self.way = response_format.first(self.cfg, self.service.is_llama_cpp)


def context_tokens(questions: Sequence[Question], counter: TokenCounter, cfg: LlmConfig, reason: bool) -> int:
    """Room that a server of our own must give each of these; `CONTEXT_TOKENS` at least."""
    longest = max((counter.count(question) for question in questions), default=0)
    needed = CONTEXT_MARGIN * longest + int(parameters(cfg, reason)["max_tokens"])
    return max(CONTEXT_TOKENS, math.ceil(needed / CONTEXT_STEP) * CONTEXT_STEP)


def parameters(cfg: LlmConfig, reason: bool = False, sample: int = 0) -> dict[str, Any]:
    """What is sent beside the messages and the form."""
    sent: dict[str, Any] = {
        "model": cfg.model,
        "temperature": cfg.temperature,
        "max_tokens": cfg.max_tokens + (REASON_TOKENS if reason else 0),
        "seed": cfg.seed + sample,
    }
    return sent | ({"logprobs": True, "top_logprobs": cfg.top_logprobs} if cfg.top_logprobs else {})


async def ask(session: Session, question: Question) -> Answer:
    """The answer to one question; one with the reason `FAILED` where this request alone went wrong.

    Raises:
        LLMStoppedError: the budget is spent.
        LLMError: every other request would go wrong in the same way.
    """
    started = time.perf_counter()
    attempts = Attempts(session.connection, session.cfg, session.pace, session.purse)
    try:
        answer = await _answer(session, question, attempts)
    except openai.APIError as error:
        answer = _failure(error, session)
    return replace(
        answer,
        text=openai_client.redact(answer.text, session.service.secret),
        latency_s=time.perf_counter() - started,
        requests=attempts.requests,
        retries=attempts.retries,
    )


async def _answer(session: Session, question: Question, attempts: Attempts) -> Answer:
    """Ask; where a service reports more logprobs on demand and not all labels were among them, ask for more."""
    service, labels, way = session.service, session.labels, session.way
    sent = parameters(session.cfg, session.reason, question.sample)
    while True:
        body = sent | response_format.body(way, question, labels, session.reason)
        try:
            completion = await attempts.send(body, *_size(session, question, body))
        except openai.APIStatusError as error:
            lower = response_format.below(way, session.cfg, error)
            if lower is None:
                raise
            way = _step_down(session, way, lower)
            continue
        if completion is None:
            return Answer(f"{service.name} sent something that is not a chat completion", reason=FAILED)
        answer = answers.read(completion, labels, way, session.reason)
        top = int(sent.get("top_logprobs", 0))
        if answer.probabilities or not answer.label or not 0 < top < service.most_logprobs:
            return answer
        sent["top_logprobs"] = min(top * LOGPROBS_STEP, service.most_logprobs)


def _step_down(session: Session, way: str, lower: str) -> str:
    """The way to go on with; all later questions begin with it."""
    if session.way == way:
        session.way = lower
        log.info("llm      %s refuses the answer's form %r; asking with %r", session.service.name, way, lower)
    return session.way if response_format.STEPS.index(session.way) >= response_format.STEPS.index(lower) else lower


def _size(session: Session, question: Question, body: dict[str, Any]) -> tuple[int, float]:
    """(Tokens of prompt and answer for the pace, US dollars that the request can cost at most)."""
    form, counter, out = token_count.text_of(body.get("response_format")), session.counter, body["max_tokens"]
    sound = SOUND_MARGIN * token_count.sound_tokens(question)
    most_usd = answers.price_usd(counter.at_most(question, form) + sound, out, sound, session.cfg)
    return counter.count(question, form) + out, most_usd


def _failure(error: openai.APIError, session: Session) -> Answer:
    """An error as the answer to one question.

    Raises:
        LLMError: it is none, it concerns them all.
    """
    explained = openai_client.explain(error, session.service.name, session.cfg.model, session.service.secret)
    if openai_client.too_long(error):
        return Answer(str(explained), reason="too_long")
    if openai_client.ends_the_run(error):
        raise explained from None  # the cause may repeat the key
    return Answer(str(explained), reason=FAILED)
