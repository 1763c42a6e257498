"""From clips to questions: what a prompt needs of a clip, and what it learns from training rows.

Norms of the voice and examples come from training rows alone; nothing here sees the label of a row that is asked about.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.answer import written
from ser_bench.predictors.llm.prompting import prosody_norms as usual
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.prosody_norms import Norms
from ser_bench.predictors.llm.prompting.question import Message, Question
from ser_bench.predictors.llm.prompting.recording import Sound
from ser_bench.types import Inputs, Row


@dataclass(frozen=True)
class Brief:
    """What a prompt learnt from training rows.

    Attributes:
        norms: what is usual of the voice; None where the prompt does not tell it.
        examples: messages that stand before every question: a training clip, then its emotion, and so on.
    """

    norms: Norms | None = None
    examples: tuple[Message, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"norms": self.norms and self.norms.to_json(), "examples": list(self.examples)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Brief:
        """The inverse of `to_json`."""
        norms = None if value["norms"] is None else Norms.from_json(value["norms"])
        return cls(norms, tuple(value["examples"]))


def learn(
    prompt: Prompt,
    labels: Sequence[str],
    train: Sequence[Row],
    inputs: Inputs,
    cfg: LlmConfig,
    shuffle_seed: int | None = None,
) -> Brief:
    """What this prompt needs of the training rows; variants of a clip count once.

    `shuffle_seed` gives every training clip the label of another (`shuffle_labels=true`).

    Raises:
        ConfigError: the prompt wants examples, and a label has no training clip.
    """
    rows = [Row(clip_id) for clip_id in dict.fromkeys(row.clip_id for row in train)]
    brief = Brief()
    if prompt.tells("voice"):
        speakers = [clip.speaker for clip in inputs.clips(rows)]
        brief = Brief(usual.learn(inputs.prosody(rows), speakers))
    if not prompt.examples:
        return brief
    truth = inputs.truth(rows)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(truth)
    told = dict(zip(rows, truth, strict=True))
    chosen = examples(told, inputs, labels, cfg)
    asked = _messages(prompt, brief, labels, chosen, inputs)
    pairs = zip(asked, (told[row] for row in chosen), strict=True)
    shown = [message for one, label in pairs for message in (one[-1], {"role": "assistant", "content": written(label)})]
    return Brief(brief.norms, tuple(shown))


def examples(told: Mapping[Row, str], inputs: Inputs, labels: Sequence[str], cfg: LlmConfig) -> list[Row]:
    """`llm.shots` of these rows for every label, of as many speakers as may be, in an order that says nothing; seeded.

    Raises:
        ConfigError: a label has fewer rows.
    """
    draw = random.Random(cfg.seed)
    speakers = [clip.speaker for clip in inputs.clips(list(told))]
    known = sorted((row, label, speaker) for (row, label), speaker in zip(told.items(), speakers, strict=True))
    draw.shuffle(known)
    used: Counter[str] = Counter()
    chosen: list[Row] = []
    for label in labels:
        own = [(row, speaker) for row, truth, speaker in known if truth == label]
        if len(own) < cfg.shots:
            raise ConfigError(
                f"llm.prompt={cfg.prompt} shows llm.shots={cfg.shots} examples of each label, and there are "
                f"{len(own)} training clips of {label!r}: lower llm.shots or choose another prompt"
            )
        for _ in range(cfg.shots):
            row, speaker = min(own, key=lambda one: used[one[1]])
            own.remove((row, speaker))
            used[speaker] += 1
            chosen.append(row)
    draw.shuffle(chosen)
    return chosen


def questions(
    prompt: Prompt, brief: Brief, labels: Sequence[str], rows: Sequence[Row], inputs: Inputs, cfg: LlmConfig
) -> list[Question]:
    """One question a clean row, in order."""
    orders = [_order(labels, row, cfg) for row in rows]
    asked = _messages(prompt, brief, labels, rows, inputs, orders)
    sounds = [Sound(c.path, c.digest, c.duration_s) if prompt.audio else None for c in inputs.clips(rows)]
    return [
        Question((system, *brief.examples, user), order if cfg.shuffle_order else (), sound=sound)
        for (system, user), order, sound in zip(asked, orders, sounds, strict=True)
    ]


def _messages(
    prompt: Prompt,
    brief: Brief,
    labels: Sequence[str],
    rows: Sequence[Row],
    inputs: Inputs,
    orders: Sequence[Sequence[str]] | None = None,
) -> list[list[Message]]:
    """System and user message of each row; only what the prompt tells is computed."""
    nothing: list[Any] = [None] * len(rows)
    transcripts = inputs.transcripts(rows) if prompt.tells("transcript") else [""] * len(rows)
    pitches = inputs.pitch(rows) if prompt.tells("pitch") else nothing
    voices = [""] * len(rows)
    if prompt.tells("voice") and brief.norms is not None:
        told = zip(inputs.prosody(rows), inputs.clips(rows), strict=True)
        voices = [usual.describe(found, clip.speaker, brief.norms) for found, clip in told]
    shown = [labels] * len(rows) if orders is None else orders
    return [prompt.messages(*one) for one in zip(shown, transcripts, pitches, voices, strict=True)]


def _order(labels: Sequence[str], row: Row, cfg: LlmConfig) -> tuple[str, ...]:
    """The labels as this clip's prompt lists them: a model may like what stands first or last."""
    if not cfg.shuffle_order:
        return tuple(labels)
    return tuple(random.Random(f"{cfg.seed} {row.clip_id}").sample(list(labels), len(labels)))
