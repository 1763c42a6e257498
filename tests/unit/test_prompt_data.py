"""Norms, examples and questions, and that norms and examples come from training rows only."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench.config import ExampleChoice, LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.features.prosody import NO_PROSODY, Pitch, Prosody
from ser_bench.predictors.llm.cost_estimate import context_tokens, token_counter
from ser_bench.predictors.llm.local_server import CONTEXT_TOKENS
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from ser_bench.predictors.llm.prompting.prompt_data import PromptData
from ser_bench.predictors.llm.prompting.prosody_norms import ProsodyNorms
from ser_bench.predictors.llm.prompting.question import Question
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


# Similar examples, orders of the labels, and content-free questions.


def similar(train: list[Row], prosodies: dict[str, Prosody], **changes) -> tuple[PromptData, Inputs, LlmConfig]:
    inputs, cfg = Inputs(prosodies), replace(CFG, example_choice=ExampleChoice.similar, **changes)
    return prompt_data.learn(prompt_template.load("few_shot"), LABELS, train, inputs, cfg), inputs, cfg


def spread(rows_: list[Row]) -> dict[str, Prosody]:
    """Every clip is louder and faster than the one before it."""
    return {
        row.clip_id: replace(MIDDLE, loudness_db=60.0 + i, syllables_per_second=4.0 + 0.1 * i)
        for i, row in enumerate(rows_)
    }


def shown_ids(question: Question, candidates: list[Row]) -> list[str]:
    return [
        next(row.clip_id for row in candidates if f"Words of {row.clip_id}." in message["content"])
        for message in question.messages[1:-1:2]
    ]


def by_hand(prosodies: dict[str, Prosody], train: list[Row], asked: Prosody) -> list[str]:
    """Ids by root mean square difference of z-scores, computed with plain Python."""
    fields = ["loudness_db", "syllables_per_second"]
    values = {f: [getattr(prosodies[row.clip_id], f) for row in train] for f in fields}
    std = {f: float(np.std(v)) for f, v in values.items()}
    distance = {
        row.clip_id: sum(((getattr(prosodies[row.clip_id], f) - getattr(asked, f)) / std[f]) ** 2 for f in fields)
        for row in train
    }
    return sorted(distance, key=lambda clip_id: (distance[clip_id], clip_id))


def test_similar_examples_are_the_nearest_of_each_label_the_nearest_last():
    train = rows("abcd", 2)
    measured = spread(train)
    target = replace(MIDDLE, loudness_db=69.2, syllables_per_second=4.92)
    learnt, inputs, cfg = similar(train, measured | {"x-sad-0": target})
    [question] = prompt_data.questions(
        prompt_template.load("few_shot"), learnt, LABELS, [Row("x-sad-0")], inputs, cfg
    )  # fmt: skip
    order = by_hand(measured, train, target)
    nearest = [next(i for i in order if f"-{label}-" in i) for label in LABELS]
    shown = shown_ids(question, train)
    assert sorted(shown) == sorted(nearest) and shown == sorted(nearest, key=order.index, reverse=True)
    answers = [json.loads(message["content"])["emotion"] for message in question.messages[2:-1:2]]
    assert answers == [clip_id.split("-")[1] for clip_id in shown]
    assert question.messages[0]["role"] == "system" and "x-sad-0" in question.messages[-1]["content"]


def test_nearest_neighbours_are_chosen_whatever_their_labels():
    train = rows("abcd", 2)
    measured = spread(train)
    target = replace(MIDDLE, loudness_db=60.0, syllables_per_second=4.0)
    learnt, inputs, cfg = similar(train, measured | {"x-sad-0": target}, neighbours=5)
    [question] = prompt_data.questions(prompt_template.load("few_shot"), learnt, LABELS, [Row("x-sad-0")], inputs, cfg)
    assert shown_ids(question, train) == by_hand(measured, train, target)[:5][::-1]


def test_no_example_is_of_the_speaker_of_the_clip_and_none_is_outside_the_training_rows():
    train = rows("abcd", 12)
    measured = spread([*train, *TEST])
    learnt, inputs, cfg = similar(train, measured, shots=2)
    assert inputs.asked["truth"] == inputs.asked["transcripts"] == {row.clip_id for row in train}
    assert learnt.norms is not None and "a" in learnt.norms.speakers, "the speaker has norms"
    asked = prompt_data.questions(prompt_template.load("few_shot"), learnt, LABELS, [*train[:9], *TEST], inputs, cfg)
    for row, question in zip([*train[:9], *TEST], asked, strict=True):
        assert not any(shown.startswith(row.clip_id[0]) for shown in shown_ids(question, [*train, *TEST]))
    # Clip and examples are described against the same norms.
    assert "other recordings of this speaker" in str(asked[0].messages)
    assert "recordings of other speakers" not in str(asked[0].messages[1:])
    assert "other recordings of this speaker" not in str(asked[-1].messages)
    assert inputs.asked["truth"] == {row.clip_id for row in train}


def test_a_measure_that_is_missing_does_not_count_and_a_clip_without_any_is_the_farthest():
    train = rows("a", 1) + rows("b", 1)
    measured = {row.clip_id: replace(MIDDLE, loudness_db=60.0 + i) for i, row in enumerate(train)}
    measured["a-angry-0"] = NO_PROSODY
    measured["a-happy-0"] = replace(measured["a-happy-0"], pitch_semitones=None)
    target = replace(measured["a-happy-0"], pitch_semitones=None)
    learnt, inputs, cfg = similar(train, measured | {"x-sad-0": target}, neighbours=6)
    [question] = prompt_data.questions(prompt_template.load("few_shot"), learnt, LABELS, [Row("x-sad-0")], inputs, cfg)
    shown = shown_ids(question, train)
    assert shown[-1] == "a-happy-0" and shown[0] == "a-angry-0"


def test_the_pool_is_a_seeded_subset_balanced_over_labels_and_survives_json():
    train = rows("abcd", 12)
    learnt, inputs, cfg = similar(train, spread(train), example_pool=24)
    assert learnt.pool is not None and len(inputs.asked["transcripts"]) == 24 == len(learnt.pool.clips)
    assert Counter(clip.label for clip in learnt.pool.clips) == dict.fromkeys(LABELS, 8)
    back = PromptData.from_json(json.loads(json.dumps(learnt.to_json())))
    assert back == learnt
    prompt = prompt_template.load("few_shot")
    ask = [prompt_data.questions(prompt, data, LABELS, TEST, inputs, cfg) for data in (learnt, back)]
    assert ask[0] == ask[1]
    assert similar(train[::-1], spread(train), example_pool=24)[0].pool == learnt.pool


@pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
        ("prosody", {"example_choice": ExampleChoice.similar}, "set llm.prompt=few_shot"),
        ("few_shot", {"neighbours": 3}, "no effect without llm.example_choice=similar"),
        ("few_shot", {"example_choice": ExampleChoice.similar, "neighbours": 0}, "llm.neighbours=0: must be at least"),
        ("few_shot", {"example_choice": ExampleChoice.similar, "example_pool": 0}, "llm.example_pool=0: must be at"),
    ],
)
def test_keys_of_examples_without_effect_are_refused(prompt, changes, words):
    with pytest.raises(ConfigError, match=words):
        prompt_data.check_examples(prompt_template.load(prompt), replace(CFG, prompt=prompt, **changes))


@pytest.mark.parametrize(("changes", "words"), [({"shots": 3}, "of 'angry'"), ({"neighbours": 7}, "there are 6 train")])
def test_too_few_similar_clips_are_refused(changes, words):
    train = rows("ab", 1)
    learnt, inputs, cfg = similar(train, spread(train), **changes)
    with pytest.raises(ConfigError, match=words):
        prompt_data.questions(prompt_template.load("few_shot"), learnt, LABELS, TEST, inputs, cfg)


def test_orders_put_every_label_once_into_every_position():
    for shuffle in (False, True):
        cfg = replace(CFG, orders=3, shuffle_order=shuffle)
        asked = [
            prompt_data.questions(prompt_template.load("paper"), PromptData(), LABELS, TEST[:4], Inputs(), cfg, turn)
            for turn in range(3)
        ]
        for of_clip in zip(*asked, strict=True):
            orders = [question.order or LABELS for question in of_clip]
            assert all(set(column) == set(LABELS) for column in zip(*orders, strict=True))
            assert all(", ".join(order) in q.messages[0]["content"] for order, q in zip(orders, of_clip, strict=True))
    with pytest.raises(ConfigError, match=r"llm\.orders=4: must be from 1 to the number of labels, 3"):
        prompt_data.check_orders(LABELS, replace(CFG, orders=4))


def test_the_first_order_is_the_question_of_a_run_with_one_order():
    prompt = prompt_template.load("paper")
    single = prompt_data.questions(prompt, PromptData(), LABELS, TEST, Inputs(), CFG)
    assert prompt_data.questions(prompt, PromptData(), LABELS, TEST, Inputs(), replace(CFG, orders=3)) == single


@pytest.mark.parametrize("name", ["paper", "prosody", "few_shot", "explain"])
def test_content_free_questions_differ_in_the_data_of_the_clip_only(name):
    prompt, inputs = prompt_template.load(name), Inputs()
    learnt = prompt_data.learn(prompt, LABELS, TRAIN, inputs, CFG)
    [question] = prompt_data.questions(prompt, learnt, LABELS, TEST[:1], inputs, CFG)
    free = prompt_data.content_free(prompt, question, LABELS)
    assert [q.messages[:-1] for q in free] == [question.messages[:-1]] * 3
    texts = [q.messages[-1]["content"] for q in free]
    assert texts[0].startswith('Transcript: "N/A"') and texts[1].startswith('Transcript: ""')
    assert texts[2].startswith('Transcript: "[MASK]"') and len(set(texts)) == 3
    assert not any("Words of" in text or "Hz" in text or "%" in text for text in texts)


@pytest.mark.parametrize("name", prompt_template.names())
def test_what_does_not_change_comes_first_in_every_prompt(name):
    prompt, inputs = prompt_template.load(name), Inputs(spread(TEST))
    learnt = prompt_data.learn(prompt, LABELS, TRAIN, inputs, CFG)
    asked = prompt_data.questions(prompt, learnt, LABELS, TEST[:2], inputs, CFG)
    assert asked[0].messages[:-1] == asked[1].messages[:-1]
    first = re.search(r"\$(?!labels)\w+", prompt.user)
    text = prompt.user[first.start() :] if first else ""
    fixed_after = re.sub(r"\$\w+", "", text)
    assert len(fixed_after) < 45, "after the first data of the clip, only names of fields and a short question"
