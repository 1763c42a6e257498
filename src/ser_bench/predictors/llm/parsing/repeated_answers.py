"""Probabilities from several answers to the same question (`llm.samples`), for endpoints without logprobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer

TIE_WEIGHT = 1e-6
"""Added to the count of the label that came first, so that a tie does not depend on the order of the label list."""


def check_samples(cfg: LlmConfig) -> None:
    """Check that repeated answers can differ.

    Raises:
        ConfigError: if `llm.samples` is below 1, or above 1 at temperature 0.
    """
    if cfg.samples < 1:
        raise ConfigError(f"llm.samples={cfg.samples}: must be at least 1")
    if cfg.samples > 1 and cfg.temperature <= 0:
        raise ConfigError(
            f"llm.samples={cfg.samples} at llm.temperature=0 would give equal answers: set llm.temperature=1"
        )


def merge_answers(draws: Sequence[ModelAnswer], labels: Sequence[str]) -> ModelAnswer:
    """Return one answer for several answers to the same question.

    P(label) = (n + 1/C) / (N + 1), where n of the N answers with a label have this label, and C is the number of
    labels. This adds one answer that is shared equally among the labels, because a label that is absent from a few
    draws is not impossible. The merged label is the most frequent one; a tie goes to the label that came first. If no
    answer has a label, the first answer is returned. If one draw failed, the clip failed: the next run asks for this
    draw again. Tokens, times and requests are summed over all draws.
    """
    failures = [answer for answer in draws if answer.failed]
    labelled = [] if failures else [answer for answer in draws if answer.label]
    merged = (failures or draws)[0]
    if labelled:
        counts = Counter(answer.label for answer in labelled)
        weights = [counts[label] + 1 / len(labels) + TIE_WEIGHT * (label == labelled[0].label) for label in labels]
        probabilities = tuple(weight / sum(weights) for weight in weights)
        label = max(zip(probabilities, labels, strict=True))[1]
        merged = replace(next(a for a in labelled if a.label == label), probabilities=probabilities)
    return replace(
        merged,
        tokens_in=sum(answer.tokens_in for answer in draws),
        tokens_out=sum(answer.tokens_out for answer in draws),
        tokens_audio=sum(answer.tokens_audio for answer in draws),
        usage_estimated=any(answer.usage_estimated for answer in draws),
        latency_s=sum(answer.latency_s for answer in draws),
        requests=sum(answer.requests for answer in draws),
        retries=sum(answer.retries for answer in draws),
    )
