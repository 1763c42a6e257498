"""The language model as a predictor: transcript and pitch of the clean clip in one prompt, one label back.

Nothing is learnt: training and validation rows are never shown to the model.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from ser_bench.cache import Cache
from ser_bench.config import Config, cache_dir
from ser_bench.errors import ConfigError
from ser_bench.llm import prompt as prompts
from ser_bench.llm import purse, service
from ser_bench.llm.answer import Answer
from ser_bench.llm.batch import Batch, cost_usd
from ser_bench.llm.estimate import Estimate, estimate
from ser_bench.llm.progress import Tally
from ser_bench.llm.question import Question
from ser_bench.llm.subset import subset
from ser_bench.types import Clip, EpochLog, FloatArray, Inputs, Predictions, Row

log = logging.getLogger(__name__)

SETTINGS_FILE = "llm.json"
SETTINGS = ("name", "model", "base_url", "temperature", "max_tokens", "top_logprobs", "seed")
"""What is stored of the configuration; never a key, nor the name of the variable that holds one."""


class Llm:
    """Asks a chat-completions service about every clip."""

    name: ClassVar[str] = "llm"
    groups: ClassVar[tuple[str, ...]] = ("asr", "llm", "features")

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        self._cfg = cfg
        self._labels = labels
        self._inputs = inputs
        self._prompt = prompts.load(cfg.llm.prompt)
        self._facts: dict[str, float] = {}

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """The predictor that `save` wrote: with its own prompt, whatever the package holds by now."""
        stored = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        if tuple(stored["labels"]) != labels:
            raise ConfigError(f"{folder}: this predictor was asked for {stored['labels']}, not {list(labels)}")
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, values: None)
        predictor._prompt = prompts.Prompt(**stored["prompt"])
        return predictor

    def save(self, folder: Path) -> None:
        """Prompt, its digest and the settings as JSON."""
        settings = {key: getattr(self._cfg.llm, key) for key in SETTINGS}
        stored = {
            "labels": list(self._labels),
            "prompt": asdict(self._prompt),
            "prompt_digest": self._prompt.digest,
            "llm": settings,
        }
        text = json.dumps(stored, indent=2, ensure_ascii=False)
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Nothing is learnt; a missing key, package or model is found before an hour of transcription.

        Raises:
            LLMError: no key, or no local server.
            WeightsError: the local model cannot be brought here.
        """
        purse.check_prices(self._cfg.llm)
        if not self._cfg.llm.dry_run:
            service.check(self._cfg.llm)
        return {}

    def estimate(self, rows: Sequence[Row]) -> Estimate:
        """What `predict` of these rows would ask, cost and take; asks nothing and needs no key."""
        clips = self._chosen(rows)
        questions, batch = self._questions([Row(clip_id) for clip_id in clips]), self._batch()
        return estimate(questions, batch.stored(questions), self._labels, False, self._cfg.llm, batch.counter)

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Predictions of all rows, or of those that `llm.limit` chooses; variants of a clip share one answer.

        Raises:
            LLMError: the service cannot be used; answers until then are kept in the cache.
            InterruptedRunError: Ctrl-C; likewise.
        """
        clips = self._chosen(rows)
        rows = [row for row in rows if row.clip_id in clips]
        answers, tally = self._answers([Row(clip_id) for clip_id in clips])
        self._facts = facts(list(answers.values()), tally, self._labels, self._cfg)
        return self._predictions(rows, answers)

    def facts(self) -> Mapping[str, float]:
        """Counts, tokens, cost and the share of each answer of the last `predict`; see `facts` in this module."""
        return self._facts

    def _chosen(self, rows: Sequence[Row]) -> dict[str, Clip]:
        """The clips of these rows, or the subset of them that `llm.limit` asks for."""
        clips = {clip.id: clip for clip in self._inputs.clips(rows)}
        limit = self._cfg.llm.limit
        return clips if limit is None else subset(list(clips.values()), limit, self._cfg.llm.seed)

    def _questions(self, rows: Sequence[Row]) -> list[Question]:
        """One a clean row."""
        heard = zip(self._inputs.transcripts(rows), self._inputs.pitch(rows), strict=True)
        return [Question(tuple(self._prompt.messages(self._labels, words, pitch))) for words, pitch in heard]

    def _batch(self) -> Batch:
        llm = self._cfg.llm
        return Batch(
            llm,
            self._labels,
            Cache(cache_dir(self._cfg) / "llm"),
            service.identity(llm),
            self._prompt.digest,
            lambda: service.open_service(llm, self._cfg.trainer.threads),
        )

    def _answers(self, rows: Sequence[Row]) -> tuple[dict[str, Answer], Tally]:
        """Clip id → answer, and what it took."""
        batch = self._batch()
        answers = batch.ask(self._questions(rows)) if rows else []
        return {row.clip_id: answer for row, answer in zip(rows, answers, strict=True)}, batch.tally

    def _predictions(self, rows: Sequence[Row], answers: Mapping[str, Answer]) -> Predictions:
        variants = Counter(row.clip_id for row in rows)
        source = source_of(list(answers.values()))
        own = [answers[row.clip_id] for row in rows]
        # Variants share one request, so they share its price and its time.
        cost = [cost_usd(a, self._cfg.llm) / variants[row.clip_id] for row, a in zip(rows, own, strict=True)]
        # Requests under way together share the time that passes, as the clips of a batch do.
        together = min(self._cfg.llm.max_concurrency, len(answers)) or 1
        latency = [a.latency_s / variants[row.clip_id] / together for row, a in zip(rows, own, strict=True)]
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self._inputs.truth(rows)),
            labels=self._labels,
            probabilities=matrix(own, self._labels, source),
            abstained=np.array([not answer.label for answer in own], dtype=np.bool_),
            latency_s=np.array(latency, dtype=np.float32),
            cost_usd=np.array(cost, dtype=np.float32),
            source=source,
            notes=tuple(answer.text for answer in own),
        )


def source_of(answers: Sequence[Answer]) -> str:
    """ "logprobs" where every label came with its probabilities, else "one_hot" for all: never a mixture."""
    labelled = [answer for answer in answers if answer.label]
    told = sum(answer.probabilities is not None for answer in labelled)
    if labelled and told == len(labelled):
        return "logprobs"
    if told:
        log.warning(
            "warning  probabilities are one-hot: the service told those of all labels for %d of %d answers only",
            told,
            len(labelled),
        )
    return "one_hot"


def matrix(answers: Sequence[Answer], labels: Sequence[str], source: str) -> FloatArray:
    """[N, C] probabilities, rows sum to 1; uniform for an abstention."""
    out = np.full((len(answers), len(labels)), 1.0 / len(labels), dtype=np.float32)
    for row, answer in zip(out, answers, strict=True):
        if answer.label:
            told = answer.probabilities if source == "logprobs" else None
            row[:] = told if told is not None else [float(label == answer.label) for label in labels]
    return out


def facts(answers: Sequence[Answer], tally: Tally, labels: Sequence[str], cfg: Config) -> dict[str, float]:
    """What happened, to log.

    asked (clips) = answered + abstained + failed, each counted once; of asked, cached came without a request.
    requests were sent by this run, of which retried were repetitions. tokens_in, tokens_out and cost_usd are those of
    all answers, whenever they were given; paid_usd is what this run paid. answer_share/<label> is the share of asked
    that got this answer. argmax_differs counts answers other than the label of highest probability.
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
    return {f"llm/{name}": float(value) for name, value in counts.items()}
