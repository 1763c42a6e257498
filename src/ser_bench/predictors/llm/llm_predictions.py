"""Answers of a language model as predictions and as figures to log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ser_bench.config import Config
from ser_bench.predictors.llm.batch import cost_usd
from ser_bench.predictors.llm.parsing.answer import Answer
from ser_bench.predictors.llm.request_progress import Tally
from ser_bench.types import FloatArray

log = logging.getLogger(__name__)


def source_of(answers: Sequence[Answer]) -> str:
    """ "logprobs" where every label came with its probabilities, else "one_hot" for all: never a mixture."""
    labelled = [answer for answer in answers if answer.label]
    return "logprobs" if labelled and all(answer.probabilities for answer in labelled) else "one_hot"


def warn_of_one_hot(answers: Sequence[Answer]) -> None:
    """Say so where a service told probabilities of some answers, and not of all."""
    labelled = [answer for answer in answers if answer.label]
    told = sum(answer.probabilities is not None for answer in labelled)
    if told:
        log.warning(
            "warning  probabilities are one-hot: the service told those of all labels for %d of %d answers only; "
            "llm.samples=5 llm.temperature=1 would draw them",
            told,
            len(labelled),
        )


def matrix(answers: Sequence[Answer], labels: Sequence[str], source: str) -> FloatArray:
    """[N, C] probabilities, rows sum to 1; uniform for an abstention."""
    out = np.full((len(answers), len(labels)), 1.0 / len(labels), dtype=np.float32)
    for row, answer in zip(out, answers, strict=True):
        if answer.label:
            told = None if source == "one_hot" else answer.probabilities
            row[:] = told if told is not None else [float(label == answer.label) for label in labels]
    return out


def facts(answers: Sequence[Answer], source: str, tally: Tally, labels: Sequence[str], cfg: Config) -> dict[str, float]:
    """What happened, to log.

    asked (clips) = answered + abstained + failed, each counted once; of asked, cached came without a request.
    requests were sent by this run, of which retried were repetitions. tokens_in, tokens_out and cost_usd are those of
    all answers, whenever they were given; paid_usd is what this run paid. answer_share/<label> is the share of asked
    that got this answer. argmax_differs counts answers other than the label of highest probability. source/<source> is
    1 for where the probabilities come from, way/<way> counts answers by what held them to their form (`llm.ways`).
    """
    labelled = [answer for answer in answers if answer.label]
    failed = sum(answer.failed for answer in answers)
    counts: dict[str, float] = {
        "asked": len(answers),
        "answered": len(labelled),
        "abstained": len(answers) - len(labelled) - failed,
        "failed": failed,
        "cached": tally.cached,
        "requests": tally.requests,
        "retried": tally.retried,
        "tokens_in": sum(answer.tokens_in for answer in answers),
        "tokens_out": sum(answer.tokens_out for answer in answers),
        "cost_usd": sum(cost_usd(answer, cfg.llm) for answer in answers),
        "paid_usd": tally.paid_usd,
        "without_probabilities": sum(answer.probabilities is None for answer in labelled),
        "argmax_differs": sum(
            a.probabilities is not None and labels[int(np.argmax(a.probabilities))] != a.label for a in labelled
        ),
    }
    shares = Counter(answer.label for answer in labelled)
    reasons = Counter(answer.reason for answer in answers if answer.reason)
    counts |= {f"answer_share/{label}": shares[label] / max(1, len(answers)) for label in labels}
    counts |= {f"reason/{reason}": count for reason, count in sorted(reasons.items())}
    ways = Counter(answer.way for answer in answers if answer.way)
    counts |= {f"way/{way}": count for way, count in sorted(ways.items())} | {f"source/{source}": 1}
    return {f"llm/{name}": float(value) for name, value in counts.items()}
