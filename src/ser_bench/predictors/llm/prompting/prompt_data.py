"""The questions of a run: the data of each clip that the prompt uses, with norms and examples from training rows.

A prompt begins with what is equal for all clips: instructions, then examples. The data of the clip come last, so that a
server evaluates the beginning once. With `llm.example_choice=similar` the examples differ between clips, and only the
instructions are shared.

The label of a row that is asked about is never read here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ser_bench.config import ExampleChoice, LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.parsing.model_answer import answer_json
from ser_bench.predictors.llm.prompting import prompt_template, prosody_norms
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.prosody_norms import ProsodyNorms
from ser_bench.predictors.llm.prompting.question import AudioPart, Message, Question
from ser_bench.predictors.llm.prompting.similar_examples import ExamplePool, PoolClip
from ser_bench.types import Inputs, Row


@dataclass(frozen=True)
class PromptData:
    """What a prompt takes from training rows.

    Attributes:
        norms: norms of the prosody; None if the prompt does not use them.
        examples: messages between the system message and every question: a training clip, its emotion, and so on.
        pool: training clips among which the examples of each question are searched; None: all have `examples`.
    """

    norms: ProsodyNorms | None = None
    examples: tuple[Message, ...] = ()
    pool: ExamplePool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        stored = {"norms": self.norms and self.norms.to_json(), "examples": list(self.examples)}
        return stored if self.pool is None else stored | {"pool": self.pool.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PromptData:
        """Return the data that `to_json` wrote."""
        norms = None if value["norms"] is None else ProsodyNorms.from_json(value["norms"])
        pool = ExamplePool.from_json(value["pool"], norms) if norms is not None and "pool" in value else None
        return cls(norms, tuple(value["examples"]), pool)


def check_examples(prompt: Prompt, cfg: LlmConfig) -> None:
    """Check that the keys of similar examples are possible and have an effect.

    Raises:
        ConfigError: if they have not; the message names the key.
    """
    if cfg.neighbours is not None and cfg.neighbours < 1:
        raise ConfigError(f"llm.neighbours={cfg.neighbours}: must be at least 1; null shows llm.shots of each label")
    if cfg.example_pool is not None and cfg.example_pool < 1:
        raise ConfigError(f"llm.example_pool={cfg.example_pool}: must be at least 1; null searches all training clips")
    only_voice = prompt.uses("voice") and not prompt.uses("pitch")
    if cfg.example_choice is ExampleChoice.similar and not (prompt.examples and only_voice):
        raise ConfigError(
            f"llm.example_choice=similar needs a prompt with examples of voices, and llm.prompt={prompt.name} has "
            "none: set llm.prompt=few_shot, or remove llm.example_choice"
        )
    if cfg.neighbours is not None and cfg.example_choice is not ExampleChoice.similar:
        raise ConfigError(f"llm.neighbours={cfg.neighbours} has no effect without llm.example_choice=similar")


def check_orders(labels: Sequence[str], cfg: LlmConfig) -> None:
    """Check that there are as many orders of the labels as `llm.orders`, each label once in each position.

    Raises:
        ConfigError: if there are not.
    """
    if not 1 <= cfg.orders <= len(labels):
        raise ConfigError(f"llm.orders={cfg.orders}: must be from 1 to the number of labels, {len(labels)}")


def learn(
    prompt: Prompt,
    labels: Sequence[str],
    train: Sequence[Row],
    inputs: Inputs,
    cfg: LlmConfig,
    shuffle_seed: int | None = None,
) -> PromptData:
    """Return what this prompt takes from training rows. The variants of a clip count once.

    Args:
        prompt: decides whether norms and examples are needed; other prompts read no training row.
        labels: the labels of the run.
        train: training rows.
        inputs: data of the rows.
        cfg: number and seed of the examples.
        shuffle_seed: permutes the labels of the training clips (`shuffle_labels=true`); None: true labels.

    Raises:
        ConfigError: if the prompt shows examples, and a label has fewer training clips than `llm.shots`.
    """
    rows = [Row(clip_id) for clip_id in dict.fromkeys(row.clip_id for row in train)]
    data = PromptData()
    if prompt.uses("voice"):
        speakers = [clip.speaker for clip in inputs.clips(rows)]
        data = PromptData(prosody_norms.learn(inputs.prosody(rows), speakers))
    if not prompt.examples:
        return data
    truth = inputs.truth(rows)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(truth)
    label_of = dict(zip(rows, truth, strict=True))
    if cfg.example_choice is ExampleChoice.similar and data.norms is not None:
        return replace(data, pool=_pool(data.norms, label_of, inputs, cfg))
    chosen = choose_examples(label_of, inputs, labels, cfg)
    examples: list[Message] = []
    for row, (_, user) in zip(chosen, _messages(prompt, data, [labels] * len(chosen), chosen, inputs), strict=True):
        examples += [user, {"role": "assistant", "content": answer_json(label_of[row])}]
    return PromptData(data.norms, tuple(examples))


def choose_examples(label_of: Mapping[Row, str], inputs: Inputs, labels: Sequence[str], cfg: LlmConfig) -> list[Row]:
    """Return `llm.shots` rows of every label in a random order, from as many speakers as possible; seeded.

    Raises:
        ConfigError: if a label has fewer rows.
    """
    draw = random.Random(cfg.seed)
    speakers = [clip.speaker for clip in inputs.clips(list(label_of))]
    candidates = sorted((row, label, speaker) for (row, label), speaker in zip(label_of.items(), speakers, strict=True))
    draw.shuffle(candidates)
    used: Counter[str] = Counter()
    chosen: list[Row] = []
    for label in labels:
        of_label = [(row, speaker) for row, truth, speaker in candidates if truth == label]
        if len(of_label) < cfg.shots:
            raise ConfigError(
                f"llm.prompt={cfg.prompt} shows llm.shots={cfg.shots} examples of each label, and there are "
                f"{len(of_label)} training clips of {label!r}: lower llm.shots or choose another prompt"
            )
        for _ in range(cfg.shots):
            row, speaker = min(of_label, key=lambda candidate: used[candidate[1]])
            of_label.remove((row, speaker))
            used[speaker] += 1
            chosen.append(row)
    draw.shuffle(chosen)
    return chosen


def _pool(norms: ProsodyNorms, label_of: Mapping[Row, str], inputs: Inputs, cfg: LlmConfig) -> ExamplePool:
    """Return the training clips among which examples are searched: all, or `llm.example_pool` of them (seeded)."""
    rows = list(label_of)
    clips = [replace(clip, emotion=label_of[row]) for row, clip in zip(rows, inputs.clips(rows), strict=True)]
    if cfg.example_pool is not None and cfg.example_pool < len(clips):
        clips = list(subset(clips, cfg.example_pool, cfg.seed).values())
    kept = [Row(clip.id) for clip in clips]
    values = zip(clips, inputs.transcripts(kept), inputs.prosody(kept), strict=True)
    return ExamplePool([PoolClip(c.id, c.speaker, c.emotion, words, prosody) for c, words, prosody in values], norms)


def questions(
    prompt: Prompt,
    data: PromptData,
    labels: Sequence[str],
    rows: Sequence[Row],
    inputs: Inputs,
    cfg: LlmConfig,
    turn: int = 0,
) -> list[Question]:
    """Return one question for each clean row, in the order of the rows.

    `turn`, from 0 to `llm.orders` - 1, is which of the orders of the labels the prompts have.
    """
    orders = [_label_order(labels, row, cfg, turn) for row in rows]
    messages = _messages(prompt, data, orders, rows, inputs)
    recordings = [AudioPart(c.path, c.digest, c.duration_s) if prompt.audio else None for c in inputs.clips(rows)]
    examples = _examples(prompt, data, orders, rows, inputs, cfg)
    return [
        Question(
            (system, *shown, user),
            order if cfg.shuffle_order or order != tuple(labels) else (),
            recording=recording,
        )
        for (system, user), shown, order, recording in zip(messages, examples, orders, recordings, strict=True)
    ]


def content_free(prompt: Prompt, question: Question, labels: Sequence[str]) -> list[Question]:
    """Return questions that differ from this one only in the data of the clip, which are content-free texts."""
    order = question.order or tuple(labels)
    users = [prompt.content_free(order, text) for text in prompt_template.CONTENT_FREE]
    return [replace(question, messages=(*question.messages[:-1], user)) for user in users]


def _examples(
    prompt: Prompt,
    data: PromptData,
    orders: Sequence[Sequence[str]],
    rows: Sequence[Row],
    inputs: Inputs,
    cfg: LlmConfig,
) -> list[tuple[Message, ...]]:
    """Return the messages of the examples for each row."""
    if data.pool is None:
        return [data.examples] * len(rows)
    messages = []
    for prosody, clip, order in zip(inputs.prosody(rows), inputs.clips(rows), orders, strict=True):
        chosen = data.pool.nearest(prosody, clip.speaker, sorted(order), cfg.shots, cfg.neighbours)
        messages.append(data.pool.messages(prompt, chosen, clip.speaker, order))
    return messages


def _messages(
    prompt: Prompt, data: PromptData, orders: Sequence[Sequence[str]], rows: Sequence[Row], inputs: Inputs
) -> list[list[Message]]:
    """Return the system and the user message of each row; only data that the prompt uses is computed."""
    nothing: list[Any] = [None] * len(rows)
    transcripts = inputs.transcripts(rows) if prompt.uses("transcript") else [""] * len(rows)
    pitches = inputs.pitch(rows) if prompt.uses("pitch") else nothing
    voices = [""] * len(rows)
    if prompt.uses("voice") and data.norms is not None:
        pairs = zip(inputs.prosody(rows), inputs.clips(rows), strict=True)
        voices = [prosody_norms.describe(prosody, clip.speaker, data.norms) for prosody, clip in pairs]
    return [prompt.messages(*values) for values in zip(orders, transcripts, pitches, voices, strict=True)]


def _label_order(labels: Sequence[str], row: Row, cfg: LlmConfig, turn: int) -> tuple[str, ...]:
    """Return the labels as the prompt of this clip lists them: a model may prefer the first or the last position.

    The orders of the turns are rotations, at equal steps, of the corpus's order or of the clip's shuffled one. With as
    many orders as labels, each label is once in each position.
    """
    first = list(labels)
    if cfg.shuffle_order:
        first = random.Random(f"{cfg.seed} {row.clip_id}").sample(first, len(first))
    start = turn * len(first) // cfg.orders
    return tuple(first[start:] + first[:start])
