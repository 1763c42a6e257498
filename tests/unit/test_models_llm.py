from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import predictions as stored_predictions
from ser_bench.config import Config, LlmConfig, TrainerConfig
from ser_bench.errors import ConfigError, LLMError
from ser_bench.features.pitch import Pitch
from ser_bench.features.prosody import NOTHING, Prosody
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.llm import SETTINGS_FILE, Llm
from ser_bench.predictors.llm.parsing.answer import said_reason
from ser_bench.predictors.llm.prompting import prompt_template as prompts
from ser_bench.types import Clip, FloatArray, Row, clean_rows
from tests.support import fake_openai as fake

KEY = "sk-test-Very0Secret1Key2"
LABELS = ("angry", "happy", "sad")
PITCH = Pitch(210.0, 205.0, 35.0, 120.0, 330.0, 17.5, 0.6)


def clip(label: str, number: int, speakers: int = 4) -> Clip:
    return Clip(
        f"{label}-{number}", Path(f"{label}-{number}.wav"), label, f"s{number % speakers}", text=f"Words {number}."
    )


CLIPS = {c.id: c for c in (clip(label, n) for label in LABELS for n in range(8))}


class Inputs:
    """Transcripts are "<label> <number>", so that a server can tell which clip it is asked about."""

    def __init__(self, silent: frozenset[str] = frozenset()) -> None:
        self.silent = silent

    def truth(self, rows: Sequence[Row]) -> list[str]:
        return [CLIPS[row.clip_id].emotion for row in rows]

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        return [CLIPS[row.clip_id] for row in rows]

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        return [row.clip_id.replace("-", " ") for row in rows]

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        return [None if row.clip_id in self.silent else PITCH for row in rows]

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        return [NOTHING for _ in rows]

    def votes(self, rows: Sequence[Row]) -> list[Any]:
        raise AssertionError("the language model sees no votes")

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        raise AssertionError("the language model sees no spectral features")

    text = spectral


def truthful(body: dict[str, Any]) -> fake.Reply:
    """Answers the first word of the transcript."""
    return fake.label(body["messages"][1]["content"].split('"')[1].split()[0])


@pytest.fixture
def server():
    with fake.serve(truthful) as running:
        yield running


@pytest.fixture
def cfg(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SER_BENCH_TEST_KEY", KEY)
    llm = LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env="SER_BENCH_TEST_KEY", max_retries=0,
        price_in_usd=2.5, price_out_usd=10.0,
    )  # fmt: skip
    return Config(llm=llm, trainer=TrainerConfig(name="cpu"), cache_dir=str(tmp_path / "cache"))


def build(cfg: Config, tmp_path: Path, inputs: Inputs | None = None) -> Llm:
    return Llm(cfg, LABELS, inputs or Inputs(), tmp_path, lambda epoch, values: None)


def with_llm(cfg: Config, **changes: Any) -> Config:
    return replace(cfg, llm=replace(cfg.llm, **changes))


def test_predicts_what_is_answered(server, cfg, tmp_path):
    model = build(cfg, tmp_path)
    assert model.fit(clean_rows(CLIPS), ()) == {}
    assert not server.asked, "nothing is learnt, so nothing may be asked while fitting"
    rows = clean_rows(CLIPS)
    found = model.predict(rows)
    assert found.rows == rows and found.predicted == found.truth and not found.abstained.any()
    assert found.source == "one_hot" and not found.gives_probabilities
    assert json.loads(found.notes[0]) == {"emotion": "angry"}
    assert (found.latency_s > 0).all()
    assert found.cost_usd.sum() == pytest.approx(24 * 0.00035)


def test_requests_under_way_together_share_the_time(server, cfg, tmp_path):
    server.queue.extend([replace(fake.label("angry"), delay_s=0.1)] * 24)
    began = time.perf_counter()
    found = build(with_llm(cfg, max_concurrency=8), tmp_path).predict(clean_rows(CLIPS))
    assert 0 < found.latency_s.sum() <= time.perf_counter() - began


def test_facts_add_up(server, cfg, tmp_path):
    server.queue.extend(
        [fake.completion("well"), fake.label("glad"), fake.completion(None, refusal="no"), fake.error(500, "oops")]
    )
    model = build(with_llm(cfg, max_concurrency=1), tmp_path)
    found = model.predict(clean_rows(CLIPS))
    facts = model.facts()
    assert facts["llm/asked"] == 24 == facts["llm/answered"] + facts["llm/abstained"] + facts["llm/failed"]
    assert (facts["llm/answered"], facts["llm/abstained"], facts["llm/failed"]) == (20, 3, 1)
    assert (facts["llm/requests"], facts["llm/cached"], facts["llm/retried"]) == (24, 0, 0)
    assert (facts["llm/tokens_in"], facts["llm/tokens_out"]) == (23 * 100, 23 * 10)
    assert facts["llm/cost_usd"] == pytest.approx(23 * 0.00035) == facts["llm/paid_usd"]
    assert [facts[f"llm/reason/{r}"] for r in ("bad_json", "not_a_label", "refusal", "failed")] == [1, 1, 1, 1]
    shares = {label: facts[f"llm/answer_share/{label}"] for label in LABELS}
    assert shares == {"angry": pytest.approx(4 / 24), "happy": pytest.approx(8 / 24), "sad": pytest.approx(8 / 24)}
    assert found.abstained.sum() == 4
    assert found.probabilities[:4] == pytest.approx(np.full((4, 3), 1 / 3))
    assert found.predicted[:4] == ("", "", "", "")


def test_second_run_asks_nothing_and_predicts_the_same(server, cfg, tmp_path):
    server.queue.append(fake.completion("well"))
    rows = clean_rows(CLIPS)
    first = build(cfg, tmp_path).predict(rows)
    asked = len(server.asked)
    again = build(cfg, tmp_path)
    second = again.predict(rows)
    assert len(server.asked) == asked
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.latency_s, second.latency_s)
    assert (first.predicted, first.notes, first.source) == (second.predicted, second.notes, second.source)
    assert again.facts()["llm/cached"] == 24 and again.facts()["llm/paid_usd"] == 0
    assert again.facts()["llm/cost_usd"] == pytest.approx(24 * 0.00035)


def test_variants_of_a_clip_share_one_answer_its_time_and_its_price(server, cfg, tmp_path):
    rows = tuple(Row(clip_id, variant) for clip_id in list(CLIPS)[:3] for variant in ("clean", "noise", "pitch"))
    model = build(cfg, tmp_path)
    found = model.predict(rows)
    assert len(server.asked) == 3 and found.rows == rows and found.predicted == found.truth
    assert found.cost_usd.sum() == pytest.approx(model.facts()["llm/cost_usd"]) == pytest.approx(3 * 0.00035)


def test_silent_clip_is_asked_about_with_words_alone(server, cfg, tmp_path):
    build(cfg, tmp_path, Inputs(frozenset({"sad-0"}))).predict(clean_rows(["sad-0"]))
    text = server.asked[0]["messages"][1]["content"]
    assert "no voiced speech" in text and "Hz" not in text


def logprobs(**shares: float) -> list[dict[str, Any]]:
    entries = [{"token": k, "logprob": float(np.log(p)), "bytes": None} for k, p in shares.items()]
    return [
        {"token": '{"emotion":"', "logprob": 0.0, "bytes": None, "top_logprobs": []},
        {"token": next(iter(shares)), "logprob": entries[0]["logprob"], "bytes": None, "top_logprobs": entries},
    ]


def test_probabilities_and_their_source(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.4, sad=0.35, ang=0.2, The=0.05)
    )
    model = build(cfg, tmp_path)
    found = model.predict(clean_rows(list(CLIPS)[:2]))
    assert found.source == "logprobs" and found.gives_probabilities
    assert found.probabilities[0] == pytest.approx([0.2 / 0.95, 0.4 / 0.95, 0.35 / 0.95], abs=1e-6)
    assert model.facts()["llm/argmax_differs"] == 0 == model.facts()["llm/without_probabilities"]


def test_answer_other_than_the_most_probable_label_is_counted(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.3, sad=0.25, s=0.25, ang=0.2)
    )
    model = build(cfg, tmp_path)
    found = model.predict(clean_rows(list(CLIPS)[:2]))
    assert found.predicted == ("sad", "sad") and model.facts()["llm/argmax_differs"] == 2
    assert model.facts()["llm/answer_share/happy"] == 1.0


def test_one_answer_without_probabilities_makes_all_one_hot_and_says_so(server, cfg, tmp_path, caplog):
    def otherwise(body):
        whole = "angry 1" not in body["messages"][1]["content"]
        shares = logprobs(happy=0.5, sad=0.3, ang=0.2) if whole else logprobs(happy=0.5, The=0.4)
        return fake.completion('{"emotion":"happy"}', logprobs=shares)

    server.otherwise = otherwise
    model = build(cfg, tmp_path)
    with caplog.at_level(logging.WARNING):
        found = model.predict(clean_rows(list(CLIPS)[:4]))
    assert found.source == "one_hot" and set(found.probabilities.ravel()) == {0.0, 1.0}
    assert "3 of 4" in caplog.text and model.facts()["llm/without_probabilities"] == 1


def test_samples_give_the_probabilities_that_a_service_does_not_tell(server, cfg, tmp_path):
    drawn = with_llm(cfg, samples=3, temperature=1.0, seed=7)

    def otherwise(body):  # the third draw, with the third seed, is another one
        return fake.label("happy" if body["seed"] == 9 else "sad")

    server.otherwise = otherwise
    model = build(drawn, tmp_path)
    rows = clean_rows(list(CLIPS)[:4])
    found = model.predict(rows)
    assert found.source == "samples" and found.gives_probabilities and set(found.predicted) == {"sad"}
    assert found.probabilities[0] == pytest.approx([1 / 12, 4 / 12, 7 / 12], abs=1e-5)
    assert Counter(body["seed"] for body in server.asked) == {7: 4, 8: 4, 9: 4}
    facts = model.facts()
    assert facts["llm/source/samples"] == 1 and facts["llm/way/schema"] == 4
    assert (facts["llm/asked"], facts["llm/answered"], facts["llm/requests"]) == (4, 4, 12)
    assert facts["llm/cost_usd"] == pytest.approx(12 * 0.00035) == facts["llm/paid_usd"]
    again = build(drawn, tmp_path)
    np.testing.assert_array_equal(again.predict(rows).probabilities, found.probabilities)
    assert len(server.asked) == 12 and again.facts()["llm/paid_usd"] == 0


def test_no_samples_are_paid_for_where_logprobs_are_told(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.5, sad=0.3, ang=0.2)
    )
    found = build(with_llm(cfg, samples=5, temperature=1.0), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    assert found.source == "logprobs" and len(server.asked) == 3


def test_abstentions_do_not_make_the_rest_one_hot(server, cfg, tmp_path):
    server.queue.append(fake.completion("well"))
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.5, sad=0.3, ang=0.2)
    )
    found = build(with_llm(cfg, max_concurrency=1), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    assert found.source == "logprobs"
    assert found.probabilities[0] == pytest.approx([1 / 3] * 3) and found.abstained.tolist() == [True, False, False]


def test_reason_is_asked_for_kept_and_never_scored(server, cfg, tmp_path):
    text = '{"emotion": "happy", "reason": "sad, they say, but loud and fast"}'
    server.otherwise = lambda body: fake.completion(text)
    found = build(with_llm(cfg, prompt="explain"), tmp_path).predict(clean_rows(list(CLIPS)[:2]))
    assert found.predicted == ("happy", "happy") and found.notes == (text, text)
    assert said_reason(found.notes[0]) == "sad, they say, but loud and fast"
    body = server.asked[0]
    fields = body["response_format"]["json_schema"]["schema"]
    assert list(fields["properties"]) == fields["required"] == ["emotion", "reason"], "the emotion first: no thinking"
    assert body["max_tokens"] > 90
    server.otherwise = lambda body: fake.label("happy")
    without = build(with_llm(cfg, prompt="explain", seed=1), tmp_path).predict(clean_rows(list(CLIPS)[:1]))
    assert without.abstained.all(), "an answer of another form is none"


def test_order_of_labels_reaches_prompt_and_schema_and_not_the_columns(server, cfg, tmp_path):
    found = build(with_llm(cfg, shuffle_order=True), tmp_path).predict(clean_rows(CLIPS))
    assert found.predicted == found.truth and found.labels == LABELS
    orders = set()
    for body in server.asked:
        order = body["response_format"]["json_schema"]["schema"]["properties"]["emotion"]["enum"]
        assert ", ".join(order) in body["messages"][0]["content"]
        orders.add(tuple(order))
    assert len(orders) > 3


def test_sound_is_sent_once_paid_at_its_price_and_not_kept(server, cfg, tmp_path):
    path = tmp_path / "voice.wav"
    soundfile.write(path, np.sin(np.arange(16_000) / 10.0), 16_000)

    class Heard(Inputs):
        def clips(self, rows):
            return [replace(CLIPS[row.clip_id], path=path, digest="d", duration_s=1.0) for row in rows]

        def transcripts(self, rows):
            raise AssertionError("this prompt tells no transcript")

    def otherwise(body):
        reply = fake.label("sad")
        reply.body["usage"]["prompt_tokens_details"] = {"audio_tokens": 40}
        return reply

    server.otherwise = otherwise
    hears = with_llm(cfg, prompt="audio", price_audio_in_usd=40.0, top_logprobs=0)
    model = build(hears, tmp_path, Heard())
    found = model.predict(clean_rows(["sad-0"]))
    assert found.predicted == ("sad",)
    [_, user] = server.asked[0]["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "input_audio"]
    assert model.facts()["llm/cost_usd"] == pytest.approx((60 * 2.5 + 40 * 40.0 + 10 * 10.0) / 1e6)
    model.predict(clean_rows(["sad-0"]))
    assert len(server.asked) == 1
    sent = user["content"][1]["input_audio"]["data"].encode()
    assert all(sent not in p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_norms_and_examples_are_stored_with_the_predictor(server, cfg, tmp_path):
    class Measured(Inputs):
        def prosody(self, rows):
            return [Prosody(10.0, 6.0, -2.0, 60.0 + len(row.clip_id), 4.0, 10.0, 2.0, 8.0, 12.0) for row in rows]

    shown = with_llm(cfg, prompt="few_shot")
    train, test = clean_rows(list(CLIPS)[1:]), clean_rows(list(CLIPS)[:1])
    server.otherwise = lambda body: fake.label("sad")
    model = build(shown, tmp_path, Measured())
    model.fit(train, ())
    model.predict(test)
    assert len(server.asked[0]["messages"]) == 2 + 2 * 3
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    Llm.load(folder, shown, LABELS, Measured()).predict(test)
    assert len(server.asked) == 1, "the same question word for word"


def test_limit_drops_predictions_of_whole_clips(server, cfg, tmp_path):
    rows = tuple(Row(clip_id, variant) for clip_id in CLIPS for variant in ("clean", "noise"))
    found = build(with_llm(cfg, limit=6), tmp_path).predict(rows)
    assert len(server.asked) == 6 and len(found.rows) == 12
    assert Counter(found.truth) == {"angry": 4, "happy": 4, "sad": 4}
    again = build(with_llm(cfg, limit=6), tmp_path).predict(tuple(reversed(rows)))
    assert set(again.rows) == set(found.rows) and len(server.asked) == 6


def test_empty_test_part(cfg, tmp_path):
    found = build(cfg, tmp_path).predict(())
    assert len(found.rows) == 0 and found.probabilities.shape == (0, 3)


def test_dry_run_needs_no_key_and_asks_nothing(server, cfg, tmp_path, monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    model = build(with_llm(cfg, dry_run=True, limit=6), tmp_path)
    model.fit(clean_rows(CLIPS), ())
    found = model.estimate(tuple(Row(clip_id, variant) for clip_id in CLIPS for variant in ("clean", "noise")))
    assert (found.clips, found.cached) == (6, 0) and found.tokens_in > 6 * 50
    assert not server.asked


def test_budget_without_prices_stops_before_anything_is_transcribed(cfg, tmp_path):
    with pytest.raises(ConfigError, match=r"llm\.price_in_usd"):
        build(with_llm(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0), tmp_path).fit((), ())


def test_missing_key_stops_before_anything_is_transcribed(cfg, tmp_path, monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    with pytest.raises(LLMError, match="SER_BENCH_TEST_KEY"):
        build(cfg, tmp_path).fit((), ())


def test_saved_and_loaded(server, cfg, tmp_path, monkeypatch):
    model = build(cfg, tmp_path)
    first = model.predict(clean_rows(["sad-1"]))
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    text = (folder / SETTINGS_FILE).read_text()
    assert KEY not in text and "SER_BENCH_TEST_KEY" not in text
    saved = json.loads(text)
    assert saved["prompt"]["system"] and saved["prompt_digest"] == prompts.load("paper").digest
    # The stored prompt is used, whatever the package holds by then.
    monkeypatch.setattr(prompts, "load", lambda name: prompts.Prompt(name, "2", "Other.", "$transcript"))
    second = Llm.load(folder, cfg, LABELS, Inputs()).predict(clean_rows(["sad-1"]))
    assert second.predicted == first.predicted and len(server.asked) == 1
    with pytest.raises(ConfigError, match="happy"):
        Llm.load(folder, cfg, ("happy", "sad"), Inputs())


def test_notes_survive_storage(server, cfg, tmp_path):
    server.queue.append(fake.completion('not "json"\n'))
    found = build(with_llm(cfg, max_concurrency=1), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    stored_predictions.save(found, CLIPS, tmp_path / "p.parquet")
    back = stored_predictions.load(tmp_path / "p.parquet")
    assert back.notes == found.notes and back.source == "one_hot" and back.abstained[0]


def test_subset_is_stratified_by_label_and_speaker():
    clips = [clip(label, n, speakers=6) for label, count in (("happy", 60), ("sad", 30)) for n in range(count)]
    chosen = subset(clips, 30, seed=0)
    assert Counter(c.emotion for c in chosen.values()) == {"happy": 20, "sad": 10}
    assert set(Counter(c.speaker for c in chosen.values()).values()) == {5}
    assert list(chosen) == [c.id for c in clips if c.id in chosen]


def test_subset_depends_on_the_seed_and_not_on_the_order():
    clips = list(CLIPS.values())
    assert set(subset(clips, 9, 0)) == set(subset(clips[::-1], 9, 0))
    assert set(subset(clips, 9, 0)) != set(subset(clips, 9, 1))
    assert set(subset(clips, 5, 3)) != set(subset(clips, 5, 4))


@pytest.mark.parametrize("limit", [1, 2, 7, 23, 24, 1_000])
def test_subset_has_the_size_asked_for(limit):
    assert len(subset(list(CLIPS.values()), limit, 0)) == min(limit, 24)


def test_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"llm\.limit=0"):
        subset(list(CLIPS.values()), 0, 0)
