"""Tokens of prompts before they are sent, and the estimate of a dry run (`llm.dry_run=true`).

Tokens are counted with tiktoken if its table of the model is on disk. Otherwise they are estimated: tiktoken would
fetch the table from the network, and a run must not send anything before it begins.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ser_bench.config import LlmConfig
from ser_bench.durations import format_duration
from ser_bench.predictors.llm import request_body
from ser_bench.predictors.llm.budget import BATCH_PRICE_FACTOR, SMALLEST_BATCH, price_usd
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer, TokenUsage, answer_json
from ser_bench.predictors.llm.prompting.question import Question

TOKENS_PER_MESSAGE, TOKENS_PER_REPLY = 3, 3
"""What OpenAI's chat format adds to the text: around each message, and before the answer."""
PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]{1,3}|_|\n+")
"""Words, up to three digits, up to three marks: most tokenizers split there and keep common words whole."""
BYTES_PER_TOKEN = 8
"""Bytes of a word per token; longer words have two tokens or more."""
ESTIMATED = "an estimate: tiktoken and its table of this model are not at hand"
CONTEXT_MARGIN, CONTEXT_STEP = 1.5, 256
"""Margin for what an estimate may be short of (small models split figures into single digits), and rounding, tokens."""
BATCH_S = 24 * 3600.0
TYPICAL_REQUEST_S = 1.0
"""Assumed seconds per request if the cache holds no answer of this endpoint."""
REASON_SHARE = 0.5
"""Assumed length of a reason, and of thinking, as a share of the tokens allowed for it."""


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of prompts.

    Attributes:
        method: how tokens are counted, in words, for display beside the figures.
        exact: True if the table of the model itself is used.
        count_text: returns the tokens of a text.
    """

    method: str
    exact: bool
    count_text: Callable[[str], int]

    def count(self, question: Question, extra: str = "") -> int:
        """Return the tokens of a prompt with the chat format; `extra` is text beside the messages, such as a schema."""
        text = sum(self.count_text(message["content"]) + TOKENS_PER_MESSAGE for message in question.messages)
        return text + TOKENS_PER_REPLY + self.count_text(extra) + audio_tokens(question)

    def at_most(self, question: Question, extra: str = "") -> int:
        """Return an upper bound on the text tokens of a prompt: a token has at least one byte. Audio is excluded."""
        if self.exact:
            return self.count(question, extra) - audio_tokens(question)
        text = sum(len(message["content"].encode()) + TOKENS_PER_MESSAGE for message in question.messages)
        return text + TOKENS_PER_REPLY + len(extra.encode())


def token_counter(model: str) -> TokenCounter:
    """Return the best counter that this machine has for a model; nothing is fetched."""
    try:
        encode = _tiktoken_encode(model)
        return TokenCounter(f"counted with tiktoken for {model}", True, lambda text: len(encode(text)))
    except (ImportError, KeyError, OSError, ValueError):
        return TokenCounter(ESTIMATED, False, estimate_tokens)


def estimate_tokens(text: str) -> int:
    """Return an estimate of the tokens of a text: one per word, three marks or three digits, more for long words.

    >>> estimate_tokens("The airplane is almost full."), estimate_tokens("mean 210 Hz")
    (6, 3)
    """
    return sum(math.ceil(len(piece.encode()) / BYTES_PER_TOKEN) for piece in PIECE.findall(text))


def audio_tokens(question: Question) -> int:
    """Return the tokens of the recording; 0 if none is sent."""
    return 0 if question.recording is None else question.recording.tokens


def response_format_text(response_format: Any) -> str:
    """Return a `response_format` as the text that is sent; "" for None."""
    return json.dumps(response_format, ensure_ascii=False) if response_format else ""


def context_tokens(
    questions: Sequence[Question], counter: TokenCounter, cfg: LlmConfig, with_reason: bool, least: int
) -> int:
    """Return the context that a local server needs for the longest prompt and its answer; at least `least`, tokens."""
    longest = max((counter.count(question) for question in questions), default=0)
    needed = CONTEXT_MARGIN * longest + request_body.answer_limit(request_body.parameters(cfg, with_reason))
    return max(least, math.ceil(needed / CONTEXT_STEP) * CONTEXT_STEP)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a run would still ask, and what that would cost and take.

    Attributes:
        clips: number of clips in the run.
        prompts: number of prompts; more than clips with `llm.orders` and `llm.calibration`.
        cached: prompts whose answer is in the cache; they do not enter the figures below.
        tokens_in: tokens of prompts.
        tokens_out: tokens of answers of the usual length.
        tokens_out_most: upper bound on the tokens of answers.
        usd: cost with answers of the usual length, US dollars.
        usd_most: cost if every answer has the longest length allowed, US dollars.
        seconds: time from the first request to the last answer.
        counted: how tokens were counted, in words.
        timed: what determines the time, in words.
    """

    clips: int
    prompts: int
    cached: int
    tokens_in: int
    tokens_out: int
    tokens_out_most: int
    usd: float
    usd_most: float
    seconds: float
    counted: str
    timed: str

    def lines(self, cfg: LlmConfig) -> list[str]:
        """Return the estimate as lines of text."""
        prices = f"US$ {cfg.price_in_usd:g} / {cfg.price_out_usd:g} per million tokens in / out, {cfg.price_date}"
        more = f", {self.prompts:,} prompts (llm.orders, llm.calibration)" if self.prompts != self.clips else ""
        lines = [
            f"clips    {self.clips:,}{more}, of which {self.cached:,} are answered in the cache: "
            f"{self.prompts - self.cached:,} to ask",
            f"tokens   {self.tokens_in:,} in ({self.counted}), {self.tokens_out:,} out, "
            f"at most {self.tokens_out_most:,}",
            f"cost     about US$ {self.usd:.2f}, at most {self.usd_most:.2f} ({prices.rstrip(', ')})",
            f"time     about {format_duration(self.seconds)} ({self.timed})",
        ]
        if cfg.samples > 1:
            lines.append(
                f"samples  without logprobs from the endpoint, up to {cfg.samples} times all of this (llm.samples)"
            )
        if cfg.batch:
            lines.append(
                f"batch    costs are {BATCH_PRICE_FACTOR:.0%} of these prices; the first prompt, and fewer than "
                f"{SMALLEST_BATCH} left ones, are asked online at the full price"
            )
        return [*lines, "no request was sent: llm.dry_run=true"]


def estimate_cost(
    questions: Sequence[Question],
    stored: Sequence[ModelAnswer | None],
    labels: Sequence[str],
    with_reason: bool,
    cfg: LlmConfig,
    counter: TokenCounter,
    clips: int | None = None,
) -> CostEstimate:
    """Return the estimate for these questions; equal questions are asked once.

    Args:
        questions: one per clip, or more.
        stored: the answer to each question from the cache, or None.
        labels: the possible labels.
        with_reason: True if the prompt asks for a reason as well.
        cfg: prices and limits.
        counter: counts tokens.
        clips: number of clips; None: one for each question.
    """
    schema = response_format_text(request_body.json_schema(labels, with_reason))
    pending = {json.dumps(q.identity()): q for q, known in zip(questions, stored, strict=True) if known is None}
    tokens_in = sum(counter.count(question, schema) for question in pending.values())
    audio = sum(audio_tokens(question) for question in pending.values())
    known = [answer for answer in stored if answer is not None]
    length_most = request_body.answer_limit(request_body.parameters(cfg, with_reason))
    length = min(_usual_length(known, labels, with_reason, counter, cfg), length_most)
    tokens_out, tokens_out_most = round(length * len(pending)), length_most * len(pending)
    seconds, timed = _time(len(pending), tokens_in + tokens_out, known, cfg)
    return CostEstimate(
        clips=len(questions) if clips is None else clips,
        prompts=len(questions),
        cached=len(known),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_out_most=tokens_out_most,
        usd=price_usd(TokenUsage(tokens_in, tokens_out, audio), cfg, cfg.batch),
        usd_most=price_usd(TokenUsage(tokens_in, tokens_out_most, audio), cfg, cfg.batch),
        seconds=seconds,
        counted=counter.method,
        timed=timed,
    )


def _usual_length(
    known: Sequence[ModelAnswer], labels: Sequence[str], with_reason: bool, counter: TokenCounter, cfg: LlmConfig
) -> float:
    """Return the tokens of an answer: the mean over the cache, or, if that is empty, those of the longest label."""
    if known:
        return sum(answer.tokens_out for answer in known) / len(known)
    longest = max(counter.count_text(answer_json(label)) for label in labels)
    return longest + REASON_SHARE * ((request_body.REASON_TOKENS if with_reason else 0) + cfg.thinking_tokens)


def _time(pending: int, tokens: int, known: Sequence[ModelAnswer], cfg: LlmConfig) -> tuple[float, str]:
    """Return the seconds for the pending questions, and what determines them."""
    if cfg.batch and pending >= SMALLEST_BATCH:
        return BATCH_S, "the most that the batch API may take; usually less"
    request_s = sum(answer.latency_s for answer in known) / len(known) if known else TYPICAL_REQUEST_S
    source = f"{len(known):,} answers in the cache" if known else "assumed, because the cache holds no answer"
    seconds = pending * request_s / max(1, min(cfg.max_concurrency, pending))
    timed = f"{request_s:.1f} s per request, {source}; {cfg.max_concurrency} at once"
    limits = [(cfg.requests_per_minute, pending, "requests"), (cfg.tokens_per_minute, tokens, "tokens")]
    for per_minute, units, name in limits:
        if per_minute is not None and units * 60.0 / per_minute > seconds:
            seconds, timed = units * 60.0 / per_minute, f"llm.{name}_per_minute={per_minute:g}"
    return seconds, timed


def _tiktoken_encode(model: str) -> Callable[[str], list[int]]:
    """Return the encoder of a model from tables on disk.

    Raises:
        ImportError: if tiktoken is not installed.
        KeyError: if tiktoken has no table for the model.
        OSError: if the table is not on disk.
    """
    tiktoken: Any = import_module("tiktoken")
    loading: Any = import_module("tiktoken.load")

    def refuse(path: str) -> bytes:
        raise OSError(f"{path} is not on disk")

    fetch, loading.read_file = loading.read_file, refuse
    try:
        encoding = tiktoken.encoding_for_model(model)
    finally:
        loading.read_file = fetch
    return lambda text: list(encoding.encode(text, disallowed_special=()))
