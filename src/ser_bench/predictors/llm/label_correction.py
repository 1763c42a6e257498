"""Correction of a model's bias towards some labels (`llm.calibration`): probabilities are divided by a prior.

- `contextual` (Zhao et al. 2021, Calibrate Before Use): the same prompt is also asked with "N/A", "" and "[MASK]" in
  place of the clip's data. What the model answers then is its bias under this prompt. The prior is the mean of the
  three answers, and belongs to one beginning of a prompt: to the instructions, the order of the labels, the examples.
- `label_bias`: the model is asked about `llm.calibration_clips` validation clips. The prior is the mean of their
  probabilities. The labels of these clips are not read; they are chosen at random, not by label. If the labels of the
  corpus are balanced, the mean over many clips of an unbiased model is uniform.

P(label) becomes proportional to P(label | clip) / prior(label). Nothing is fitted to labels. Both need probabilities
of all labels from the endpoint. Source: https://arxiv.org/abs/2102.09690.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ser_bench.config import LabelCorrection, LlmConfig
from ser_bench.errors import ConfigError, LLMError
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.types import digest_of

Prior = tuple[float, ...]
"""Probability of each label, in the order of the labels."""

LEAST_PRIOR = 1e-6
"""A smaller prior counts as this: a label that the model never expects would else win on rounding errors."""


def check_correction(prompt: Prompt, cfg: LlmConfig) -> None:
    """Check that this correction is possible with this prompt and these settings.

    Raises:
        ConfigError: if it is not; the message says what to change.
    """
    name = cfg.calibration.value
    if cfg.calibration is LabelCorrection.none:
        return
    if not cfg.top_logprobs:
        raise ConfigError(
            f"llm.calibration={name} needs probabilities, and llm.top_logprobs=0 requests none: set "
            "llm.top_logprobs=20, or llm.calibration=none"
        )
    if cfg.calibration is LabelCorrection.contextual and prompt.audio:
        raise ConfigError(
            f"llm.calibration=contextual needs a prompt without content, and llm.prompt={prompt.name} sends a "
            "recording: set llm.calibration=label_bias or none"
        )
    if cfg.calibration is LabelCorrection.label_bias and cfg.calibration_clips < 1:
        raise ConfigError(f"llm.calibration_clips={cfg.calibration_clips}: must be at least 1")


def without_probabilities(answers: Sequence[ModelAnswer], cfg: LlmConfig) -> LLMError:
    """Return the error for answers without probabilities of all labels; the message is one line."""
    failures = [answer for answer in answers if answer.failed]
    if failures:
        return LLMError(
            f"llm.calibration={cfg.calibration.value}: {len(failures)} of {len(answers)} requests failed "
            f"({failures[0].text}). Run the same command again"
        )
    missing = sum(answer.probabilities is None for answer in answers)
    return LLMError(
        f"llm.calibration={cfg.calibration.value} needs the probabilities of all labels, and {missing} of "
        f"{len(answers)} answers of this endpoint have none: set llm.calibration=none"
    )


def chosen_clips(clip_ids: Sequence[str], cfg: LlmConfig) -> list[str]:
    """Return at most `llm.calibration_clips` of these ids, at random (seeded) and whatever their labels."""
    unique = sorted(set(clip_ids))
    count = min(cfg.calibration_clips, len(unique))
    return sorted(random.Random(cfg.seed).sample(unique, count))


def mean_prior(answers: Sequence[ModelAnswer], cfg: LlmConfig) -> Prior:
    """Return the mean of the probabilities; abstentions are left out.

    Raises:
        LLMError: if a request failed, an answer has no probabilities, or no answer has a label.
    """
    labelled = [answer for answer in answers if answer.label]
    distributions = [answer.probabilities for answer in labelled if answer.probabilities is not None]
    if not labelled or len(distributions) < len(labelled) or any(answer.failed for answer in answers):
        raise without_probabilities(answers, cfg)
    return tuple(sum(column) / len(distributions) for column in zip(*distributions, strict=True))


def context_of(question: Question) -> str:
    """Return a digest of everything in a question but the data of the clip."""
    return digest_of([list(question.messages[:-1]), list(question.order)])


def corrected(answer: ModelAnswer, prior: Prior) -> ModelAnswer:
    """Return the answer with its probabilities divided by the prior, so that they sum to 1; an abstention as it is.

    The label that the model wrote stays; the prediction is the most probable label.
    """
    if answer.probabilities is None:
        return answer
    ratios = [p / max(of_prior, LEAST_PRIOR) for p, of_prior in zip(answer.probabilities, prior, strict=True)]
    return replace(answer, probabilities=tuple(ratio / sum(ratios) for ratio in ratios))
