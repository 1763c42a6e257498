"""Norms, examples and questions, and that norms and examples come from training rows only."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.features.prosody import Pitch, Prosody
from ser_bench.predictors.llm.cost_estimate import context_tokens, token_counter
from ser_bench.predictors.llm.local_server import CONTEXT_TOKENS
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from ser_bench.predictors.llm.prompting.prompt_data import PromptData
from ser_bench.predictors.llm.prompting.prosody_norms import ProsodyNorms
from ser_bench.types import Clip, Row

LABELS = ("angry", "happy", "sad")
CFG = LlmConfig(name="x", model="m")
PITCH = Pitch(210.0, 205.0, 35.0, 120.0, 330.0, 17.5, 0.6)
MIDDLE = Prosody(10.0, 6.0, -2.0, 60.0, 4.0, 10.0, 2.0, 8.0, 12.0)
SPREAD = Prosody(4.0, 2.0, 3.0, 5.0, 0.5, 6.0, 0.5, 2.0, 3.0)


class Inputs:
    """Clips `<speaker>-<label>-<number>`; records which data of which clips was requested."""

    def __init__(self, prosodies: dict[str, Prosody] | None = None) -> None:
        self.prosodies = prosodies or {}
        self.asked: dict[str, set[str]] = {}

    def _note(self, what: str, rows) -> None:
        self.asked.setdefault(what, set()).update(row.clip_id for row in rows)

    def truth(self, rows):
        self._note("truth", rows)
        return [row.clip_id.split("-")[1] for row in rows]

    def clips(self, rows):
        return [Clip(r.clip_id, Path(f"{r.clip_id}.wav"), "", r.clip_id.split("-")[0], duration_s=2.5) for r in rows]

    def transcripts(self, rows):
        self._note("transcripts", rows)
        return [f"Words of {row.clip_id}." for row in rows]

    def pitch(self, rows):
        self._note("pitch", rows)
        return [PITCH for _ in rows]

    def prosody(self, rows):
        self._note("prosody", rows)
        return [self.prosodies.get(row.clip_id, MIDDLE) for row in rows]


def rows(speakers: str, count: int = 3) -> list[Row]:
    return [Row(f"{s}-{label}-{n}") for s in speakers for label in LABELS for n in range(count)]


TRAIN, TEST = rows("abcd"), rows("xy")


def test_norms_come_from_training_rows_only():
    loud = {row.clip_id: replace(MIDDLE, loudness_db=200.0) for row in TEST}
    inputs = Inputs(loud)
    learnt = prompt_data.learn(prompt_template.load("prosody"), LABELS, TRAIN, inputs, CFG)
    assert learnt.norms is not None and learnt.norms.corpus["loudness_db"] == (60.0, 0.0)
    assert inputs.asked["prosody"] == {row.clip_id for row in TRAIN}
    asked = prompt_data.questions(prompt_template.load("prosody"), learnt, LABELS, TEST, inputs, CFG)
    assert "truth" not in inputs.asked
    assert (
        "loudness" in asked[0].messages[-1]["content"] and '"Words of x-angry-0."' in asked[0].messages[-1]["content"]
    )


def test_variants_of_a_clip_count_once():
    inputs = Inputs({"a-sad-0": replace(MIDDLE, loudness_db=90.0)})
    many = [*TRAIN, *[Row("a-sad-0", variant) for variant in ("noise", "pitch", "noise_pitch")]]
    for prompt in ("prosody", "few_shot"):
        first, second = (
            prompt_data.learn(prompt_template.load(prompt), LABELS, train, inputs, CFG) for train in (TRAIN, many)
        )
        assert first == second


@pytest.mark.parametrize("shots", [1, 2])
def test_examples_are_balanced_seeded_and_from_training_rows_only(shots):
    inputs, cfg = Inputs(), replace(CFG, shots=shots)
    prompt = prompt_template.load("few_shot")
    learnt = prompt_data.learn(prompt, LABELS, TRAIN, inputs, cfg)
    assert inputs.asked["transcripts"] <= {row.clip_id for row in TRAIN}
    asked, answered = learnt.examples[::2], learnt.examples[1::2]
    assert {m["role"] for m in asked} == {"user"} and {m["role"] for m in answered} == {"assistant"}
    emotions = [json.loads(m["content"])["emotion"] for m in answered]
    assert Counter(emotions) == dict.fromkeys(LABELS, shots)
    shown = [next(r for r in TRAIN if r.clip_id in m["content"]) for m in asked]
    assert [r.clip_id.split("-")[1] for r in shown] == emotions, "every example with its own emotion"
    speakers = Counter(r.clip_id.split("-")[0] for r in shown)
    assert max(speakers.values()) - min(speakers.values()) <= 1
    assert prompt_data.learn(prompt, LABELS, TRAIN[::-1], Inputs(), cfg) == learnt
    others = {str(prompt_data.learn(prompt, LABELS, TRAIN, Inputs(), replace(cfg, seed=s)).examples) for s in range(6)}
    assert len(others) > 1
    [question] = prompt_data.questions(prompt, learnt, LABELS, TEST[:1], inputs, cfg)
    assert [m["role"] for m in question.messages] == ["system", *["user", "assistant"] * 3 * shots, "user"]
    assert "x-angry-0" in question.messages[-1]["content"]


def test_label_without_enough_examples_is_refused():
    with pytest.raises(ConfigError, match=r"llm\.shots=4.*3 training clips of 'angry'"):
        prompt_data.learn(
            prompt_template.load("few_shot"), LABELS, rows("a"), Inputs(), replace(CFG, shots=4, prompt="few_shot")
        )


def test_shuffled_labels_reach_the_examples():
    def has_true_label(shuffle_seed):
        learnt = prompt_data.learn(
            prompt_template.load("few_shot"), LABELS, TRAIN, Inputs(), replace(CFG, shots=3), shuffle_seed
        )
        pairs = zip(learnt.examples[::2], learnt.examples[1::2], strict=True)
        return [json.loads(a["content"])["emotion"] in q["content"] for q, a in pairs]

    assert all(has_true_label(None)) and not all(has_true_label(0))


def test_paper_prompt_reads_no_training_row():
    inputs = Inputs()
    assert (
        prompt_data.learn(prompt_template.load("paper"), LABELS, TRAIN, inputs, CFG) == PromptData()
        and not inputs.asked
    )


@pytest.mark.parametrize("prompt", ["paper", "prosody", "few_shot"])
def test_prompt_data_survives_json(prompt):
    learnt = prompt_data.learn(prompt_template.load(prompt), LABELS, rows("abcd", 12), Inputs(), CFG)
    assert PromptData.from_json(json.loads(json.dumps(learnt.to_json()))) == learnt
    assert learnt.norms is None or isinstance(learnt.norms, ProsodyNorms)


def test_fixed_part_is_the_same_for_all_clips_unless_the_order_is_shuffled():
    prompt, inputs = prompt_template.load("few_shot"), Inputs()
    learnt = prompt_data.learn(prompt, LABELS, TRAIN, inputs, CFG)
    asked = prompt_data.questions(prompt, learnt, LABELS, TEST, inputs, CFG)
    assert len({json.dumps(q.messages[:-1]) for q in asked}) == 1 and {q.order for q in asked} == {()}


def test_order_of_labels_is_shuffled_per_clip_and_seeded():
    prompt, cfg = prompt_template.load("paper"), replace(CFG, shuffle_order=True)
    many = rows("xyz", 20)
    asked = prompt_data.questions(prompt, PromptData(), LABELS, many, Inputs(), cfg)
    orders = Counter(q.order for q in asked)
    assert len(orders) == 6 and min(orders.values()) > 10
    for question in asked:
        assert ", ".join(question.order) in question.messages[0]["content"]
    again = prompt_data.questions(prompt, PromptData(), LABELS, many[::-1], Inputs(), cfg)
    assert [q.order for q in again[::-1]] == [q.order for q in asked]
    other = prompt_data.questions(prompt, PromptData(), LABELS, many, Inputs(), replace(cfg, seed=1))
    assert [q.order for q in other] != [q.order for q in asked]


@pytest.mark.parametrize(("name", "has_transcript"), [("audio", False), ("audio_transcript", True)])
def test_recording_is_sent_as_wav_of_16_khz(name, has_transcript, tmp_path):
    class Sounds(Inputs):
        def clips(self, rows):
            return [replace(c, path=tmp_path / "a.wav", digest="d1") for c in super().clips(rows)]

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], axis=1), 44_100)
    inputs = Sounds()
    [question] = prompt_data.questions(prompt_template.load(name), PromptData(), LABELS, TEST[:1], inputs, CFG)
    assert ("transcripts" in inputs.asked) is has_transcript, "transcribed only if the prompt uses it"
    _, user = question.to_send()
    text, sound = user["content"]
    assert ("Words of" in text["text"]) is has_transcript and sound["input_audio"]["format"] == "wav"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert rate == 16_000 and samples.ndim == 1 and len(samples) == 16_000
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.02)
    assert "d1" in json.dumps(question.identity()) and sound["input_audio"]["data"] not in str(question.identity())
    assert question.recording is not None and question.recording.tokens == 25


def test_local_server_gets_room_for_the_longest_prompt():
    def needed(prompt: str, reason: bool = False, **changes) -> int:
        cfg = replace(CFG, **changes)
        learnt = prompt_data.learn(prompt_template.load(prompt), LABELS, TRAIN, Inputs(), cfg)
        asked = prompt_data.questions(prompt_template.load(prompt), learnt, LABELS, TEST, Inputs(), cfg)
        return context_tokens(asked, token_counter("m"), cfg, reason, CONTEXT_TOKENS)

    assert needed("paper") == CONTEXT_TOKENS
    assert needed("few_shot", shots=4) > needed("few_shot", shots=2) > 1.4 * CONTEXT_TOKENS
    assert needed("few_shot", shots=4) % 256 == 0
    assert context_tokens([], token_counter("m"), CFG, False, CONTEXT_TOKENS) == CONTEXT_TOKENS
