"""The questions of a run: the data of each clip that the prompt uses, with norms and examples from training rows.

The label of a row that is asked about is never read here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.model_answer import answer_json
from ser_bench.predictors.llm.prompting import prosody_norms
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.prosody_norms import ProsodyNorms
from ser_bench.predictors.llm.prompting.question import AudioPart, Message, Question
from ser_bench.types import Inputs, Row


@dataclass(frozen=True)
class PromptData:
    """What a prompt takes from training rows.

    Attributes:
        norms: norms of the prosody; None if the prompt does not use them.
        examples: messages between the system message and every question: a training clip, its emotion, and so on.
    """

    norms: ProsodyNorms | None = None
    examples: tuple[Message, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"norms": self.norms and self.norms.to_json(), "examples": list(self.examples)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PromptData:
        """Return the data that `to_json` wrote."""
        norms = None if value["norms"] is None else ProsodyNorms.from_json(value["norms"])
        return cls(norms, tuple(value["examples"]))


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


def questions(
    prompt: Prompt, data: PromptData, labels: Sequence[str], rows: Sequence[Row], inputs: Inputs, cfg: LlmConfig
) -> list[Question]:
    """Return one question for each clean row, in the order of the rows."""
    orders = [_label_order(labels, row, cfg) for row in rows]
    messages = _messages(prompt, data, orders, rows, inputs)
    recordings = [AudioPart(c.path, c.digest, c.duration_s) if prompt.audio else None for c in inputs.clips(rows)]
    return [
        Question((system, *data.examples, user), order if cfg.shuffle_order else (), recording=recording)
        for (system, user), order, recording in zip(messages, orders, recordings, strict=True)
    ]


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


def _label_order(labels: Sequence[str], row: Row, cfg: LlmConfig) -> tuple[str, ...]:
    """Return the labels as the prompt of this clip lists them: a model may prefer the first or the last position."""
    if not cfg.shuffle_order:
        return tuple(labels)
    return tuple(random.Random(f"{cfg.seed} {row.clip_id}").sample(list(labels), len(labels)))
