"""One answer from several about the same clip: repeated ones (`llm.samples`), or with other orders (`llm.orders`).

Without logprobs, probabilities are estimated from how often each label is answered. With logprobs, repeated answers are
not asked for: the label is written first, so its probability is known from one answer, and drawing it many times at
temperature 1 would only estimate the same number with noise. Self-consistency helps where a chain of thought comes
before the label and differs from draw to draw; the response formats here leave no room for one.
"""

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
    return _with_sums(merged, draws)


def average_answers(of_orders: Sequence[ModelAnswer], labels: Sequence[str]) -> ModelAnswer:
    """Return one answer for the answers about one clip with the labels in several orders.

    P(label) is the mean over the answers that have a label. The label is the most probable one, and the text that of
    the first answer that wrote it. If no answer has a label, the first answer is returned. If one failed, the clip
    failed. Tokens, times and requests are summed.

    Args:
        of_orders: the answers; those with a label have probabilities.
        labels: the possible labels, in the order of the probabilities.
    """
    failures = [answer for answer in of_orders if answer.failed]
    distributions = [] if failures else [answer.probabilities for answer in of_orders if answer.probabilities]
    merged = (failures or of_orders)[0]
    if distributions:
        mean = tuple(sum(column) / len(distributions) for column in zip(*distributions, strict=True))
        label = labels[mean.index(max(mean))]
        labelled = [answer for answer in of_orders if answer.label]
        merged = next((answer for answer in labelled if answer.label == label), labelled[0])
        merged = replace(merged, label=label, probabilities=mean)
    return _with_sums(merged, of_orders)


def _with_sums(merged: ModelAnswer, answers: Sequence[ModelAnswer]) -> ModelAnswer:
    """Return `merged` with the tokens, times and requests of all these answers."""
    return replace(
        merged,
        tokens_in=sum(answer.tokens_in for answer in answers),
        tokens_out=sum(answer.tokens_out for answer in answers),
        tokens_audio=sum(answer.tokens_audio for answer in answers),
        tokens_thinking=sum(answer.tokens_thinking for answer in answers),
        batched=all(answer.batched for answer in answers),
        usage_estimated=any(answer.usage_estimated for answer in answers),
        latency_s=sum(answer.latency_s for answer in answers),
        requests=sum(answer.requests for answer in answers),
        retries=sum(answer.retries for answer in answers),
    )
