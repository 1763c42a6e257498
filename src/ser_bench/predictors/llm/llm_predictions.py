"""Answers of a language model as probabilities, and as figures to log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ser_bench.config import AnswerFormat, LlmConfig
from ser_bench.predictors.llm.budget import cost_usd
from ser_bench.predictors.llm.parsing.model_answer import FREE_TEXT, JSON_MODE, ModelAnswer
from ser_bench.predictors.llm.request_body import CHANGES
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    from ser_bench.predictors.llm.client import RequestCounts

log = logging.getLogger(__name__)

LOGPROBS, SAMPLES, ONE_HOT = "logprobs", "samples", "one_hot"
"""Sources of probabilities."""
CUT_OFF_REASONS = ("length", "thinking")
"""Reasons of an abstention whose answer reached the limit on its tokens."""
LONG_ANSWER_TOKENS = 1024
"""Advised if answers are cut off; models that think write hundreds of tokens first."""


def probability_source(answers: Sequence[ModelAnswer]) -> str:
    """Return `LOGPROBS` if every answer with a label has probabilities, else `ONE_HOT` for all: they are not mixed."""
    labelled = [answer for answer in answers if answer.label]
    return LOGPROBS if labelled and all(answer.probabilities for answer in labelled) else ONE_HOT


def warn_of_one_hot(answers: Sequence[ModelAnswer]) -> None:
    """Log a warning if the endpoint reported probabilities for some answers but not for all."""
    labelled = [answer for answer in answers if answer.label]
    reported = sum(answer.probabilities is not None for answer in labelled)
    if reported:
        log.warning(
            "warning  probabilities are one-hot: the endpoint reported those of all labels for only %d of %d answers; "
            "llm.samples=5 llm.temperature=1 would estimate them from repeated answers",
            reported,
            len(labelled),
        )


def length_advice(cfg: LlmConfig, thinking: bool = False) -> str:
    """Return which key limits the length of an answer, and what to do; `thinking`: the model spent it on thinking."""
    if thinking:
        return (
            f"the model spent all tokens on thinking (llm.max_tokens={cfg.max_tokens} and "
            f"llm.thinking_tokens={cfg.thinking_tokens}): run again with more, for example "
            f"llm.thinking_tokens={max(LONG_ANSWER_TOKENS, 2 * cfg.thinking_tokens)}, or with a smaller "
            "llm.reasoning_effort"
        )
    return (
        f"llm.max_tokens={cfg.max_tokens} is too small; a model that thinks before it answers needs more: run again "
        f"with a larger one, for example llm.max_tokens={max(LONG_ANSWER_TOKENS, 2 * cfg.max_tokens)}"
    )


def warn_of_cut_answers(answers: Sequence[ModelAnswer], cfg: LlmConfig) -> None:
    """Log a warning if answers were cut off before their label."""
    for reason in CUT_OFF_REASONS:
        cut = sum(answer.reason == reason for answer in answers)
        if cut:
            log.warning(
                "warning  %d of %d answers were cut off before their label: %s",
                cut,
                len(answers),
                length_advice(cfg, reason == "thinking"),
            )


def changes_in_words(answers: Sequence[ModelAnswer], cfg: LlmConfig) -> list[str]:
    """Return what the endpoint refused, in words: changes of parameters, and a less strict response format.

    What `llm.unsupported` names was not refused. If only some answers were given under a change, this is stated without
    their number, because runs that differ in these words are not pooled (`comparison/run_groups.py`).
    """
    arrived = [answer for answer in answers if answer.response_format]
    counts = {words: 0 for name, words in CHANGES.items() if name not in cfg.unsupported}
    if cfg.answer_format is AnswerFormat.auto:
        counts |= {f"response format {name}": 0 for name in (JSON_MODE, FREE_TEXT)}
    for answer in arrived:
        for words in (*(CHANGES.get(name) for name in answer.changes), f"response format {answer.response_format}"):
            if words in counts:
                counts[words] += 1
    return [
        words if count == len(arrived) else f"{words} in some answers" for words, count in counts.items() if count
    ]


def warn_of_estimated_cost(answers: Sequence[ModelAnswer], cfg: LlmConfig) -> None:
    """Log a warning if answers cost money and the endpoint did not report for how many tokens."""
    estimated = sum(answer.usage_estimated and cost_usd(answer, cfg) > 0 for answer in answers)
    if estimated:
        log.warning(
            "warning  the endpoint reports no usable token counts for %d of %d answers: they count with the most that "
            "they can cost",
            estimated,
            len(answers),
        )


def probability_matrix(answers: Sequence[ModelAnswer], labels: Sequence[str], source: str) -> FloatArray:
    """Return [N, C] probabilities whose rows sum to 1; uniform for answers without a label."""
    out = np.full((len(answers), len(labels)), 1.0 / len(labels), dtype=np.float32)
    for row, answer in zip(out, answers, strict=True):
        if answer.label:
            reported = None if source == ONE_HOT else answer.probabilities
            row[:] = reported if reported is not None else [float(label == answer.label) for label in labels]
    return out


def logged_figures(
    answers: Sequence[ModelAnswer], source: str, counts: RequestCounts, labels: Sequence[str], cfg: LlmConfig
) -> dict[str, float]:
    """Return the metrics `llm/…` of one call of `predict`.

    If requests failed, only the figures up to `argmax_differs` are returned: the run goes on later, and a figure whose
    name depends on the answers could then remain in the store although it no longer holds.

    - `asked` (clips) = `answered` + `abstained` + `failed`; each clip counts once.
    - `cached`: clips whose answer came from the cache, without a request.
    - `requests`: HTTP requests of this run; `retried`: how many of these were retries.
    - `tokens_in`, `tokens_out`, `cost_usd`: of all answers, whenever they were given; `paid_usd`: paid by this run.
    - `tokens_thinking`: of `tokens_out`, where the endpoint reports them; `batched`: answers through the batch API;
      `batch_unanswered`: lines of batches of this run that failed or expired, and were asked again.
    - `usage_estimated`: answers whose tokens are upper bounds, because the endpoint reported no usable counts.
    - `without_probabilities`: labelled answers without probabilities.
    - `argmax_differs`: answers whose label is not the most probable one.
    - `answer_share/<label>`: share of the clips that got this answer.
    - `reason/<reason>`: number of abstentions, by reason.
    - `way/<format>`: number of answers by response format.
    - `changed/<parameter>`: number of answers to requests in which a refused parameter was changed.
    - `source/<source>`: 1 for the source of the probabilities.
    """
    labelled = [answer for answer in answers if answer.label]
    failed = sum(answer.failed for answer in answers)
    figures: dict[str, float] = {
        "asked": len(answers),
        "answered": len(labelled),
        "abstained": len(answers) - len(labelled) - failed,
        "failed": failed,
        "cached": counts.cached,
        "requests": counts.requests,
        "retried": counts.retried,
        "tokens_in": sum(answer.tokens_in for answer in answers),
        "tokens_out": sum(answer.tokens_out for answer in answers),
        "tokens_thinking": sum(answer.tokens_thinking for answer in answers),
        "batched": sum(answer.batched for answer in answers),
        "batch_unanswered": counts.unanswered_lines,
        "cost_usd": sum(cost_usd(answer, cfg) for answer in answers),
        "paid_usd": counts.paid_usd,
        "usage_estimated": sum(answer.usage_estimated for answer in answers),
        "without_probabilities": sum(answer.probabilities is None for answer in labelled),
        "argmax_differs": sum(
            a.probabilities is not None and labels[int(np.argmax(a.probabilities))] != a.label for a in labelled
        ),
    }
    if failed:
        return {f"llm/{name}": float(value) for name, value in figures.items()}
    shares = Counter(answer.label for answer in labelled)
    reasons = Counter(answer.reason for answer in answers if answer.reason)
    formats = Counter(answer.response_format for answer in answers if answer.response_format)
    figures |= {f"answer_share/{label}": shares[label] / max(1, len(answers)) for label in labels}
    figures |= {f"reason/{reason}": count for reason, count in sorted(reasons.items())}
    figures |= {f"way/{name}": count for name, count in sorted(formats.items())}
    changes = Counter(name for answer in answers for name in answer.changes)
    figures |= {f"changed/{name}": count for name, count in sorted(changes.items())}
    figures[f"source/{source}"] = 1
    return {f"llm/{name}": float(value) for name, value in figures.items()}


def predicted_shares(probabilities: FloatArray, labels: Sequence[str]) -> dict[str, float]:
    """Return `llm/predicted_share/<label>`: share of the clips whose most probable label this is.

    It differs from `answer_share` where probabilities are corrected or averaged over orders.

    Args:
        probabilities: [N, C], N at least 1.
        labels: C labels.
    """
    best = Counter(probabilities.argmax(axis=1).tolist())
    return {f"llm/predicted_share/{label}": best[i] / len(probabilities) for i, label in enumerate(labels)}
