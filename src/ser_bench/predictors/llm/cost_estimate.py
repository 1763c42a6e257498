"""What a run would ask, cost and take, before anything is asked (`llm.dry_run=true`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ser_bench.config import LlmConfig
from ser_bench.predictors.llm import request, token_count
from ser_bench.predictors.llm.parsing import answer as answers
from ser_bench.predictors.llm.parsing.answer import Answer
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.request_progress import duration
from ser_bench.predictors.llm.token_count import TokenCounter

TYPICAL_S = 1.0
"""Seconds a request, where no answer in the cache tells how long this service takes."""
REASON_SHARE = 0.5
"""Of the tokens allowed for a reason, a usual reason takes about so many."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is still to be asked, and what that would take.

    Attributes:
        clips: asked about.
        cached: of these, answered in the cache already; all figures below are without them.
        tokens_in: of prompts.
        tokens_out: of answers, as they usually are.
        tokens_out_most: of answers, at most.
        usd: US dollars for the usual answers.
        usd_most: at most, if every answer took all tokens that it may.
        seconds: from the first request to the last answer.
        counted: how tokens were counted.
        timed: where the seconds come from.
    """

    clips: int
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
        """As it is shown; nothing was asked."""
        prices = f"US$ {cfg.price_in_usd:g} / {cfg.price_out_usd:g} per million tokens in / out, {cfg.price_date}"
        lines = [
            f"clips    {self.clips:,}, of which {self.cached:,} are answered in the cache: "
            f"{self.clips - self.cached:,} to ask",
            f"tokens   {self.tokens_in:,} in ({self.counted}), {self.tokens_out:,} out, "
            f"at most {self.tokens_out_most:,}",
            f"cost     about US$ {self.usd:.2f}, at most {self.usd_most:.2f} ({prices.rstrip(', ')})",
            f"time     about {duration(self.seconds)} ({self.timed})",
        ]
        if cfg.samples > 1:
            lines.append(
                f"samples  if the service tells no logprobs, up to {cfg.samples} times of all this (llm.samples)"
            )
        return [*lines, "nothing was asked: llm.dry_run=true"]


def estimate(
    questions: Sequence[Question],
    stored: Sequence[Answer | None],
    labels: Sequence[str],
    reason: bool,
    cfg: LlmConfig,
    counter: TokenCounter,
) -> Estimate:
    """The estimate for questions of which some are answered already; equal questions are asked once."""
    form = token_count.text_of(answers.schema(labels, reason))
    pending = {json.dumps(q.identity()): q for q, known in zip(questions, stored, strict=True) if known is None}
    tokens_in = sum(counter.count(question, form) for question in pending.values())
    sound = sum(token_count.sound_tokens(question) for question in pending.values())
    one_most = int(request.parameters(cfg, reason)["max_tokens"])
    known = [answer for answer in stored if answer is not None]
    one = _usual_length(known, labels, reason, counter)
    out, out_most = round(min(one, one_most) * len(pending)), one_most * len(pending)
    seconds, timed = _time(len(pending), tokens_in + out, known, cfg)
    return Estimate(
        clips=len(questions),
        cached=len(known),
        tokens_in=tokens_in,
        tokens_out=out,
        tokens_out_most=out_most,
        usd=answers.price_usd(tokens_in, out, sound, cfg),
        usd_most=answers.price_usd(tokens_in, out_most, sound, cfg),
        seconds=seconds,
        counted=counter.how,
        timed=timed,
    )


def _usual_length(known: Sequence[Answer], labels: Sequence[str], reason: bool, counter: TokenCounter) -> float:
    """Tokens of an answer: the mean of those in the cache, else those of the longest label's."""
    if known:
        return sum(answer.tokens_out for answer in known) / len(known)
    longest = max(counter.of_text(answers.written(label)) for label in labels)
    return longest + (REASON_SHARE * request.REASON_TOKENS if reason else 0)


def _time(asked: int, all_tokens: int, known: Sequence[Answer], cfg: LlmConfig) -> tuple[float, str]:
    each_s = sum(answer.latency_s for answer in known) / len(known) if known else TYPICAL_S
    source = f"{len(known):,} answers in the cache" if known else "a guess, no answer is known yet"
    seconds = asked * each_s / max(1, min(cfg.max_concurrency, asked))
    timed = f"{each_s:.1f} s a request, {source}; {cfg.max_concurrency} at once"
    limits = [(cfg.requests_per_minute, asked, "requests"), (cfg.tokens_per_minute, all_tokens, "tokens")]
    for per_minute, units, name in limits:
        if per_minute is not None and units * 60.0 / per_minute > seconds:
            seconds, timed = units * 60.0 / per_minute, f"llm.{name}_per_minute={per_minute:g}"
    return seconds, timed
