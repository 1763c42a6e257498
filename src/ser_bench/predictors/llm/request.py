"""One question, one answer: requests with retries, fallbacks of the response format, and what each error means."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import openai

from ser_bench import openai_client
from ser_bench.config import LlmApi, LlmConfig
from ser_bench.errors import LLMError
from ser_bench.predictors.llm import request_body, responses_api
from ser_bench.predictors.llm.batches import BatchLineResponse, LineResult
from ser_bench.predictors.llm.budget import Budget, price_usd
from ser_bench.predictors.llm.cost_estimate import TokenCounter, audio_tokens, response_format_text
from ser_bench.predictors.llm.endpoint import Endpoint
from ser_bench.predictors.llm.parsing import model_answer as answers
from ser_bench.predictors.llm.parsing.completion import CONTENT_FILTER, ErrorReply, read_body
from ser_bench.predictors.llm.parsing.model_answer import FAILED, ModelAnswer, TokenUsage
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.rate_limiter import RateLimiter, backoff_s
from ser_bench.redaction import redact_reply
from ser_bench.retry_after import retry_after_s

log = logging.getLogger(__name__)

LONGEST_RETRY_AFTER_S = 120.0
"""The run stops if the endpoint asks for a longer wait."""
LOGPROBS_FACTOR = 10
"""Factor of the number of logprobs if those reported do not determine the probabilities of all labels."""
FILTER_STATUSES = (400, 403, 422)
FILTER_CODES = (CONTENT_FILTER, "content_policy_violation", "ResponsibleAIPolicyViolation", "data_inspection_failed")
"""Codes of a refused prompt: Azure, OpenAI, and Alibaba's compatible endpoint."""
FILTER_WORDS = ("content management policy", "content_filter", "content filter")
KEPT_CHARS = 10_000
"""Longest text of an answer that is stored; it is read whole."""
AUDIO_MARGIN = 2
"""The budget counts a recording with this multiple of its usual tokens, because endpoints differ."""


class NoCompletionError(openai.APIStatusError):
    """A response with HTTP 200 holds no chat completion.

    `status_code` is the status of the error in it, so that it is treated like a response with this status; 200 if it
    states none.
    """

    def __init__(self, reply: ErrorReply, response: Any) -> None:  # of httpx, or of the copy that openai 2 brings
        super().__init__(reply.text, response=response, body=reply.body)
        self.status_code = reply.status


@dataclass
class RequestContext:
    """Everything that the requests of one run share.

    Attributes:
        connection: the client; None where nothing is sent, because lines of a batch are made or read.
        endpoint: where requests are sent.
        cfg: model, parameters, limits.
        labels: the possible labels, in the order of the probabilities.
        counter: counts tokens for the rate limiter and the budget.
        with_reason: True if the prompt asks for a reason as well.
        rate_limiter: delays requests.
        budget: limits the cost.
        response_format: what constrains the answer; falls back to a less strict one if the endpoint refuses it.
        changes: keys of `request_body.CHANGES`: those of `llm.unsupported`, then what the endpoint refused.
    """

    connection: openai.AsyncOpenAI | None
    endpoint: Endpoint
    cfg: LlmConfig
    labels: Sequence[str]
    counter: TokenCounter
    with_reason: bool = False
    rate_limiter: RateLimiter = field(init=False)
    budget: Budget = field(default_factory=lambda: Budget(None))
    response_format: str = field(init=False)
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rate_limiter = RateLimiter(self.cfg.requests_per_minute, self.cfg.tokens_per_minute)
        self.response_format = request_body.first_format(self.cfg, self.endpoint.is_llama_cpp)
        self.changes = self.changes or list(self.cfg.unsupported)

    def fall_back(self, refused: str, following: str) -> str:
        """Return the format to go on with after a refusal; later questions start with it.

        Another question may have found out meanwhile that an even less strict format is needed.
        """
        if self.response_format == refused:
            self.response_format = following
            log.info(
                "llm      %s refuses the response format %r; continuing with %r", self.endpoint.name, refused, following
            )
        return request_body.less_strict(self.response_format, following)

    def change(self, name: str, error: openai.APIStatusError) -> None:
        """Change what the endpoint refuses, in the requests of all questions; say it once."""
        if name not in self.changes:
            self.changes.append(name)
            log.info(
                "llm      %s refuses a parameter (HTTP %d); continuing with %s",
                self.endpoint.name,
                error.status_code,
                request_body.CHANGES[name],
            )


async def ask(context: RequestContext, question: Question) -> ModelAnswer:
    """Return the answer to one question; its reason is `FAILED` if only this request failed.

    Raises:
        LLMStoppedError: if the budget is spent.
        LLMError: if every other request would fail in the same way.
    """
    started = time.perf_counter()
    sender = RequestSender(context)
    try:
        answer = await _answer(context, question, sender)
    except openai.APIError as error:
        answer = _failure(error, context)
    return replace(
        answer,
        text=_kept_text(answer.text, context.endpoint.secret),
        latency_s=time.perf_counter() - started,
        requests=sender.requests,
        retries=sender.retries,
    )


class RequestSender:
    """Sends the requests about one clip within the limits of the run, with retries after transient errors.

    Attributes:
        requests: number of requests sent.
        retries: how many of these were retries.
    """

    def __init__(self, context: RequestContext) -> None:
        self._connection, self._cfg = context.connection, context.cfg
        self._rate_limiter, self._budget = context.rate_limiter, context.budget
        self._deadline = time.monotonic() + self._cfg.deadline_s
        self.requests = self.retries = 0

    async def send(self, body: dict[str, Any], tokens: int, most: TokenUsage) -> dict[str, Any]:
        """Return the completion.

        Args:
            body: arguments of the client's `create`.
            tokens: of prompt and answer, for the rate limiter.
            most: the most tokens for which one request can be charged.

        Raises:
            openai.APIError: after all retries, or if repeating does not help.
            LLMStoppedError: if the request could exceed the budget.
            LLMError: if the endpoint asks for a wait of more than `LONGEST_RETRY_AFTER_S`.
        """
        retry = 0
        while True:
            try:
                return await self._send_once(body, tokens, most)
            except openai.APIError as error:
                wait_s = self._wait_s(error, retry + 1)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            retry += 1
            self.retries += 1

    async def _send_once(self, body: dict[str, Any], tokens: int, most: TokenUsage) -> dict[str, Any]:
        await self._rate_limiter.wait_turn(tokens)
        most_usd = price_usd(most, self._cfg)
        reserved_usd = await self._budget.reserve(most_usd)
        paid_usd = most_usd  # unless an answer or a refusal arrives: a lost answer may have been charged
        try:
            self.requests += 1
            async with asyncio.timeout(min(self._cfg.timeout_s, max(0.0, self._deadline - time.monotonic()))):
                raw = await self._create(body)
            self._rate_limiter.update_limits(raw.headers)
            completion = read_body(raw.text, self._to_completion)
            if isinstance(completion, ErrorReply):
                raise NoCompletionError(completion, raw.http_response)
            paid_usd = price_usd(answers.token_usage(completion, most)[0], self._cfg)
            return completion
        except NoCompletionError:
            raise  # it arrived with HTTP 200, so it may have been charged
        except openai.APIStatusError as error:
            paid_usd = 0.0  # a refusal is not charged
            self._rate_limiter.update_limits(error.response.headers)
            raise
        except TimeoutError:  # for the whole response; the client's own timeout restarts with every part of it
            raise openai.APITimeoutError(cast("Any", None)) from None  # the argument is a request, which is not read
        finally:
            self._budget.settle(most_usd, reserved_usd, paid_usd)

    async def _create(self, body: dict[str, Any]) -> Any:
        assert self._connection is not None
        if self._cfg.api is LlmApi.responses:
            return await self._connection.responses.with_raw_response.create(**responses_api.to_request(body))
        return await self._connection.chat.completions.with_raw_response.create(**body)

    @property
    def _to_completion(self) -> Callable[[Any], Any] | None:
        return responses_api.to_completion if self._cfg.api is LlmApi.responses else None

    def _wait_s(self, error: openai.APIError, retry: int) -> float | None:
        """Return the seconds before the request is repeated, or None if it must not be.

        Raises:
            LLMError: if the endpoint asks for a wait of more than `LONGEST_RETRY_AFTER_S`.
        """
        if retry > self._cfg.max_retries or not _may_pass(error):
            return None
        stated_s = retry_after_s(error.response.headers) if isinstance(error, openai.APIStatusError) else None
        if stated_s is not None and stated_s > LONGEST_RETRY_AFTER_S:
            raise LLMError(
                f"the endpoint asks to wait {stated_s:,.0f} seconds. The answers so far are kept: run the same command "
                "again then"
            )
        if stated_s is not None:
            self._rate_limiter.pause(stated_s)  # for the other requests of the run as well
        wait_s = backoff_s(retry) if stated_s is None else stated_s
        return wait_s if time.monotonic() + wait_s < self._deadline else None


async def _answer(context: RequestContext, question: Question, sender: RequestSender) -> ModelAnswer:
    """Ask; repeat with a less strict response format, or with more logprobs, where this helps."""
    endpoint, labels, response_format = context.endpoint, context.labels, context.response_format
    parameters = request_body.parameters(context.cfg, context.with_reason, question.sample)
    first_token_only = response_format == answers.GRAMMAR and not context.with_reason
    while True:
        changes = tuple(context.changes)
        content = request_body.content(
            response_format, question, labels, context.with_reason, first_token_only, context.cfg.audio_form
        )
        body = request_body.changed(parameters | content, changes)
        try:
            tokens, most = _size(context, question, body)
            completion = await sender.send(body, tokens, most)
        except openai.APIStatusError as error:
            following = request_body.next_format(response_format, context.cfg, error)
            refused = request_body.refused_parameter(error, body)
            if following is not None:
                response_format = context.fall_back(response_format, following)
            elif refused is not None and not is_filtered_prompt(error):
                context.change(refused, error)
            else:
                raise
            continue
        answer = answers.read(completion, labels, most, response_format, context.with_reason)
        answer = replace(answer, changes=changes)
        if first_token_only and not answer.label:  # labels share this token; the evaluated prompt is reused
            first_token_only = False
            continue
        logprobs = int(body.get("top_logprobs", 0))
        if answer.probabilities or not answer.label or not 0 < logprobs < endpoint.most_logprobs:
            return answer
        parameters["top_logprobs"] = min(logprobs * LOGPROBS_FACTOR, endpoint.most_logprobs)


def request_for(context: RequestContext, question: Question) -> tuple[dict[str, Any], TokenUsage]:
    """Return the arguments of a request as it is now sent, and the most tokens that it can be charged for."""
    parameters = request_body.parameters(context.cfg, context.with_reason, question.sample)
    content = request_body.content(
        context.response_format, question, context.labels, context.with_reason, audio_form=context.cfg.audio_form
    )
    body = request_body.changed(parameters | content, context.changes)
    return body, _size(context, question, body)[1]


def answer_of_line(
    context: RequestContext, question: Question, result: LineResult, latency_s: float
) -> ModelAnswer | None:
    """Return the answer to one line of a batch, or None if it has to be asked again.

    Args:
        context: with the response format and the changes of the batch.
        question: the question of the line.
        result: what the batch gave for it.
        latency_s: seconds of the batch per line.

    Raises:
        LLMError: if the error would affect every question.
    """
    if result.status == 0:
        return None
    if result.status == 200:
        to_completion = responses_api.to_completion if context.cfg.api is LlmApi.responses else None
        completion = read_body(json.dumps(result.body), to_completion)
        if isinstance(completion, ErrorReply):
            error: openai.APIStatusError = NoCompletionError(completion, BatchLineResponse(200))
        else:
            body, most = request_for(context, replace(question, recording=None))
            most = _size(context, question, body)[1]
            answer = answers.read(completion, context.labels, most, context.response_format, context.with_reason)
            text = _kept_text(answer.text, context.endpoint.secret)
            return replace(answer, text=text, latency_s=latency_s, changes=tuple(context.changes), batched=True)
    else:
        error = BatchLineResponse(result.status).error(result.body)
    if openai_client.is_transient(error):
        return None
    answer = _failure(error, context)
    return None if answer.failed else replace(answer, batched=True)


def line_usd(context: RequestContext, result: LineResult) -> float:
    """Return what the service charges for a line of a batch; 0 for a line that it did not answer."""
    if result.status != 200:
        return 0.0
    to_completion = responses_api.to_completion if context.cfg.api is LlmApi.responses else None
    completion = read_body(json.dumps(result.body), to_completion)
    if isinstance(completion, ErrorReply):
        return 0.0
    return price_usd(answers.token_usage(completion, TokenUsage(0, 0, 0))[0], context.cfg, batched=True)


def _may_pass(error: openai.APIError) -> bool:
    """Return True if repeating the request may help; also after HTTP 200 with neither a completion nor a status."""
    return openai_client.is_transient(error) or (isinstance(error, NoCompletionError) and error.status_code == 200)


def _size(context: RequestContext, question: Question, body: dict[str, Any]) -> tuple[int, TokenUsage]:
    """Return (tokens of prompt and answer for the rate limiter, the most tokens that it can be charged for)."""
    schema, answer_tokens = response_format_text(body.get("response_format")), request_body.answer_limit(body)
    audio = AUDIO_MARGIN * audio_tokens(question)
    most = TokenUsage(context.counter.at_most(question, schema) + audio, answer_tokens, audio)
    return context.counter.count(question, schema) + answer_tokens, most


def _failure(error: openai.APIError, context: RequestContext) -> ModelAnswer:
    """Return an error as the answer to one question.

    Raises:
        LLMError: if the error would affect every question.
    """
    explained = openai_client.explain(error, context.endpoint.name, context.cfg.model, context.endpoint.secret)
    if is_filtered_prompt(error):
        return ModelAnswer(str(explained), reason=CONTENT_FILTER)
    if openai_client.is_too_long(error):
        return ModelAnswer(str(explained), reason="too_long")
    if openai_client.is_fatal(error):
        raise explained from None  # the original error may contain the key
    return ModelAnswer(str(explained), reason=FAILED, cause=_cause(error))


def is_filtered_prompt(error: openai.APIError) -> bool:
    """Return True if a content filter refused this one prompt, which some services report as an invalid request."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in FILTER_STATUSES:
        return False
    inner = error.body.get("innererror") if isinstance(error.body, dict) else None
    codes = [error.code, error.type, inner.get("code") if isinstance(inner, dict) else None]
    return any(code in FILTER_CODES for code in codes) or any(words in error.message.lower() for words in FILTER_WORDS)


def _kept_text(text: str, secret: str | None) -> str:
    """Return the text of an answer as it is stored: redacted, and shortened if it is very long."""
    redacted = redact_reply(text[: 2 * KEPT_CHARS], secret)  # a secret at the cut is beyond the second one
    return redacted if len(redacted) <= KEPT_CHARS else redacted[: KEPT_CHARS - 1] + "…"


def _cause(error: openai.APIError) -> str:
    """Return the cause of a failure in one or two words, by which failures are counted."""
    if isinstance(error, NoCompletionError) and error.status_code == 200:
        return "no completion"
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    if openai_client.is_refused(error):
        return "response refused"
    return "timeout" if isinstance(error, openai.APITimeoutError) else "no connection"
