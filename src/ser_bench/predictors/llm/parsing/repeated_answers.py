"""Probabilities from repeated answers, where a service tells none: how often each label came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.answer import Answer

TIE = 1e-6
"""Of an answer: a tie goes to the label that came first, not to the one that comes first in the alphabet."""


def check(cfg: LlmConfig) -> None:
    """Repeated answers must be able to differ.

    Raises:
        ConfigError: fewer than one, or several at temperature 0.
    """
    if cfg.samples < 1:
        raise ConfigError(f"llm.samples={cfg.samples}: a clip is asked at least once")
    if cfg.samples > 1 and cfg.temperature <= 0:
        raise ConfigError(f"llm.samples={cfg.samples} at llm.temperature=0 are all alike: set llm.temperature=1")


def merge(draws: Sequence[Answer], labels: Sequence[str]) -> Answer:
    """One answer of several to the same question.

    P(label) = (n + 1/C) / (N + 1) for a label that n of the N answers with a label gave, of C labels: one more answer,
    shared out evenly, because what was not drawn in a few is not impossible. The label is the most frequent one. Where
    no answer has a label the first stands for all. Tokens, time and requests are those of all.
    """
    labelled = [answer for answer in draws if answer.label]
    merged = draws[0]
    if labelled:
        counts = Counter(answer.label for answer in labelled)
        weights = [counts[label] + 1 / len(labels) + TIE * (label == labelled[0].label) for label in labels]
        shares = tuple(weight / sum(weights) for weight in weights)
        label = max(zip(shares, labels, strict=True))[1]
        merged = replace(next(a for a in labelled if a.label == label), probabilities=shares)
    return replace(
        merged,
        tokens_in=sum(answer.tokens_in for answer in draws),
        tokens_out=sum(answer.tokens_out for answer in draws),
        tokens_audio=sum(answer.tokens_audio for answer in draws),
        latency_s=sum(answer.latency_s for answer in draws),
        requests=sum(answer.requests for answer in draws),
        retries=sum(answer.retries for answer in draws),
    )
