"""The predictor `llm`: each clip becomes one prompt, and the answer of a language model becomes one label.

The model is not trained. Some prompts describe the voice relative to norms of the training rows, or show training clips
as examples. Validation rows are used by `llm.calibration=label_bias` only, without their labels.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ser_bench import extras
from ser_bench.cache import Cache
from ser_bench.config import Config, LabelCorrection, ModelConfig, cache_dir
from ser_bench.errors import ConfigError
from ser_bench.predictors.capabilities import HasPrompt
from ser_bench.predictors.llm import explanation_check, label_correction, llm_predictions, request_body
from ser_bench.predictors.llm.budget import LEDGER_FILE, check_prices, cost_usd
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.cost_estimate import CostEstimate, context_tokens, estimate_cost, token_counter
from ser_bench.predictors.llm.label_correction import Prior, context_of, corrected, mean_prior
from ser_bench.predictors.llm.local_server import CONTEXT_TOKENS
from ser_bench.predictors.llm.parsing.model_answer import FAILED, ModelAnswer, stated_reason
from ser_bench.predictors.llm.parsing.repeated_answers import average_answers, check_samples, merge_answers
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from ser_bench.predictors.llm.prompting.prompt_data import PromptData
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.registry import Need, register
from ser_bench.types import Clip, EpochLog, Inputs, Predictions, Row

if TYPE_CHECKING:  # `client` and `endpoint` import openai, which takes a second
    from ser_bench.predictors.llm.client import LlmClient, RequestCounts

log = logging.getLogger(__name__)

SETTINGS_FILE = "llm.json"
SETTINGS = ("name", "model", "base_url", "temperature", "max_tokens", "top_logprobs", "seed")
"""Keys of the configuration that are stored; neither an API key nor the name of its environment variable."""


@dataclass(frozen=True)
class AskedClips:
    """What asking about some clips gave.

    Attributes:
        answers: one per clip, with all corrections but that by validation clips.
        first: one per clip as the model gave it, with the labels in the first order.
        source: of the probabilities.
        counts: what the answers took.
    """

    answers: list[ModelAnswer]
    first: list[ModelAnswer]
    source: str
    counts: RequestCounts


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
        self._prior: Prior | None = None
        self._context_priors: dict[str, Prior] = {}
        self._validation_clips: list[str] = []
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
        if "priors" in stored:
            of_clips, of_contexts = stored["priors"]["label_bias"], stored["priors"]["contexts"]
            predictor._prior = None if of_clips is None else tuple(of_clips)
            predictor._context_priors = {context: tuple(prior) for context, prior in of_contexts.items()}
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
        if self._prior is not None or self._context_priors:
            stored["priors"] = {"label_bias": self._prior, "contexts": self._shared_priors()}
        text = json.dumps(stored, indent=2, ensure_ascii=False)
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Take norms and examples from training rows, if the prompt uses them; the model is not trained.

        With `llm.calibration=label_bias`, the model is asked about validation clips, whose labels are not read. A
        missing key, package or model is reported first, before clips are transcribed.

        Raises:
            ConfigError: if keys of the prompt, the examples, the calibration, the repeated answers or the budget do not
                go together, if a label has too few examples, or if there are no validation rows to calibrate on.
            LLMError: if the key, or what the local server needs, is missing; with `label_bias` also as `predict`.
            WeightsError: if the local model cannot be downloaded.
        """
        check_prices(self._cfg.llm)
        request_body.check_keys(self._cfg.llm)
        check_samples(self._cfg.llm)
        prompt_data.check_examples(self._prompt, self._cfg.llm)
        prompt_data.check_orders(self._labels, self._cfg.llm)
        label_correction.check_correction(self._prompt, self._cfg.llm)
        if not self._cfg.llm.dry_run:
            extras.require("openai", "model=llm")
            from ser_bench.predictors.llm import endpoint

            endpoint.check_endpoint(self._cfg.llm)
        seed = self._cfg.seed if self._cfg.shuffle_labels else None
        self._prompt_data = prompt_data.learn(self._prompt, self._labels, train, self._inputs, self._cfg.llm, seed)
        if self._cfg.llm.calibration is not LabelCorrection.label_bias:
            return {}
        self._validation_clips = label_correction.chosen_clips([row.clip_id for row in val], self._cfg.llm)
        if not self._validation_clips:
            raise ConfigError(
                "llm.calibration=label_bias needs validation rows, and this split has none: set split.val_fraction "
                "above 0, or llm.calibration=contextual"
            )
        return {} if self._cfg.llm.dry_run else self._learn_prior()

    def _learn_prior(self) -> dict[str, float]:
        """Ask about validation clips, keep the mean of the probabilities, and return it as metrics."""
        asked = self._asked(self._validation_clips)
        self._prior = mean_prior(asked.answers, self._cfg.llm)
        shares = {f"llm/prior/{label}": share for label, share in zip(self._labels, self._prior, strict=True)}
        return {"llm/calibration_clips": float(len(self._validation_clips))} | shares

    def estimate(self, rows: Sequence[Row]) -> CostEstimate:
        """Return what `predict` of these rows would ask, cost and take, the calibration of `fit` included.

        No request is sent, and no key is needed.
        """
        clip_ids = list(self._chosen(rows))
        questions = self._questions_in_all_orders(clip_ids)
        to_calibrate = [] if self._prior is not None else self._questions_in_all_orders(self._validation_clips)
        everything = [*self._content_free(questions), *to_calibrate, *questions]
        client = self._client(self._prompt)
        return estimate_cost(
            everything,
            client.stored(everything),
            self._labels,
            self._prompt.reason,
            self._cfg.llm,
            client.counter,
            len(clip_ids),
        )

    def estimate_lines(self, rows: Sequence[Row]) -> list[str]:
        """Return the estimate of `predict` as lines of text."""
        return self.estimate(rows).lines(self._cfg.llm)

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return predictions of all rows, or of those that `llm.limit` selects; variants of a clip share one answer.

        Raises:
            LLMError: if the endpoint cannot be used, or gives no probabilities and `llm.calibration` needs them; the
                answers so far are kept in the cache.
            InterruptedRunError: on Ctrl-C; the answers so far are kept in the cache.
        """
        clips = self._chosen(rows)
        rows = [row for row in rows if row.clip_id in clips]
        asked = self._asked(list(clips))
        answers = self._without_bias(asked.answers)
        self._report(list(clips), asked, answers)
        return self._predictions(rows, dict(zip(clips, answers, strict=True)), asked.source)

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

    def _questions(self, prompt: Prompt, clip_ids: Sequence[str], turn: int = 0) -> list[Question]:
        rows = [Row(clip_id) for clip_id in clip_ids]
        return prompt_data.questions(prompt, self._prompt_data, self._labels, rows, self._inputs, self._cfg.llm, turn)

    def _questions_in_all_orders(self, clip_ids: Sequence[str]) -> list[Question]:
        """Return the questions about all clips with the labels in the first order, then in the second, and so on."""
        turns = [self._questions(self._prompt, clip_ids, turn) for turn in range(self._cfg.llm.orders)]
        return [question for of_turn in turns for question in of_turn]

    def _content_free(self, questions: Sequence[Question]) -> list[Question]:
        """Return the content-free questions of every beginning of a prompt whose prior is not known yet."""
        if self._cfg.llm.calibration is not LabelCorrection.contextual:
            return []
        by_context = {context_of(question): question for question in questions}
        pending = [question for context, question in by_context.items() if context not in self._context_priors]
        return [free for q in pending for free in prompt_data.content_free(self._prompt, q, self._labels)]

    def _client(self, prompt: Prompt, questions: Sequence[Question] = ()) -> LlmClient:
        """Return a client; a local server gets room for the longest of these questions."""
        extras.require("openai", "model=llm")
        from ser_bench.predictors.llm import endpoint
        from ser_bench.predictors.llm.client import LlmClient

        llm = self._cfg.llm
        context = context_tokens(questions, token_counter(llm.model), llm, prompt.reason, CONTEXT_TOKENS)
        return LlmClient(
            llm,
            self._labels,
            Cache(cache_dir(self._cfg) / "llm"),
            endpoint.identity(llm),
            prompt.digest,
            lambda: endpoint.open_endpoint(llm, self._cfg.trainer.threads, context),
            prompt.reason,
            self._ledger,
        )

    def _asked(self, clip_ids: Sequence[str]) -> AskedClips:
        """Ask about these clips in all orders; average over the orders, and correct by content-free questions.

        Raises:
            LLMError: as `predict`.
        """
        llm = self._cfg.llm
        questions = self._questions_in_all_orders(clip_ids)
        client = self._client(self._prompt, questions)
        counts = self._learn_context_priors(client, questions)
        answers = client.ask(questions) if questions else []
        counts = counts + client.counts
        source, first = llm_predictions.probability_source(answers), answers[: len(clip_ids)]
        if source == llm_predictions.LOGPROBS:
            answers = self._without_context_bias(questions, answers)
            if llm.orders > 1:
                answers = [average_answers(of_clip, self._labels) for of_clip in _by_clip(answers, len(clip_ids))]
        elif llm.calibration is not LabelCorrection.none and any(a.label for a in answers):
            raise label_correction.without_probabilities(answers, llm)
        elif answers and llm.samples * llm.orders > 1:
            draws = list(answers)
            for sample in range(1, llm.samples):
                draws += client.ask([replace(question, sample=sample) for question in questions])
                counts = counts + client.counts
            answers = [merge_answers(of_clip, self._labels) for of_clip in _by_clip(draws, len(clip_ids))]
            source = llm_predictions.SAMPLES
        else:
            llm_predictions.warn_of_one_hot(answers)
        self._facts = {"llm/spent_usd": client.budget.spent_usd}
        return AskedClips(answers, first, source, counts)

    def _learn_context_priors(self, client: LlmClient, questions: Sequence[Question]) -> RequestCounts:
        """Ask the content-free questions, if there are any, and keep the mean of each beginning of a prompt.

        They are asked first, so that an endpoint without probabilities costs three requests and not a whole run.
        """
        from ser_bench.predictors.llm.client import RequestCounts

        free = self._content_free(questions)
        if not free:
            return RequestCounts()
        by_context: dict[str, list[ModelAnswer]] = {}
        for question, answer in zip(free, client.ask(free), strict=True):
            by_context.setdefault(context_of(question), []).append(answer)
        priors = {context: mean_prior(answers, self._cfg.llm) for context, answers in by_context.items()}
        self._context_priors |= priors
        return client.counts

    def _without_context_bias(self, questions: Sequence[Question], answers: Sequence[ModelAnswer]) -> list[ModelAnswer]:
        if self._cfg.llm.calibration is not LabelCorrection.contextual:
            return list(answers)
        pairs = zip(questions, answers, strict=True)
        return [corrected(answer, self._context_priors[context_of(question)]) for question, answer in pairs]

    def _without_bias(self, answers: Sequence[ModelAnswer]) -> list[ModelAnswer]:
        """Return the answers corrected by validation clips, if this is configured.

        Raises:
            ConfigError: if nothing was asked about validation clips before.
        """
        if self._cfg.llm.calibration is not LabelCorrection.label_bias:
            return list(answers)
        if self._prior is None:
            raise ConfigError("llm.calibration=label_bias: this predictor was not fitted to validation clips; fit it")
        return [corrected(answer, self._prior) for answer in answers]

    def _shared_priors(self) -> dict[str, Prior]:
        """Return the priors that serve new clips as well: of beginnings of prompts that are equal for all clips."""
        own = self._cfg.llm.shuffle_order or self._prompt_data.pool is not None
        return {} if own else self._context_priors

    def _report(self, clip_ids: Sequence[str], asked: AskedClips, answers: list[ModelAnswer]) -> None:
        """Keep the figures of these answers, and warn of what needs attention."""
        llm = self._cfg.llm
        llm_predictions.warn_of_cut_answers(answers, llm)
        llm_predictions.warn_of_estimated_cost(answers, llm)
        self._changes = llm_predictions.changes_in_words(answers, llm)
        self._facts |= llm_predictions.logged_figures(answers, asked.source, asked.counts, self._labels, llm)
        if not answers or any(answer.failed for answer in answers):
            return
        if llm.orders > 1 or llm.calibration is not LabelCorrection.none:
            probabilities = llm_predictions.probability_matrix(answers, self._labels, asked.source)
            self._facts |= llm_predictions.predicted_shares(probabilities, self._labels)
        if self._prompt.reason:
            self._facts |= self._reason_figures(clip_ids, asked.first)

    def _reason_figures(self, clip_ids: Sequence[str], answers: Sequence[ModelAnswer]) -> dict[str, float]:
        """Return `llm/explain/…` of the answers as the model gave them; no request is sent."""
        rows = [Row(clip_id) for clip_id in clip_ids]
        figures: dict[str, float] = {}
        if self._prompt_data.norms is not None:
            pairs = zip(self._inputs.prosody(rows), self._inputs.clips(rows), strict=True)
            cues = [explanation_check.cue_of(p, clip.speaker, self._prompt_data.norms) for p, clip in pairs]
            figures |= explanation_check.reason_figures([stated_reason(answer.text) for answer in answers], cues)
        if self._prompt.name in explanation_check.WITHOUT_REASON:
            other = prompt_template.load(explanation_check.WITHOUT_REASON[self._prompt.name])
            stored = self._client(other).stored(self._questions(other, clip_ids))
            labels = [None if answer is None else answer.label for answer in stored]
            figures |= explanation_check.label_figures([answer.label for answer in answers], labels)
        log.info("reasons  %s", ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
        return {f"llm/explain/{name}": value for name, value in figures.items()}

    def _predictions(self, rows: Sequence[Row], answers: Mapping[str, ModelAnswer], source: str) -> Predictions:
        variants = Counter(row.clip_id for row in rows)
        of_rows = [answers[row.clip_id] for row in rows]
        # The variants of a clip share one request, and therefore its cost and its time.
        cost = [cost_usd(a, self._cfg.llm) / variants[row.clip_id] for row, a in zip(rows, of_rows, strict=True)]
        # Concurrent requests share the time that passes, as the clips of a batch do.
        concurrent = min(self._cfg.llm.max_concurrency, len(answers)) or 1
        shares = [1 if a.batched else concurrent for a in of_rows]  # a batch states its time per line
        latency = [
            a.latency_s / variants[row.clip_id] / share for row, a, share in zip(rows, of_rows, shares, strict=True)
        ]
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


def _by_clip(answers: Sequence[ModelAnswer], clips: int) -> list[list[ModelAnswer]]:
    """Return the answers about each clip, given those about all clips, again about all clips, and so on."""
    return [list(answers[i::clips]) for i in range(clips)]
