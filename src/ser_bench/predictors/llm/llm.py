"""The language model as a predictor: what is known of the clean clip in one prompt, one label back.

The model learns nothing. Some prompts tell a voice against what is usual in training rows, or show examples of them;
validation rows are never looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ser_bench.cache import Cache
from ser_bench.config import Config, cache_dir
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm import budget, endpoint, request
from ser_bench.predictors.llm.batch import Batch, cost_usd
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.cost_estimate import Estimate, estimate
from ser_bench.predictors.llm.llm_predictions import facts, matrix, source_of, warn_of_one_hot
from ser_bench.predictors.llm.parsing import repeated_answers
from ser_bench.predictors.llm.parsing.answer import Answer
from ser_bench.predictors.llm.prompting import prompt_data
from ser_bench.predictors.llm.prompting import prompt_template as prompts
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.request_progress import Tally
from ser_bench.predictors.llm.token_count import counter
from ser_bench.types import Clip, EpochLog, Inputs, Predictions, Row

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
        self._brief = prompt_data.Brief()
        self._facts: dict[str, float] = {}

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """The predictor that `save` wrote: with its own prompt, whatever the package holds by now."""
        stored = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        if tuple(stored["labels"]) != labels:
            raise ConfigError(f"{folder}: this predictor was asked for {stored['labels']}, not {list(labels)}")
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, values: None)
        predictor._prompt = prompts.Prompt(**stored["prompt"])
        if "brief" in stored:  # runs of older versions have none
            predictor._brief = prompt_data.Brief.from_json(stored["brief"])
        return predictor

    def save(self, folder: Path) -> None:
        """Prompt, its digest and the settings as JSON."""
        settings = {key: getattr(self._cfg.llm, key) for key in SETTINGS}
        stored = {
            "labels": list(self._labels),
            "prompt": asdict(self._prompt),
            "prompt_digest": self._prompt.digest,
            "brief": self._brief.to_json(),
            "llm": settings,
        }
        text = json.dumps(stored, indent=2, ensure_ascii=False)
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Norms and examples, where the prompt wants them; the model learns nothing.

        A missing key, package or model is found first, before an hour of transcription.

        Raises:
            ConfigError: a budget without prices, samples that cannot differ, a label without examples.
            LLMError: no key, or no local server.
            WeightsError: the local model cannot be brought here.
        """
        budget.check_prices(self._cfg.llm)
        repeated_answers.check(self._cfg.llm)
        if not self._cfg.llm.dry_run:
            endpoint.check(self._cfg.llm)
        seed = self._cfg.seed if self._cfg.shuffle_labels else None
        self._brief = prompt_data.learn(self._prompt, self._labels, train, self._inputs, self._cfg.llm, seed)
        return {}

    def estimate(self, rows: Sequence[Row]) -> Estimate:
        """What `predict` of these rows would ask, cost and take; asks nothing and needs no key."""
        clips = self._chosen(rows)
        questions, batch = self._questions([Row(clip_id) for clip_id in clips]), self._batch()
        return estimate(
            questions, batch.stored(questions), self._labels, self._prompt.reason, self._cfg.llm, batch.counter
        )

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Predictions of all rows, or of those that `llm.limit` chooses; variants of a clip share one answer.

        Raises:
            LLMError: the service cannot be used; answers until then are kept in the cache.
            InterruptedRunError: Ctrl-C; likewise.
        """
        clips = self._chosen(rows)
        rows = [row for row in rows if row.clip_id in clips]
        answers, source, tally = self._answers([Row(clip_id) for clip_id in clips])
        self._facts = facts(list(answers.values()), source, tally, self._labels, self._cfg)
        return self._predictions(rows, answers, source)

    def prompt_templates(self) -> dict[str, Any]:
        """The prompt as a registry keeps it: name, messages with placeholders, digest, version."""
        prompt = self._prompt
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        return {"name": prompt.name, "messages": messages, "digest": prompt.digest, "version": prompt.version}

    def facts(self) -> Mapping[str, float]:
        """Counts, tokens, cost and the share of each answer of the last `predict`; see `llm_answers.facts`."""
        return self._facts

    def _chosen(self, rows: Sequence[Row]) -> dict[str, Clip]:
        """The clips of these rows, or the subset of them that `llm.limit` asks for."""
        clips = {clip.id: clip for clip in self._inputs.clips(rows)}
        limit = self._cfg.llm.limit
        return clips if limit is None else subset(list(clips.values()), limit, self._cfg.llm.seed)

    def _questions(self, rows: Sequence[Row]) -> list[Question]:
        """One a clean row."""
        return prompt_data.questions(self._prompt, self._brief, self._labels, rows, self._inputs, self._cfg.llm)

    def _batch(self, questions: Sequence[Question] = ()) -> Batch:
        llm, reason = self._cfg.llm, self._prompt.reason
        context = request.context_tokens(questions, counter(llm.model), llm, reason)
        return Batch(
            llm,
            self._labels,
            Cache(cache_dir(self._cfg) / "llm"),
            endpoint.identity(llm),
            self._prompt.digest,
            lambda: endpoint.open_service(llm, self._cfg.trainer.threads, context),
            reason,
        )

    def _answers(self, rows: Sequence[Row]) -> tuple[dict[str, Answer], str, Tally]:
        """Clip id → answer, where probabilities come from, and what it took."""
        questions = self._questions(rows)
        batch = self._batch(questions)
        answers = batch.ask(questions) if rows else []
        tally, source = batch.tally, source_of(answers)
        if answers and source != "logprobs" and self._cfg.llm.samples > 1:
            draws = [answers]
            for sample in range(1, self._cfg.llm.samples):
                draws.append(batch.ask([replace(question, sample=sample) for question in questions]))
                tally = tally + batch.tally
            answers = [repeated_answers.merge(one, self._labels) for one in zip(*draws, strict=True)]
            source = "samples"
        elif source != "logprobs":
            warn_of_one_hot(answers)
        return {row.clip_id: answer for row, answer in zip(rows, answers, strict=True)}, source, tally

    def _predictions(self, rows: Sequence[Row], answers: Mapping[str, Answer], source: str) -> Predictions:
        variants = Counter(row.clip_id for row in rows)
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
