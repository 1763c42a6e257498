"""The predictor `llm`: each clip becomes one prompt, and the answer of a language model becomes one label.

The model is not trained. Some prompts describe the voice relative to norms of the training rows, or show training clips
as examples. Validation rows are not used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ser_bench import extras
from ser_bench.cache import Cache
from ser_bench.config import Config, ModelConfig, cache_dir
from ser_bench.errors import ConfigError
from ser_bench.predictors.capabilities import HasPrompt
from ser_bench.predictors.llm import llm_predictions, request_body
from ser_bench.predictors.llm.budget import LEDGER_FILE, check_prices, cost_usd
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.cost_estimate import CostEstimate, context_tokens, estimate_cost, token_counter
from ser_bench.predictors.llm.local_server import CONTEXT_TOKENS
from ser_bench.predictors.llm.parsing.model_answer import FAILED, ModelAnswer
from ser_bench.predictors.llm.parsing.repeated_answers import check_samples, merge_answers
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from ser_bench.predictors.llm.prompting.prompt_data import PromptData
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.registry import Need, register
from ser_bench.types import Clip, EpochLog, Inputs, Predictions, Row

if TYPE_CHECKING:  # `client` and `endpoint` import openai, which takes a second
    from ser_bench.predictors.llm.client import LlmClient, RequestCounts

SETTINGS_FILE = "llm.json"
SETTINGS = ("name", "model", "base_url", "temperature", "max_tokens", "top_logprobs", "seed")
"""Keys of the configuration that are stored; neither an API key nor the name of its environment variable."""


@dataclass
class LlmModelConfig(ModelConfig):
    """The language model as a predictor; its endpoint and prompt are in the group `llm`."""

    name: str = "llm"


@register("llm", LlmModelConfig, groups=("asr", "llm", "features"), needs=(Need.audio, Need.transcript, Need.f0))
class Llm(HasPrompt):
    """Ask a chat-completions endpoint about every clip."""

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[Need]]

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        self._cfg = cfg
        self._labels = labels
        self._inputs = inputs
        self._prompt = prompt_template.load(cfg.llm.prompt)
        self._prompt_data = PromptData()
        self._facts: dict[str, float] = {}
        self._changes: list[str] = []
        self._ledger: Path | None = work_dir / LEDGER_FILE

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """Return the predictor that `save` wrote, with the stored prompt instead of the current one of the package.

        Raises:
            ConfigError: if the stored predictor has other labels.
        """
        stored = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        if tuple(stored["labels"]) != labels:
            raise ConfigError(
                f"{folder}: the stored predictor has the labels {', '.join(stored['labels'])}, "
                f"not {', '.join(labels)}; choose a run with these labels"
            )
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, values: None)
        predictor._ledger = None  # the folder is part of a stored run
        predictor._prompt = prompt_template.Prompt(**stored["prompt"])
        if "brief" in stored:  # runs of older versions have none
            predictor._prompt_data = PromptData.from_json(stored["brief"])
        return predictor

    def save(self, folder: Path) -> None:
        """Write the prompt, its digest, its data from training rows and the settings as JSON."""
        settings = {key: getattr(self._cfg.llm, key) for key in SETTINGS}
        stored = {
            "labels": list(self._labels),
            "prompt": asdict(self._prompt),
            "prompt_digest": self._prompt.digest,
            "brief": self._prompt_data.to_json(),
            "llm": settings,
        }
        text = json.dumps(stored, indent=2, ensure_ascii=False)
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Take norms and examples from training rows, if the prompt uses them; the model is not trained.

        A missing key, package or model is reported first, before clips are transcribed.

        Raises:
            ConfigError: if the budget has no prices, repeated answers cannot differ, or a label has too few examples.
            LLMError: if the key, or what the local server needs, is missing.
            WeightsError: if the local model cannot be downloaded.
        """
        check_prices(self._cfg.llm)
        check_samples(self._cfg.llm)
        if not self._cfg.llm.dry_run:
            extras.require("openai", "model=llm")
            from ser_bench.predictors.llm import endpoint

            endpoint.check_endpoint(self._cfg.llm)
        seed = self._cfg.seed if self._cfg.shuffle_labels else None
        self._prompt_data = prompt_data.learn(self._prompt, self._labels, train, self._inputs, self._cfg.llm, seed)
        return {}

    def estimate(self, rows: Sequence[Row]) -> CostEstimate:
        """Return what `predict` of these rows would ask, cost and take; no request is sent, and no key is needed."""
        questions, client = self._questions(list(self._chosen(rows))), self._client()
        return estimate_cost(
            questions, client.stored(questions), self._labels, self._prompt.reason, self._cfg.llm, client.counter
        )

    def estimate_lines(self, rows: Sequence[Row]) -> list[str]:
        """Return the estimate of `predict` as lines of text."""
        return self.estimate(rows).lines(self._cfg.llm)

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return predictions of all rows, or of those that `llm.limit` selects; variants of a clip share one answer.

        Raises:
            LLMError: if the endpoint cannot be used; the answers so far are kept in the cache.
            InterruptedRunError: on Ctrl-C; the answers so far are kept in the cache.
        """
        clips = self._chosen(rows)
        rows = [row for row in rows if row.clip_id in clips]
        answers, source, counts = self._answers(list(clips))
        self._facts |= llm_predictions.logged_figures(
            list(answers.values()), source, counts, self._labels, self._cfg.llm
        )
        return self._predictions(rows, answers, source)

    def prompt_templates(self) -> dict[str, Any]:
        """Return the prompt for a prompt registry: name, messages with placeholders, digest, version."""
        prompt = self._prompt
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        return {"name": prompt.name, "messages": messages, "digest": prompt.digest, "version": prompt.version}

    def facts(self) -> Mapping[str, float]:
        """Return the metrics of the last `predict`, as `llm_predictions.logged_figures` describes them.

        In addition, `llm/spent_usd` is what the run has spent with all its starts, lost answers at their highest cost.
        """
        return self._facts

    def prediction_tags(self) -> Mapping[str, str]:
        """Return what was changed in the requests of the last `predict` because the endpoint refused it."""
        return {"llm_changed_parameters": "; ".join(self._changes)} if self._changes else {}

    def _chosen(self, rows: Sequence[Row]) -> dict[str, Clip]:
        """Return the clips of these rows by id, or the subset of them that `llm.limit` selects."""
        clips = {clip.id: clip for clip in self._inputs.clips(rows)}
        limit = self._cfg.llm.limit
        return clips if limit is None else subset(list(clips.values()), limit, self._cfg.llm.seed)

    def _questions(self, clip_ids: Sequence[str]) -> list[Question]:
        rows = [Row(clip_id) for clip_id in clip_ids]
        return prompt_data.questions(self._prompt, self._prompt_data, self._labels, rows, self._inputs, self._cfg.llm)

    def _client(self, questions: Sequence[Question] = ()) -> LlmClient:
        """Return a client; a local server gets room for the longest of these questions."""
        extras.require("openai", "model=llm")
        from ser_bench.predictors.llm import endpoint
        from ser_bench.predictors.llm.client import LlmClient

        llm, with_reason = self._cfg.llm, self._prompt.reason
        context = context_tokens(questions, token_counter(llm.model), llm, with_reason, CONTEXT_TOKENS)
        return LlmClient(
            llm,
            self._labels,
            Cache(cache_dir(self._cfg) / "llm"),
            endpoint.identity(llm),
            self._prompt.digest,
            lambda: endpoint.open_endpoint(llm, self._cfg.trainer.threads, context),
            with_reason,
            self._ledger,
        )

    def _answers(self, clip_ids: Sequence[str]) -> tuple[dict[str, ModelAnswer], str, RequestCounts]:
        """Return (clip id → answer, source of the probabilities, what the answers took)."""
        questions = self._questions(clip_ids)
        client = self._client(questions)
        answers = client.ask(questions) if questions else []
        counts, source = client.counts, llm_predictions.probability_source(answers)
        if answers and source != llm_predictions.LOGPROBS and self._cfg.llm.samples > 1:
            draws = [answers]
            for sample in range(1, self._cfg.llm.samples):
                draws.append(client.ask([replace(question, sample=sample) for question in questions]))
                counts = counts + client.counts
            answers = [merge_answers(of_clip, self._labels) for of_clip in zip(*draws, strict=True)]
            source = llm_predictions.SAMPLES
        elif source != llm_predictions.LOGPROBS:
            llm_predictions.warn_of_one_hot(answers)
        llm_predictions.warn_of_cut_answers(answers, self._cfg.llm)
        llm_predictions.warn_of_estimated_cost(answers, self._cfg.llm)
        changes = {name for answer in answers for name in answer.changes}
        self._changes = [words for name, words in request_body.CHANGES.items() if name in changes]
        self._facts = {"llm/spent_usd": client.budget.spent_usd}
        return dict(zip(clip_ids, answers, strict=True)), source, counts

    def _predictions(self, rows: Sequence[Row], answers: Mapping[str, ModelAnswer], source: str) -> Predictions:
        variants = Counter(row.clip_id for row in rows)
        of_rows = [answers[row.clip_id] for row in rows]
        # The variants of a clip share one request, and therefore its cost and its time.
        cost = [cost_usd(a, self._cfg.llm) / variants[row.clip_id] for row, a in zip(rows, of_rows, strict=True)]
        # Concurrent requests share the time that passes, as the clips of a batch do.
        concurrent = min(self._cfg.llm.max_concurrency, len(answers)) or 1
        latency = [a.latency_s / variants[row.clip_id] / concurrent for row, a in zip(rows, of_rows, strict=True)]
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self._inputs.truth(rows)),
            labels=self._labels,
            probabilities=llm_predictions.probability_matrix(of_rows, self._labels, source),
            abstained=np.array([not answer.label for answer in of_rows], dtype=np.bool_),
            latency_s=np.array(latency, dtype=np.float32),
            cost_usd=np.array(cost, dtype=np.float32),
            source=source,
            notes=tuple(answer.text for answer in of_rows),
            reasons=tuple("" if answer.failed else answer.reason for answer in of_rows),
            causes=tuple(answer.cause or FAILED if answer.failed else "" for answer in of_rows)
            if any(answer.failed for answer in of_rows)
            else (),
        )
